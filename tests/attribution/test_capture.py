"""Nothing waits for the device inside a chunk's forward, so that a CUDA graph can hold it (test_gpu.py does)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import zoo
from alike import assert_same
from capture import Forward, chunks_run_by
from torch.utils._python_dispatch import TorchDispatchMode

from dexar_fast import Explainer
from dexar_fast.attribution.sums import LayerSums
from dexar_fast.backends import operands

TARGETS = [20, 31, 44, 17, 25, 60]
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "repeat_interleave")


class Waits(TorchDispatchMode):
    """The operators that would have a GPU waited for: they ask for a number, or for a shape that hangs on one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.split("::")[1]
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or name in WAITING:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Masks are not asked whether they hide anything; places of keys are copied before the chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operands, "surely", lambda facts: False)
        yield


def test_what_waits_is_found() -> None:
    x = torch.ones(3)
    for wait in (lambda: bool(x.all()), x.nonzero, lambda: x[x > 0], lambda: int(x[0])):
        with Waits() as waits:
            wait()
        assert len(waits.found) == 1


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("family", ["llava", "bakllava", "qwen2_5_vl", "paligemma", "gemma3"])
def test_no_number_is_asked_for_inside_a_chunk(family: str, backend: str, mode: str) -> None:
    model, inputs = zoo.build(family, torch.float32)
    explainer = Explainer(model, mode=mode, layer_index=0, backend=backend, chunk_size=3)
    expected = [explainer.explain_inputs(inputs, target_ids=TARGETS) for _ in range(2)][1]
    waits = Waits()

    def run(forward: Forward) -> LayerSums:
        with waits:
            return forward()

    with as_on_a_gpu(), chunks_run_by(run) as sizes:
        found = explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert sizes == [3, 3]
    assert waits.found == []
    assert_same(found, expected)
