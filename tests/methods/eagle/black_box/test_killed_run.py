"""A run that is killed goes on from its record, without asking again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from answering_server import PROMPT, TOKENS, picture, probabilities

from dexar_fast.methods.eagle.black_box import explain_black_box
from dexar_fast.methods.eagle.method import Eagle

METHOD = Eagle(regions=6, variant="exact")
KILLED_AT = 11
PROGRAM = """
import os, signal, sys
sys.path[:0] = {path!r}
from answering_server import PROMPT, TOKENS, picture, probabilities
from dexar_fast.methods.eagle.black_box import explain_black_box
from dexar_fast.methods.eagle.method import Eagle

calls = 0
def asked(*given):
    global calls
    calls += 1
    if calls == {killed_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return probabilities(*given)

explain_black_box(picture(), PROMPT, TOKENS, asked, Eagle(regions=6, variant="exact"), record={record!r})
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    program = PROGRAM.format(path=sys.path, killed_at=KILLED_AT, record=str(record))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    calls = 0

    def counted(*given: Any) -> list[float]:
        nonlocal calls
        calls += 1
        return probabilities(*given)

    found = explain_black_box(picture(), PROMPT, TOKENS, counted, METHOD, record=record)
    expected = explain_black_box(picture(), PROMPT, TOKENS, probabilities, METHOD)
    assert calls == found.diagnostics["eagle"]["forwards"] - (KILLED_AT - 1)
    assert torch.equal(found.token_maps, expected.token_maps)
