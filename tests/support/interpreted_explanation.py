"""An explanation by the Triton kernels in Triton's interpreter: run by test_triton.py under TRITON_INTERPRET=1."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import zoo
from dexar_fast.kernels import head_score as kernels
from test_backends import BOUND

from dexar_fast import Explainer
from dexar_fast.backends import operators

ARRAYS = ("visual_scores", "text_scores", "token_weights", "token_maps", "unfiltered_token_maps")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_it_is_the_same_as_on_torch(family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the CPU's kernel, since there is no GPU to ask for; the tail's steps are C++'s."""
    model, inputs = zoo.build(family, dtype)
    wanted = Explainer(model, backend="torch").explain_inputs(inputs, target_ids=[20, 30, 40])
    calls = []
    replaced = SimpleNamespace(head_score=lambda *given: calls.append(1) or kernels.head_score(*given))
    monkeypatch.setattr(operators, "cpp", replaced)
    found = Explainer(model, backend="cpp").explain_inputs(inputs, target_ids=[20, 30, 40])
    assert len(calls) == wanted.visual_scores.shape[1]
    for array in ARRAYS:
        expected = getattr(wanted, array)
        largest = wanted.visual_scores if array == "token_weights" else expected  # they are differences of scores
        assert (getattr(found, array) - expected).abs().max() <= BOUND[dtype] * largest.abs().max(), array
