"""kernels/kv_cache.py in Triton's interpreter, against the reference: run by test_triton.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bounded import bound
from dexar_fast.kernels import kv_cache as kernels
from kv_cases import CASES, COPIES, check_append, check_copies, name
from triton.runtime.interpreter import GridExecutor

from dexar_fast import InputError
from dexar_fast.backends import reference

FAR = 2**30  # elements: the third of anything that far apart is out of reach of 32 bits


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written or read beside an array."""
    bound(monkeypatch, kernels.append_kernel)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_states_are_appended_and_nothing_else_changes(case: dict[str, Any]) -> None:
    check_append(kernels.kv_append, case)


@pytest.mark.parametrize("count", [1, 3, 130])
def test_states_of_all_layers_are_appended_in_one_launch(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each kind of layer, in whatever order they stand."""
    launches: list[int] = []
    append = kernels._append
    monkeypatch.setattr(kernels, "_append", lambda layers, start: launches.append(len(layers)) or append(layers, start))
    generator = torch.Generator().manual_seed(0)
    dims = [(60, 24), (16, 16), (60, 24), (60, 24), (16, 16)]

    def drawn(slots: int) -> list[Any]:
        return [tuple(torch.randn(1, 3, slots, dim, generator=generator) for dim in each) for each in dims]

    layers, states = drawn(200), drawn(count)
    wanted = [tuple(x.clone() for x in layer) for layer in layers]
    for layer, new in zip(wanted, states, strict=True):
        reference.kv_append(*layer, *new, 7)
    kernels.kv_append_all(layers, states, 7)
    assert launches == [3, 2]
    for layer, expected in zip(layers, wanted, strict=True):
        assert all(map(torch.equal, layer, expected))


@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES.keys())
def test_slots_are_copied_in_every_layer_and_nothing_else_changes(copies: list[tuple[int, int, int]]) -> None:
    check_copies(lambda tensors, copies: kernels.kv_copy(list(pairs(tensors)), copies), copies, (60, 60, 16, 24))


def pairs(tensors: list[torch.Tensor]) -> Any:
    return zip(tensors[::2], tensors[1::2], strict=True)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("far", ["slots", "states"])
def test_addresses_have_64_bits(far: str, axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gigabytes apart, of which only the pages written are ever there: so the interpreter may not copy them back."""
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)
    strides = [0, 9, 3, 1]
    strides[axis] = FAR
    distant = torch.empty(2 * FAR + 32, dtype=torch.int8).as_strided((1, 3, 3, 3), strides)
    near = torch.empty(1, 3, 3, 3, dtype=torch.int8)
    cache, states = (distant, near) if far == "slots" else (near, distant)
    states.copy_(torch.arange(27).view(1, 3, 3, 3))
    expected = torch.arange(27, dtype=torch.int8).view(1, 3, 3, 3)
    other = torch.zeros(1, 3, 3, 3, dtype=torch.int8)
    kernels.kv_append(cache, other, states, expected, 0)
    assert torch.equal(cache, expected)
    assert torch.equal(other, expected)
    kernels.kv_append(other, cache, expected[:, :, :1], states[:, :, 1:2], 2)
    assert torch.equal(other[:, :, 2], expected[:, :, 0])
    assert torch.equal(cache[:, :, 2], expected[:, :, 1])


REFUSED = {
    "another dtype": ({"key": torch.ones(1, 2, 3, 4).half()}, "cannot hold"),
    "other heads": ({"key": torch.ones(1, 1, 3, 4), "value": torch.ones(1, 1, 3, 5)}, "do not fit"),
    "another width": ({"value": torch.ones(1, 2, 3, 4)}, "do not fit"),
    "other tokens": ({"value": torch.ones(1, 2, 2, 5)}, "not of the same tokens"),
    "too far": ({"start": 6}, "slots 6 to 8 are not among slots 0 to 7"),
    "before the first": ({"start": -1}, "not among"),
    "nothing": ({"key": torch.ones(1, 2, 0, 4), "value": torch.ones(1, 2, 0, 5)}, "not among"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_states_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"key": torch.ones(1, 2, 3, 4), "value": torch.ones(1, 2, 3, 5), "start": 5} | changes
    with pytest.raises(InputError, match=words):
        kernels.kv_append(torch.zeros(1, 2, 8, 4), torch.zeros(1, 2, 8, 5), **given)
