"""The tests of the kernels notice the loss of any mask, bound or tail (mutations.py)."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from paths import ROOT

pytest.importorskip("triton")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_no_mutant_survives() -> None:
    command = [sys.executable, str(ROOT / "tests" / "support" / "mutations.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert "0 mutants survive" in done.stdout
