"""The Triton kernels, where there is no GPU: interpreted, and compiled for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from paths import ROOT

pytest.importorskip("triton")
INTERPRETED = [
    "interpreted",
    "interpreted_layers",
    "interpreted_explanation",
    "interpreted_kv_cache",
    "interpreted_tail",
]


@pytest.mark.slow
@pytest.mark.parametrize("what", INTERPRETED)
def test_interpreted_they_equal_the_reference(what: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/support/{what}.py"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_compiled_they_fit_a_gpu_without_spilling(capability: int) -> None:
    from dexar_fast.kernels import compile

    for shape in compile.SHAPES:
        for kernel, queries in compile.LAUNCHES:
            for kind in compile.KINDS:
                used = compile.usage(kernel, shape, torch.bfloat16, capability, kind, queries)
                assert used.spilled == 0, (shape.name, kernel.__name__, queries, kind)
                assert used.programs >= 1
        for count in (1, compile.QUERIES):
            used = compile.append_usage(shape, torch.bfloat16, capability, count)
            assert used.spilled == 0, (shape.name, count)
        for centred in (False, True):
            used = compile.norm_usage(shape, torch.bfloat16, capability, centred)
            assert used.spilled == 0, (shape.name, "norm", centred)
        used = compile.gated_usage(shape, torch.bfloat16, capability)
        assert used.spilled == 0, (shape.name, "gated")


@pytest.mark.slow
def test_a_tile_of_scores_takes_few_instructions() -> None:
    """On sm_90, without a mask: what bounds the kernel there (kernels/README.md)."""
    from dexar_fast.kernels import compile

    used = compile.usage(compile.score_kernel, compile.SHAPES[0], torch.bfloat16, 90)
    visual, last, text, edge = used.loops
    assert max(visual, last, text) <= 150 and edge <= 190
    assert used.programs >= 2
