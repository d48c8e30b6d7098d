"""Problems for `reference.kv_append` and `kv_copy`: states, and slots that lie amid other memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pairwise import pairwise
from torch import Tensor

from dexar_fast.backends import reference

SLOTS, MARGIN = 200, 64
AXES: dict[str, list[Any]] = {
    "dims": [(16, 16), (60, 60), (64, 64), (128, 128), (256, 256), (60, 24), (1, 17), (5, 128)],  # of keys and values
    "heads": [1, 4, 7],
    "count": [1, 3, 63, 130],
    "start": ["first", "odd", "last"],
    "layout": ["contiguous", "strided", "offset", "transposed", "columns"],
    "dtype": [torch.float32, torch.bfloat16, torch.float16],
}
CASES = pairwise(AXES)
COPIES = {
    "one slot": [(3, 8, 1)],
    "side by side": [(0, 17, 17)],
    "backwards": [(150, 1, 50)],
    "pieces": [(0, 100, 8), (48, 108, 16), (16, 124, 3)],
    "many": [(2 * i, 2 * i + 1, 1) for i in range(70)],
}


def name(case: dict[str, Any]) -> str:
    return "-".join(str(value).removeprefix("torch.") for value in case.values())


@dataclass(frozen=True)
class Slots:
    """A tensor [1, H_kv, slots, D] in a memory that nothing else may be written in."""

    memory: Tensor
    tensor: Tensor

    @classmethod
    def of(cls, heads: int, dim: int, dtype: torch.dtype, device: str, generator: torch.Generator) -> Slots:
        size = heads * SLOTS * dim
        memory = torch.randn(size + 2 * MARGIN, generator=generator).to(device, dtype)
        return cls(memory, memory[MARGIN : MARGIN + size].view(1, heads, SLOTS, dim))

    def copy(self) -> Slots:
        memory = self.memory.clone()
        return Slots(memory, memory[MARGIN : len(memory) - MARGIN].view(self.tensor.shape))


def check_append(append: Callable[..., None], case: dict[str, Any], device: str = "cpu") -> None:
    """Compares all memory around the slots, too."""
    generator = torch.Generator().manual_seed(0)
    count, heads, dtype = case["count"], case["heads"], case["dtype"]
    found = [Slots.of(heads, dim, dtype, device, generator) for dim in case["dims"]]
    states = [_states(case["layout"], heads, count, dim, dtype, device, generator) for dim in case["dims"]]
    start = {"first": 0, "odd": 7, "last": SLOTS - count}[case["start"]]
    wanted = [slots.copy() for slots in found]
    reference.kv_append(*(slots.tensor for slots in wanted), *states, start)
    append(*(slots.tensor for slots in found), *states, start)
    assert _same(found, wanted)


def check_copies(
    copy: Callable[..., None],
    copies: list[tuple[int, int, int]],
    dims: tuple[int, ...],
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """In tensors of these widths, a pair with three heads, the next with two, which `copy` takes in a list."""
    generator = torch.Generator().manual_seed(0)
    found = [Slots.of(3 - i // 2 % 2, dim, dtype, device, generator) for i, dim in enumerate(dims)]
    wanted = [slots.copy() for slots in found]
    reference.kv_copy([slots.tensor for slots in wanted], copies)
    copy([slots.tensor for slots in found], copies)
    assert _same(found, wanted)


def _same(found: list[Slots], wanted: list[Slots]) -> bool:
    return all(torch.equal(a.memory, b.memory) for a, b in zip(found, wanted, strict=True))


def _states(
    layout: str, heads: int, count: int, dim: int, dtype: torch.dtype, device: str, generator: torch.Generator
) -> Tensor:
    """[1, H_kv, Q, D] of one of the layouts."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    if layout == "strided":
        return draw(1, heads, 2 * count, dim + 3)[:, :, ::2, :dim]
    if layout == "offset":
        return draw(heads * count * dim + 7)[7:].view(1, heads, count, dim)
    if layout == "transposed":
        return draw(1, count, heads, dim).transpose(1, 2)
    if layout == "columns":
        return draw(1, heads, dim, count).transpose(2, 3)
    return draw(1, heads, count, dim)
