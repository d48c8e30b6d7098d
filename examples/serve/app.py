"""The page of `dexar-fast serve` as a Hugging Face Space: this folder is all that the Space holds.

MODELS, a variable of the Space, names the models that it serves, parted by spaces; without it the embedded one is
served. PASSWORD, a secret of the Space, is asked for where it is set.
"""

import os

from dexar_fast.serve import server
from dexar_fast.serve.limits import Limits
from dexar_fast.serve.models import Models

limits = Limits(tokens=64, seconds=60, a_minute=20)
page, _ = server.page(Models.load(os.environ.get("MODELS", "").split()), limits)
port = int(os.environ.get("PORT", "7860"))
server.start(page, limits, "0.0.0.0", port, os.environ.get("PASSWORD"))
server.wait(page)
