"""TAM, the token activation map (xmed-lab/TAM): where the image's logits speak for a word, less what others explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dexar_fast.methods import knobs
from dexar_fast.methods.activation.rank_gaussian import rank_gaussian
from dexar_fast.methods.activation.text_items import Items, text_items
from dexar_fast.methods.base import WHOLE_ANSWER, Asked, Maps
from dexar_fast.model.teacher_forcing import head_inputs

EPS = 1e-8  # TAM's: beside the sum of the text scores

_NOTES = (
    "Map value of a patch, from 0 to 1: the positive logit of the token's word at the patch's own position, less "
    "what earlier words explain (unless correction is off), on a scale that the scores of the text share.",
    WHOLE_ANSWER,
    "A patch that stands before the question cannot know it, unless the prompt is read in both directions: the map "
    "tells where the picture speaks for a word, not whether the answer drew on it.",
)


@dataclass(frozen=True)
class Tam:
    """Token activation maps, from one forward of prompt and answer and the rows of the head that count.

    The raw map of a token is the positive part of its logit at each visual position. What the earlier words explain is
    subtracted, the rest is scaled against the scores of the text, and filtered on each grid. Token 0 gets its own map;
    TAM's code returns that of the prompt's first word. The maps are not rounded to 8 bits, which theirs are. Visual
    tokens outside the grids are not filtered. The sequence map is the sum of the token maps.

    Attributes:
        correction: whether the weighted mean of the earlier words' raw maps is subtracted, as far as it explains a map.
        filter: whether the maps are filtered (`rank_gaussian`).
    Raises:
        InputError: a knob that is neither True nor False.
    """

    name: ClassVar[str] = "tam"
    correction: bool = True
    filter: bool = True

    def __post_init__(self) -> None:
        knobs.flag("correction", self.correction)
        knobs.flag("filter", self.filter)

    @torch.no_grad()
    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N] in [0, 1], float32."""
        return self.maps_of(
            head_inputs(asked.model, asked.inputs, asked.targets[:-1], asked.decoder, asked.visual), asked
        )

    @torch.no_grad()
    def maps_of(self, normed: Tensor, asked: Asked) -> Maps:
        """The same from what the output head reads, [1, P + T - 1, d] (`head_inputs`)."""
        items = text_items(asked)
        visual, text = _scores(normed, asked, items)
        found = activation_maps(visual, text, items.names if self.correction else None)
        for grid in asked.grids if self.filter else ():
            cells = torch.from_numpy(grid.cells)
            found[:, cells] = rank_gaussian(found[:, cells])
        maps = found.float()
        words = {"prompt_words": len(items.ids) - len(asked.targets)}
        return Maps(maps, maps.sum(0), asked.grids, notes=_NOTES, diagnostics=words)


def _scores(normed: Tensor, asked: Asked, items: Items) -> tuple[Tensor, Tensor]:
    """relu of the logits of every item's id at the visual tokens [N, I], and of the targets' at the items [I, T]."""
    rows = torch.cat([asked.visual, items.positions]).to(normed.device)
    scores = asked.decoder.lens.table(normed[:, rows], items.ids).relu().double().cpu()
    return scores[: len(asked.visual)], scores[len(asked.visual) :, -len(asked.targets) :]


def activation_maps(visual: Tensor, text: Tensor, names: Tensor | None) -> Tensor:
    """Maps [T, N] in [0, 1] of the last T of I items of text, before the filter.

    Args:
        visual: [N, I] the score of each item at each visual token. text: [I, T] that of each target at each item.
        names: [I] equal numbers for equal words, which do not correct each other; None corrects nothing.
    """
    items, targets = text.shape
    raw = visual[:, items - targets :]
    earlier = torch.ones(items, targets).triu(1 + targets - items).bool()
    if names is not None:
        others = earlier & (names[:, None] != names[items - targets :])
        raw = _corrected(raw, visual @ _shares(text * others))
    return _scaled(raw, text, earlier).T.contiguous()


def _shares(scores: Tensor) -> Tensor:
    return scores / (scores.sum(0) + EPS)


def _corrected(raw: Tensor, explained: Tensor) -> Tensor:
    """relu(raw - a explained) [N, T], with the a of each column that makes the square of the difference smallest."""
    squares = explained.square().sum(0)
    factors = torch.where(squares > 0, (raw * explained).sum(0) / squares, 0)
    return (raw - factors * explained).relu()


def _scaled(maps: Tensor, text: Tensor, earlier: Tensor) -> Tensor:
    """Each column of maps [N, T] by the extremes of its own and of its earlier items' scores; a constant one to 0."""
    low = torch.minimum(maps.amin(0), text.masked_fill(~earlier, torch.inf).amin(0))
    span = torch.maximum(maps.amax(0), text.masked_fill(~earlier, 0).amax(0)) - low
    return torch.where(span == 0, 0, (maps - low) / span)
