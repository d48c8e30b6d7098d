"""A model whose layers are split over processes, as transformers loads one by `tp_plan`: each process refuses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dexar_fast.profile.shapes import build

ROOT = Path(__file__).parents[2]
PART = """
import sys
from transformers import AutoModelForImageTextToText
from dexar_fast import Explainer
from dexar_fast.errors import ModelError

model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], tp_plan="auto")
try:
    Explainer(model)
except ModelError as error:
    print("refused:", error)
"""


@pytest.mark.slow
def test_tensor_parallel_is_refused_in_each_process(tmp_path: Path) -> None:
    build("llava-1.5-7b", tiny=True).model.save_pretrained(tmp_path / "model")
    (tmp_path / "part.py").write_text(PART)
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launched, str(tmp_path / "part.py"), str(tmp_path / "model")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused: LlavaForConditionalGeneration is split over processes") == 2
