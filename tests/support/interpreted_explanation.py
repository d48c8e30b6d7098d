"""An explanation by the Triton kernels in Triton's interpreter: run by test_triton.py under TRITON_INTERPRET=1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import zoo
from dexar_fast.kernels import head_score as kernels
from test_backends import BOUND

from dexar_fast import Explainer
from dexar_fast.attribution.calls import rows
from dexar_fast.backends import plan

ARRAYS = ("visual_scores", "text_scores", "token_weights", "token_maps", "unfiltered_token_maps")
TARGETS = [20, 30, 40, 50]


@pytest.fixture(autouse=True)
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Triton works on the CPU, since there is no GPU to ask for; how many layers each launch scored."""
    scored, counts = kernels.head_scores, []

    def counted(layers: Any, *given: Any) -> Any:
        counts.append(len(layers))
        return scored(layers, *given)

    monkeypatch.setitem(plan.DEVICES, "triton", "cpu")
    monkeypatch.setattr(kernels, "head_scores", counted)
    plan._scoring.cache_clear()
    yield counts
    plan._scoring.cache_clear()


def check_same(family: str, dtype: torch.dtype, **knobs: Any) -> None:
    model, inputs = zoo.build(family, dtype)
    wanted, found = (
        Explainer(model, backend=backend, **knobs).explain_inputs(inputs, target_ids=TARGETS)
        for backend in ("torch", "triton")
    )
    for array in ARRAYS:
        expected = getattr(wanted, array)
        largest = wanted.visual_scores if array == "token_weights" else expected  # they are differences of scores
        assert (getattr(found, array) - expected).abs().max() <= BOUND[dtype] * largest.abs().max(), array
    assert found.diagnostics.keys() == wanted.diagnostics.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_it_is_the_same_as_on_torch(family: str, dtype: torch.dtype, together: list[int]) -> None:
    """Layers are scored together; those that read a window apart from the others."""
    check_same(family, dtype)
    layers = zoo.build(family, dtype)[0].config.get_text_config().num_hidden_layers
    assert sum(together) == layers and len(together) == (2 if family == "gemma3" else 1)


@pytest.mark.parametrize("knobs", [{"chunk_size": 3}, {"mode": "official", "layer_index": 0}], ids=str)
def test_it_is_the_same_in_chunks_and_with_a_range(knobs: dict[str, Any]) -> None:
    check_same("llava", torch.float32, **knobs)


def test_it_is_the_same_where_layers_may_not_wait(together: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "WAITING", 1)
    check_same("llava", torch.float32)
    assert set(together) == {1}
