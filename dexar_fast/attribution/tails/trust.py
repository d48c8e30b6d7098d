"""Which layer tails skip autograd: those that look like a known block and have once agreed with autograd.

A tail stays trusted while its layer and the lens hold the same modules with the same forwards, no hooks, and the same
numbers (a norm's epsilon, say), flags and names among their attributes. Weights are read anew in every pass. Each pass
also compares what the layer computes with the tail's own formula (`tails.values`): other code that changes numbers is
noticed in the pass in which it does. A module with a forward of its own is never trusted: such a function may cut a
gradient and change no number. One case goes unnoticed: code of a class that does so through a global.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.tails.block import Block, Head
from dexar_fast.attribution.tails.modules import block_of, head_of
from dexar_fast.attribution.tails.own_ways import (
    behaviour,
    has_own_forward,
    hooks_before,
    hooks_behind,
    hooks_of_all,
    may_change,
)
from dexar_fast.attribution.tails.probes import forget
from dexar_fast.attribution.tails.relations import Relation, hold
from dexar_fast.attribution.tails.values import Sums, by_kind, norm_relation, relations, sums_of
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.lens.program import LogitLens, Outdated
from dexar_fast.model.modules import below

# Relative to the largest gradient. Over all families of tests/support/zoo.py, in both modes and from four seeds, tail
# and autograd differ by up to 5e-7 in float32, 1.2e-2 in bfloat16, 1.5e-3 in float16, and by no more at d = 2,048. Half
# precision gets twice that, float32 what explanations promise. In float64 they differ by 3e-7 where a norm sums in
# float32, as the RMSNorms of transformers do; whoever runs a model in float64 wants autograd's digits.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2.5e-2, torch.float16: 3e-3}
TailModules = tuple[Block, Head]
Wanted = tuple[Tensor | None, dict[torch.device, Tensor]]  # targets of a forward, and the head's rows for them
Trust = tuple[list[Any], TailModules]  # what was found of layer and lens when a tail agreed, and that tail


class Tails:
    """The tails of one pass's layers: those that skip autograd, and those that may once they have agreed with it.

    Args:
        layers: (index, layer, attention) of every layer to be explained.
        trusted: tails by layer index, kept from pass to pass with what was found: users may replace or change modules.
        backend: of the element-wise steps, as `backends.plan` takes it.
    """

    @classmethod
    def of(cls, decoder: Decoder, layers: list[int], backend: str = "auto") -> Tails:
        """The tails of some of the decoder's layers."""
        modules = [(i, decoder.layers[i], decoder.attentions[i]) for i in layers]
        return cls(modules, decoder.lens, decoder.trusted_tails, backend)

    def __init__(
        self,
        layers: list[tuple[int, nn.Module, nn.Module]],
        lens: LogitLens,
        trusted: dict[int, Trust],
        backend: str = "auto",
    ) -> None:
        self._backend = backend
        self._trusted = trusted
        self._found: dict[int, list[Any]] = {}
        self._parts: dict[int, TailModules] = {}
        self._untouched: set[int] = set()
        self._seen: dict[str, Tensor] = {}
        self._wanted: Wanted = None, {}
        self._sums: dict[int, Sums] = {}  # of the layers that have run without autograd
        self._layers = {index: layer for index, layer, _ in layers}
        self._lens = lens
        everywhere = hooks_of_all() + hooks_before(lens.modules) + hooks_behind(lens.modules)
        of_lens = behaviour(lens.modules)
        head = cache(lambda: head_of(lens))
        calls = Counter(id(layer) for _, layer, _ in layers)
        for index, layer, attention in layers:
            modules = below(layer)
            self._found[index] = behaviour(modules) + of_lens
            hooks = hooks_before(modules[1:]) + hooks_behind(modules)  # the layer's input may be anything
            altered = any(map(has_own_forward, modules + lens.modules))
            if altered or may_change(everywhere + hooks):
                continue
            self._untouched.add(index)
            if calls[id(layer)] == 1:
                self._take(index, self._known(index) or parts_of(block_of(layer, attention), head))

    def _known(self, index: int) -> TailModules | None:
        """The layer's tail, if it has agreed with autograd and the layer has not changed since."""
        found, parts = self._trusted.get(index, (None, None))
        return parts if found == self._found[index] else None

    def _take(self, index: int, parts: TailModules | None) -> None:
        if parts is not None:
            self._parts[index] = parts

    def is_untouched(self, index: int) -> bool:
        """Whether the layer runs the code of its class alone, without hooks."""
        return index in self._untouched

    def knows(self, index: int) -> bool:
        """Whether the layer looks like a known block, of which each position stands for itself."""
        return index in self._parts

    def trusts(self, index: int) -> bool:
        """Whether the layer needs no autograd."""
        return index in self._parts and self._known(index) is not None

    def trusts_last(self, decoder: Decoder) -> bool:
        """Whether the decoder ends with a layer that needs no autograd: its rows are read where they are explained."""
        return self.trusts(len(decoder.layers) - 1) and decoder.indices[-1] == decoder.total - 1

    def trusts_all(self) -> bool:
        """Whether no layer needs autograd."""
        return all(map(self.trusts, self._found))

    @contextmanager
    def watching(self, watched: Callable[[], bool], read: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside the block keeps what each layer computes, while `watched()` is true, until the next layer runs.

        Args:
            read: from all rows [.., n] to those that are kept, which end with the C of each row of the batch.
        """

        def keep(name: str, values: tuple[Tensor, ...]) -> None:
            if values and watched():  # what is passed by keyword is not seen
                self._seen[name] = read(values[0].detach())

        def keep_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep("input", args or tuple(x for x in (kwargs.get("hidden_states"),) if x is not None))

        with ExitStack() as stack:
            for index, (block, _) in self._parts.items():
                into = self._layers[index].register_forward_pre_hook(keep_input, with_kwargs=True)
                stack.callback(into.remove)
                for name, module in block.inputs.items():
                    before = module.register_forward_pre_hook(lambda _, args, name=name: keep(name, args))
                    stack.callback(before.remove)
                for name, module in block.outputs.items():
                    behind = module.register_forward_hook(lambda _, args, output, name=name: keep(name, (output,)))
                    stack.callback(behind.remove)
            yield

    def vjp(self, index: int, hidden: Tensor, leaf: Tensor, targets: Tensor, norm_twice: bool) -> Tensor:
        """u [B, C, H, D] of the trusted layer that has just run; `settle` says whether it holds.

        Args:
            hidden: [B, C', d] the layer's output; its last C positions are read. leaf: [B, C, H, D] its attention's.
            targets: [B, C].
        """
        seen = self._rows(targets, hidden.device)
        self._sums[index] = self._sums_of(index, seen, hidden, leaf)
        return self._vjp(index, seen, hidden, targets, norm_twice).view(leaf.shape)

    def judged(
        self, index: int, hidden: Tensor, leaf: Tensor, targets: Tensor, norm_twice: bool, expected: Tensor
    ) -> Tensor:
        """Compares the layer's tail with autograd's u [B, C, H, D]; a tail that differs is not tried again.

        Returns the tail's own u if they agree, else autograd's: so no bit of a chunk's result depends on whether a
        trusted layer had a graph.
        """
        if index not in self._parts:
            return expected
        block, _ = parts = self._parts[index]
        if self._seen.keys() == {"input"} | block.inputs.keys() | block.outputs.keys():
            seen = self._rows(targets, hidden.device)
            found = self._vjp(index, seen, hidden, targets, norm_twice).view(expected.shape)
            forget(block.linears)
            if agrees(found, expected) and self._held({index: self._sums_of(index, seen, hidden, leaf)})[index]:
                self._trusted[index] = self._found[index], parts
                return found
        self._seen.clear()
        del self._parts[index]
        return expected

    def settle(self, hidden: Tensor, normed: Tensor) -> None:
        """Checks a forward at its end.

        Args:
            hidden: [B, C, d] the last layer's output of the C queries. normed: [1, B C, d] of it, by the lens.
        Raises Outdated if a trusted layer, or the final norm, did not compute what the tail assumes.
        """
        sums, self._sums = self._sums, {}
        if not sums:
            return
        _, head = self._parts[next(iter(sums))]
        with as_it_is():
            norm = norm_relation(head.norm, hidden.flatten(0, 1), normed[0])
        held = self._held(sums, norm)
        wrong = [index for index, holds in held.items() if not holds]
        for index in wrong:
            self._trusted.pop(index, None)
        if wrong:
            raise Outdated(f"layers {wrong} do not compute what they did when their gradients were checked")

    def _held(self, sums: Mapping[int, Sums], *others: Relation) -> dict[int, bool]:
        """Whether layers, by index, compute what their tails assume; none does if another relation fails."""
        layers = [(index, (self._parts[index][0], each)) for index, each in sums.items()]
        kinds = by_kind([layer for _, layer in layers])
        with as_it_is():
            found = [relations([layers[number][1] for number in kind]) for kind in kinds]
            good = hold([*others, *(relation for some in found for relation in some)])
        left = iter(good[len(others) :])
        every = all(map(bool, good[: len(others)]))
        held: dict[int, bool] = {}
        for kind, some in zip(kinds, found, strict=True):
            of_kind = torch.stack([next(left) for _ in some]).all(0).tolist()
            held |= {layers[number][0]: holds and every for number, holds in zip(kind, of_kind, strict=True)}
        return held

    def _rows(self, targets: Tensor, device: torch.device) -> dict[str, Tensor]:
        """What was seen where targets [B, C] are predicted, [B C, n] each; a layer's input may come from elsewhere."""
        batch, count = targets.shape
        seen = {name: last_rows(x.reshape(batch, -1, x.shape[-1]), count).to(device) for name, x in self._seen.items()}
        self._seen.clear()
        return seen

    def _sums_of(self, index: int, seen: dict[str, Tensor], hidden: Tensor, leaf: Tensor) -> Sums:
        block, _ = self._parts[index]
        with as_it_is():
            return sums_of(block, seen, leaf.detach().flatten(2).flatten(0, 1), last_rows(hidden, leaf.shape[1]))

    def _vjp(self, index: int, seen: dict[str, Tensor], hidden: Tensor, targets: Tensor, norm_twice: bool) -> Tensor:
        block, head = self._parts[index]
        rows, flat = last_rows(hidden, targets.shape[1]), targets.flatten()
        wanted = self._wanted_of(head, targets, hidden.device)
        grad = head.vjp(rows, flat, wanted, norm_twice, self._backend)
        return block.vjp(seen, grad, self._backend)

    def _wanted_of(self, head: Head, targets: Tensor, device: torch.device) -> Tensor:
        if self._wanted[0] is not targets:
            self._wanted = targets, {}
        there = self._wanted[1]
        if device not in there:
            there[device] = head.wanted(targets.flatten()).to(device)
        return there[device]


def last_rows(hidden: Tensor, count: int) -> Tensor:
    """[B C, d] of the last C positions of each row of hidden states [B, Q, d]."""
    return hidden.detach()[:, -count:].flatten(0, 1)


def parts_of(block: Block | None, head_of_lens: Callable[[], Head | None]) -> TailModules | None:
    """Block and head; None unless both are known, and the block is on one device."""
    head = None if block is None or len(devices_of(block)) > 1 else head_of_lens()
    return None if block is None or head is None else (block, head)


def devices_of(block: Block) -> set[torch.device]:
    """Where its weights are; a layer may be split over several devices."""
    modules = [*block.inputs.values(), *block.outputs.values()]
    return {weight.device for module in modules for weight in module.parameters()}


@contextmanager
def as_it_is() -> Iterator[None]:
    """Keeps the user's torch modes out of the block: they are for the model, and would change this work, too."""
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        yield


def agrees(found: Tensor, expected: Tensor) -> bool:
    """Whether two gradients differ by rounding alone; False if any number is not finite, or all expected ones are 0."""
    error = (found.double() - expected.double()).abs().max()
    largest = expected.double().abs().max()
    return bool(largest > 0) and bool(error <= TOLERANCE.get(expected.dtype, 0.0) * largest)
