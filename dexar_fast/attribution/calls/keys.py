"""Which keys the explained queries of a call score: the image's and the text's, as far as each query may read them."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.backends.operands import HeadGroups, Keys, keys_of_heads, placed, run_of
from dexar_fast.model.attention import Call, Side, check_keys, readable
from dexar_fast.model.masks import attendable, is_plain
from dexar_fast.stages import stage


class KeysOfCalls:
    """The keys of one chunk's calls; layers that share a mask share them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._visual = run_of(plan.visual)
        self._text = plan.text.numpy().nonzero()[0]
        # by the id of a mask, which layers share, with a reference to it: another may get its id once it is gone
        self._known: dict[tuple[int, torch.device, int, Side], tuple[Any, Keys | HeadGroups]] = {}
        self._placed: dict[torch.device, tuple[Tensor | slice, Tensor]] = {}

    def begin(self, device: torch.device) -> None:
        """Called before each chunk: its masks are others, and nothing is sent to this device while it runs."""
        self._known.clear()
        if self._plan.beside == 0:
            self._positions(device)

    def knows(self, call: Call) -> bool:
        """Whether another call of the chunk had the same mask."""
        return self._found(call, Side.OWN) is not None

    def _found(self, call: Call, side: Side) -> Keys | HeadGroups | None:
        mask, keys = self._known.get((*_mask_of(call), side), (None, None))
        return keys if mask is None or mask() is call.mask else None

    def of(self, module: nn.Module, call: Call, side: Side, queries: int, length: int) -> Keys | HeadGroups:
        """The keys of a call's last `queries`, in a sequence that is `length` long so far.

        Raises:
            ModelError: the call reads others than these.
        """
        beside = self._plan.beside
        check_keys(module, call.value, {Side.OWN: length, Side.BESIDE: beside, Side.BOTH: length + beside}[side])
        found = self._found(call, side)
        if found is None:
            with stage("masks"):
                found = self._made(call, side, queries, length)
            mask = None if call.mask is None else weakref.ref(call.mask)
            self._known[(*_mask_of(call), side)] = mask, found
        return found

    def _made(self, call: Call, side: Side, queries: int, length: int) -> Keys | HeadGroups:
        keys, device = call.value.shape[2], call.value.device
        if self._plan.beside == 0:
            visual, text = self._positions(device)
            seen = attendable(call.mask, queries, keys, device)
            text = text[: self._text.searchsorted(keys)]
            return keys_of_heads(visual, text, seen, causal=is_plain(call.mask))
        numbers = _numbers(side, self._plan.beside, length)
        visual = run_of(torch.isin(numbers, self._plan.visual).nonzero()[:, 0])
        text = self._plan.text[numbers].nonzero()[:, 0]
        return keys_of_heads(placed(visual, device), text.to(device), readable(call, queries), numbers.to(device))

    def _positions(self, device: torch.device) -> tuple[Tensor | slice, Tensor]:
        """Positions of the visual keys and of the whole sequence's text keys, sent to each device once."""
        if device not in self._placed:
            self._placed[device] = placed(self._visual, device), torch.from_numpy(self._text).to(device)
        return self._placed[device]


def _mask_of(call: Call) -> tuple[int, torch.device, int]:
    return id(call.mask), call.value.device, call.value.shape[2]


def _numbers(side: Side, beside: int, length: int) -> Tensor:
    """The number of each key of a call, in its order."""
    others, own = torch.arange(beside, device="cpu"), torch.arange(beside, beside + length, device="cpu")
    return {Side.OWN: own, Side.BESIDE: others, Side.BOTH: torch.cat([own, others])}[side]
