"""The running results of the pass: layer by layer within a chunk, chunk by chunk over the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from dexar_fast.attribution import text_maps
from dexar_fast.attribution.text_maps import TextMaps, TextSums
from dexar_fast.backends.operands import HeadGroups, Keys, Layer, LayerScores, MapSums, total_range
from dexar_fast.backends.ops import Scoring
from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call


@dataclass(frozen=True)
class Attribution:
    """The raw sums over all layers for T tokens, on the CPU, float32 or better."""

    visual_scores: Tensor  # [T, L, H] of the layers that attend; 0 for heads that only other layers have
    text_scores: Tensor  # [T, L, H]
    text_winners: Tensor  # [S] in how many heads, over all tokens and layers, each key so far won S_txt
    token_maps: Tensor  # [T, N]
    unfiltered_token_maps: Tensor  # [T, N]
    range: Tensor | None  # [2] smallest and largest G over the visual keys
    text: TextMaps | None = None  # over the text keys, if asked for


class Sums(Protocol):
    """What takes the layers of one chunk of C tokens as they come."""

    def layer(self, u: Tensor, call: Call, keys: Keys | HeadGroups) -> None:
        """Takes one layer: u [C, H, D], its attention, whose last C queries are explained, and the keys they score."""
        ...

    def settle(self) -> None:
        """Computes what waits for other layers. Called behind the last one, and before what waits takes much memory."""
        ...

    def attribution(self, length: int) -> Any:
        """All layers together, for queries that could read `length` keys; holds token_maps [C, N]."""
        ...


class LayerSums:
    """Scores the heads of each layer and adds up the layers of one chunk, over N visual keys.

    Args:
        text: takes the layers, too, where the maps over text keys are asked for.
    """

    def __init__(self, visual: int, scoring: Scoring, text: TextSums | None = None) -> None:
        self._visual = visual
        self._scoring = scoring
        self._text = text
        self._layers = 0
        self._waiting: dict[int, Layer] = {}  # by their number, those that are scored together
        self._scores: dict[int, LayerScores] = {}
        self._maps: dict[tuple[torch.device, torch.dtype], MapSums] = {}

    def layer(self, u: Tensor, call: Call, keys: Keys | HeadGroups) -> None:
        layer = Layer(u, call.value[0], keys)
        if self._scoring.joins(layer):
            self._waiting[self._layers] = layer
        else:
            maps = self.maps(u)  # which no layer without visual keys adds to
            own = maps if keys.has_image else MapSums.zeros(u, 0)
            self._take(self._layers, layer, self._scoring.of(layer, own))
        self._layers += 1
        if self._text is not None:
            self._text.layer(u, call.value[0], keys)

    def maps(self, u: Tensor) -> MapSums:
        """The sums that a layer with this u [C, H, D] adds its maps to: one set for each device and dtype."""
        kind = u.device, u.dtype
        if kind not in self._maps:
            self._maps[kind] = MapSums.zeros(u, self._visual)
        return self._maps[kind]

    def settle(self) -> None:
        kinds: dict[Any, list[int]] = {}
        for number, layer in self._waiting.items():
            kinds.setdefault(layer.kind, []).append(number)
        for numbers in kinds.values():
            self._score([(number, self._waiting[number]) for number in numbers])
        self._waiting.clear()

    def _score(self, layers: Sequence[tuple[int, Layer]]) -> None:
        scores, maps = self._scoring.of_all([layer for _, layer in layers])
        for (number, layer), each in zip(layers, scores, strict=True):
            self._take(number, layer, each)
        kind = layers[0][1].u.device, layers[0][1].u.dtype
        if kind in self._maps:
            self._maps[kind].both.add_(maps.both)
        else:
            self._maps[kind] = maps

    def _take(self, number: int, layer: Layer, scores: LayerScores) -> None:
        self._scores[number] = numbered(scores, layer.keys.numbers)

    def attribution(self, length: int) -> Attribution:
        """All layers together, for queries that could read `length` keys."""
        scores = [self._scores[number] for number in range(self._layers)]
        ranges = [each.range.cpu() for each in scores if each.range is not None]
        both = _stacked([each.visual_score for each in scores] + [each.text_score for each in scores], 0)
        visual, text = both.cpu().unflatten(1, (2, -1)).transpose(0, 1).contiguous()  # a copy from a GPU is waited for
        winner = _stacked([each.text_winner for each in scores], -1).cpu()
        if ranges and len({each.visual_score.shape[1] for each in scores}) > 1:
            raise ModelError(
                "the decoder's layers differ in their number of heads: mode='official' is not defined there"
            )
        token_maps, unfiltered = reduce(torch.add, [maps.both.cpu() for maps in self._maps.values()])
        return Attribution(
            visual_scores=visual,
            text_scores=text,
            text_winners=torch.bincount(winner[winner >= 0], minlength=length),
            token_maps=token_maps,
            unfiltered_token_maps=unfiltered,
            range=total_range(ranges) if ranges else None,
            text=None if self._text is None else self._text.maps(),
        )


def numbered(scores: LayerScores, numbers: Tensor | None) -> LayerScores:
    """The scores with their winners called by the numbers [S] of the keys in the result."""
    if numbers is None:
        return scores
    winner = scores.text_winner
    return replace(scores, text_winner=torch.where(winner >= 0, numbers[winner.clamp(min=0)], -1))


def joined(chunks: list[Attribution]) -> Attribution:
    """The chunks of an answer, one after the other."""

    def over_tokens(name: str) -> Tensor:
        return torch.cat([getattr(chunk, name) for chunk in chunks])

    texts = [chunk.text for chunk in chunks if chunk.text is not None]
    ranges = [chunk.range for chunk in chunks if chunk.range is not None]
    return Attribution(
        visual_scores=over_tokens("visual_scores"),
        text_scores=over_tokens("text_scores"),
        text_winners=counted([chunk.text_winners for chunk in chunks]),
        token_maps=over_tokens("token_maps"),
        unfiltered_token_maps=over_tokens("unfiltered_token_maps"),
        range=total_range(ranges) if ranges else None,
        text=text_maps.joined(texts) if texts else None,
    )


def counted(winners: list[Tensor]) -> Tensor:
    """The sum of counts for each key, [S]; later chunks have more keys."""
    total = torch.zeros(max(map(len, winners)), dtype=torch.long, device="cpu")
    for count in winners:
        total[: len(count)] += count
    return total


def _stacked(layers: Sequence[Tensor], missing: float) -> Tensor:
    """[C, H'] of each layer, on any devices, to [C, L, H] on the first; heads that a layer lacks are `missing`."""
    heads = max(layer.shape[1] for layer in layers)
    rows = [layer.to(layers[0].device) for layer in layers]
    padded = [x if x.shape[1] == heads else pad(x, (0, heads - x.shape[1]), value=missing) for x in rows]
    return torch.stack(padded, dim=1)
