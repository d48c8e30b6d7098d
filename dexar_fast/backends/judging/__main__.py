"""Decides on cases given as JSON, unless another process is at it or they are decided."""

import json
import sys

from dexar_fast.backends.judging.deciding import decide_new
from dexar_fast.backends.verdicts.case import Case

decide_new([Case(**each | {"sizes": tuple(each["sizes"])}) for each in json.loads(sys.argv[1])])
