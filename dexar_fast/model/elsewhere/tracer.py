"""Finds the calls of a decoder that attends to other keys than those of its own sequence, too, or attends by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call, Side, readable
from dexar_fast.model.decoder import Decoder, PromptWatcher
from dexar_fast.model.elsewhere.handwritten import by_hand
from dexar_fast.model.tracer import DecoderTracer, list_members


@dataclass(frozen=True)
class Read:
    """What a prompt's own call read: its keys, and which of them any position may read [S]."""

    keys: int
    open: Tensor

    @classmethod
    def of(cls, call: Call) -> Read:
        return cls(call.value.shape[2], readable(call, _queries(call)).any((0, 1)).cpu())


def _queries(call: Call) -> int:
    return call.query.shape[2] if call.query.ndim == 4 else call.mask.shape[-2]  # type: ignore[union-attr]


class Begun(Exception):
    """Ends a generate() of which enough has been seen."""


class CallsWatcher(PromptWatcher):
    """Remembers what the prompt read in each call of a known decoder.

    Args:
        stops: whether to raise Begun as soon as a call has read each of the sides.
    """

    def __init__(self, model: nn.Module, inputs: Iterable[str], decoder: Decoder, stops: bool = False) -> None:
        super().__init__(model, 0, inputs)
        self.reads: dict[nn.Module, Read] = {}
        self._by_hand = decoder.by_hand
        assert decoder.sides is not None  # it was found by its calls
        self._sides = dict(zip(decoder.attentions, decoder.sides, strict=True))
        self._stops = stops

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        if module not in self.reads:
            self.reads[module] = Read.of(call)
        if self._stops and {self._sides.get(each) for each in self.reads} >= set(self._sides.values()):
            raise Begun
        return output

    @contextmanager
    def watching(self) -> Iterator[None]:
        with super().watching(), by_hand(self._by_hand):
            yield


class CallsTracer(DecoderTracer):
    """Watches one forward of prompt, and perhaps answer, and finds the decoder's calls, but for their sides."""

    def __init__(self, model: nn.Module, inputs: Iterable[str]) -> None:
        super().__init__(model, 0, inputs)
        self.reads: dict[nn.Module, Read] = {}
        self.length = 0  # of the decoder's own sequence
        self._interface: set[nn.Module] = set()  # what attends through transformers' interface

    def called(self, module: nn.Module, tensors: frozenset[str], known: frozenset[str], mask: Tensor | None) -> None:
        self._interface.add(module)
        super().called(module, tensors, known, mask)

    def _met_call(self, module: nn.Module, call: Call) -> None:
        self.reads[module] = Read.of(call)

    @contextmanager
    def watching(self) -> Iterator[None]:
        inside = {module: None for layer in list_members(self.model) for module in layer.modules()}
        with super().watching(), by_hand(inside):
            yield

    def _found(self, model: nn.Module, logits: Tensor) -> Decoder:
        """The decoder's layers stand in the lists beside that which holds the last of all layers."""
        names = {module: name for name, module in model.named_modules()}
        holder = _list_of(names[self._last]).rpartition(".")[0]
        lists = {name for name in names.values() if name.rpartition(".")[0] == holder} - {""}
        modules = dict(model.named_modules())
        calls = zip(self._attended, self._heads, strict=True)
        mine, heads = zip(*[call for call in calls if _list_of(names[call[0]]) in lists], strict=True)
        layers = [modules[_layer_of(names[each])] for each in mine]
        members = list(dict.fromkeys(layers))
        assert self._lens.hidden is not None  # the last layer has run
        self.length = self._lens.hidden.shape[1]
        lens = self._lens.finish(logits, self.length)
        held = {id(module) for module in [*layers, *mine, *lens.modules, self._last]}
        places = {name: module for name, module in modules.items() if id(module) in held}
        return Decoder(
            layers,
            list(mine),
            lens,
            False,
            self._last,
            places,
            heads=list(heads),
            indices=[members.index(layer) for layer in layers],
            total=len(members),
            by_hand=[each for each in mine if each not in self._interface],
        )


def sides(decoder: Decoder, short: CallsTracer, long: CallsTracer) -> list[Side]:
    """Whose keys each call reads, by two forwards: the second of one token more.

    Raises:
        ModelError: keys that neither stay nor grow by one.
    """
    keys = [(each, short.reads[each].keys, long.reads[each].keys) for each in decoder.attentions]
    return [_side(module, short.length, *both) for module, *both in keys]


def _side(module: nn.Module, length: int, keys: int, later: int) -> Side:
    if later == keys:
        return Side.BESIDE
    if later == keys + 1 and keys >= length:
        return Side.OWN if keys == length else Side.BOTH
    raise ModelError(
        f"{type(module).__name__} reads {keys} keys for {length} tokens and {later} for one more: of keys that are "
        "dropped or pooled no map is defined"
    )


def _list_of(name: str) -> str:
    """The outermost list of layers that a module's name leads through."""
    return _layer_of(name).rpartition(".")[0]


def _layer_of(name: str) -> str:
    """The member of that list: a list's members are numbered."""
    parts = name.split(".")
    first = next((index for index, part in enumerate(parts) if part.isdecimal()), None)
    return "" if first is None else ".".join(parts[: first + 1])
