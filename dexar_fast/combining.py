"""One explanation from several: the mean of methods' ranks, their disagreement, what one answer has over another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.results.assembly import without_heads
from dexar_fast.vision import sampling
from dexar_fast.vision.grid import Size

_RANKS = (
    "Map value of a patch, from 0 to 1: its rank among all patches, the lowest 0 and the highest 1, averaged over {}. "
    "The whole answer's is that of the methods' own maps of it.",
    "Ranks leave out by how much a method sets a patch above another.",
)
_SPREAD = (
    "Map value of a patch: the standard deviation of its rank, from 0 to 1, over {}: 0 where they agree, at most 0.5.",
    "Agreement is no proof: methods of one kind share their faults.",
)
_BEYOND = (
    "Map value of a patch: by how much its share of the map of this answer exceeds its share of that of the other, "
    "{!r}; 0 where it does not. A share of 1 is the whole map.",
    "Map of a token: the same with the token's own map; map of the whole answer: of the answer's.",
)


def mean_ranks(explanations: Sequence[Explanation], names: Sequence[str]) -> Explanation:
    """The methods' maps of one answer as ranks in [0, 1], averaged; equal values share their mean rank.

    Raises:
        InputError: fewer than two, other answers or pictures, or maps without a place.
    """
    return _combined("mean-ranks", explanations, names, lambda ranks: ranks.mean(0), _RANKS)


def disagreement(explanations: Sequence[Explanation], names: Sequence[str]) -> Explanation:
    """The standard deviation of these ranks over the methods as of all there are. Raises as `mean_ranks`."""
    return _combined("disagreement", explanations, names, lambda ranks: ranks.std(0, correction=0), _SPREAD)


def beyond(one: Explanation, other: Explanation) -> Explanation:
    """relu( a / sum a - b / sum b ) of the maps of two answers about the same pictures, by the same method.

    Raises:
        InputError: maps of different cells.
    """
    if one.grids != other.grids or one.sequence_map.shape != other.sequence_map.shape:
        raise InputError("the two answers' maps have different cells: explain them by one method, about one picture")
    theirs = _shares(other.sequence_map)
    token_maps = (_shares(one.token_maps) - theirs).relu()
    notes = [_BEYOND[0].format(other.text.strip()), _BEYOND[1]]
    sequence_map = (_shares(one.sequence_map) - theirs).relu()
    return _of(one, "difference", token_maps, sequence_map, notes, {"against": other.text})


def _combined(
    name: str,
    explanations: Sequence[Explanation],
    names: Sequence[str],
    combine: Callable[[Tensor], Tensor],
    notes: Sequence[str],
) -> Explanation:
    _check(explanations)
    like = explanations[sampling.finest([each.grids for each in explanations])]
    ranks = torch.stack([_ranks(each, like) for each in explanations])  # [methods, 1 + T, N]
    found = combine(ranks).to(like.token_maps.dtype)
    said = [notes[0].format(", ".join(names)), *notes[1:]]
    return _of(like, name, found[1:], found[0], said, {"methods": [*names]})


def _check(explanations: Sequence[Explanation]) -> None:
    if len(explanations) < 2:
        raise InputError(f"ranks of several methods take two explanations or more, not {len(explanations)}")
    if any(not torch.equal(each.token_ids, explanations[0].token_ids) for each in explanations):
        raise InputError("the explanations are of different answers")
    if len({tuple(image.size for image in each.images) for each in explanations}) > 1:
        raise InputError("the explanations are of different pictures, or some of them hold none")
    if not all(each.grids for each in explanations):
        raise InputError("a map of these has no place in the picture: ranks of patches take one")


def _ranks(explanation: Explanation, like: Explanation) -> Tensor:
    """[1 + T, N] float64: of the whole answer and of each token, in another's cells; 0 outside all cells.

    A region of many cells has the mean of what these read.
    """
    maps = torch.cat([explanation.sequence_map[None], explanation.token_maps]).double()
    target, source, share = map(torch.from_numpy, sampling.parts(like.grids, explanation.grids, _sizes(like)))
    found = torch.zeros(len(maps), len(like.sequence_map), dtype=torch.float64)
    found.index_add_(1, target, maps[:, source] * share)
    placed = target.unique()
    found[:, placed] = torch.stack([_ranked(row) for row in found[:, placed]])
    return found


def _sizes(explanation: Explanation) -> Sequence[Size]:
    """(width, height) of each picture; one pixel where none was kept, which a grid without a box covers as well."""
    pictures = {image for cells in explanation.grids for image in cells.images}
    return [image.size for image in explanation.images] or [(1, 1)] * (1 + max(pictures))


def _ranked(values: Tensor) -> Tensor:
    """Ranks of [N] in [0, 1]; equal values share their mean rank."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    means = counts.cumsum(0) - (counts.double() + 1) / 2
    return means[inverse] / max(1, len(values) - 1)


def _shares(maps: Tensor) -> Tensor:
    """Each map [..., N] divided by its sum; a blank one stays as it is."""
    return maps / maps.sum(-1, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def _of(
    like: Explanation, name: str, token_maps: Tensor, sequence_map: Tensor, notes: Sequence[str], found: dict[str, Any]
) -> Explanation:
    """An explanation without heads and weights of tokens."""
    about = like.metadata | {"settings": {"method": name} | found, "seconds": {}}
    said = {"warnings": like.diagnostics.get("warnings", []), "weighted": False, "notes": [*notes], **found}
    return replace(
        like,
        **without_heads(token_maps, sequence_map, token_maps.new_ones(len(token_maps))),
        diagnostics=said,
        metadata=about,
        text_relevance=None,
    )
