"""The inputs of several prompts as those of one batch, padded on the left, or as those of one row, without padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from dexar_fast.prompt.inputs import SEQUENCES

IDS, MASK = "input_ids", "attention_mask"
Inputs = Mapping[str, Any]


def kind_of(inputs: Inputs) -> tuple[Any, ...]:
    """What prompts have in common that can run in one batch: all but their lengths and how many pictures they show."""
    return tuple(sorted((name, _shape(name, value)) for name, value in inputs.items()))


def _shape(name: str, value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    return str(value.dtype if name in SEQUENCES else (value.dtype, value.shape[1:]))


def joined(prompts: Sequence[Inputs], fillers: Sequence[int]) -> dict[str, Any]:
    """The inputs of a batch from those [1, P] of several prompts of one kind.

    Args:
        fillers: the ids that stand before each shorter prompt, hidden by the mask. Taken from the prompt itself: so
            nothing that looks at which ids it holds (a repetition penalty, say) sees another.
    """
    whole = _with_masks(prompts)
    length = max(each[IDS].shape[1] for each in whole)
    return {name: _together(name, [each[name] for each in whole], length, fillers) for name in whole[0]}


def in_a_row(prompts: Sequence[Inputs]) -> dict[str, Any]:
    """The inputs [1, sum P] of prompts [1, P] of one kind that stand one behind the other."""
    whole = _with_masks(prompts)
    return {name: _one_after_another(name, [each[name] for each in whole]) for name in whole[0]}


def _with_masks(prompts: Sequence[Inputs]) -> list[dict[str, Any]]:
    return [{MASK: torch.ones_like(each[IDS]), **each} for each in prompts]


def _one_after_another(name: str, values: Sequence[Any]) -> Any:
    return torch.cat(list(values), int(name in SEQUENCES)) if isinstance(values[0], Tensor) else values[0]


def _together(name: str, values: Sequence[Any], length: int, fillers: Sequence[int]) -> Any:
    if not isinstance(values[0], Tensor):
        return values[0]
    if name in SEQUENCES:
        blanks = fillers if name == IDS else [0] * len(values)
        values = [pad(x, (length - x.shape[1], 0), value=blank) for x, blank in zip(values, blanks, strict=True)]
    return torch.cat(list(values))


def groups(lengths: Sequence[int], kinds: Sequence[Any], size_of: Callable[[list[int]], int]) -> Iterator[list[int]]:
    """The numbers of prompts that run together: of one kind, those of like length side by side.

    Args:
        size_of: how many of these numbers, the longest first, run at once; asked once those before have run.
    """
    for kind in dict.fromkeys(kinds):
        left = sorted((n for n, each in enumerate(kinds) if each == kind), key=lambda n: lengths[n], reverse=True)
        while left:
            size = size_of(left)
            yield left[:size]
            left = left[size:]
