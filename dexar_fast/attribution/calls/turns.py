"""Which of a decoder's calls a module makes each time it runs: layers that loop make another one in each run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from dexar_fast.model.decoder import Decoder


class Turns:
    """The calls of one forward after another, in the order in which the decoder was seen to make them."""

    def __init__(self, decoder: Decoder) -> None:
        self._of_attention: dict[nn.Module, list[int]] = {}
        self._of_layer: dict[nn.Module, list[list[int]]] = {}  # those of each of its runs
        for index, (layer, attention) in enumerate(zip(decoder.layers, decoder.attentions, strict=True)):
            mine = self._of_attention.setdefault(attention, [])
            mine.append(index)
            runs = self._of_layer.setdefault(layer, [])
            runs += [[] for _ in range(len(mine) - len(runs))]
            runs[len(mine) - 1].append(index)
        self.begin()

    def begin(self) -> None:
        """Called before a forward."""
        self._done: Counter[nn.Module] = Counter()

    def of_attention(self, module: nn.Module) -> int | None:
        """The call that a module makes now; None for one that is none of the decoder's."""
        return self._next(module, self._of_attention.get(module))

    def of_layer(self, module: nn.Module) -> list[int]:
        """The calls of the run of a layer that has just ended."""
        return self._next(module, self._of_layer.get(module)) or []

    def _next(self, module: nn.Module, turns: Any) -> Any:
        if turns is None:
            return None
        self._done[module] += 1
        return turns[(self._done[module] - 1) % len(turns)]
