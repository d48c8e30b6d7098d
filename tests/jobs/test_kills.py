"""Jobs that are killed at random times end in the same table, to the byte, as one that never was."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from killed_jobs import __file__ as SCRIPT

from dexar_fast.data import of
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished.merging import merge

DATA, SIZE = "shapes:count=8", 4


@pytest.mark.parametrize("answers", ["written", "given"])
def test_the_table_is_the_same_to_the_byte(finish: Any, tmp_path: Path, answers: str) -> None:
    data, asked = of(DATA), Asked(written=answers == "written", batch_size=SIZE)
    command = [sys.executable, SCRIPT, str(tmp_path / "out"), DATA, str(SIZE), answers, "3"]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    left = [int(line) for line in told.stdout.split()]
    assert left[0] == len(data) and left == sorted(left, reverse=True), told.stderr
    finish.run(data, tmp_path / "out", asked)
    finish.run(data, tmp_path / "whole", asked)
    assert merge(tmp_path / "out").path.read_bytes() == merge(tmp_path / "whole").path.read_bytes()
