"""From the sums of the pass to an Explanation: Eqs. 4-6, and what the filters left."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.attribution.sums import Attribution, joined
from dexar_fast.attribution.text_maps import TextMaps
from dexar_fast.errors import NumericalError
from dexar_fast.results.schema import all_finite
from dexar_fast.results.text_relevance import TextRelevance
from dexar_fast.stages import stage
from dexar_fast.vision.regions import Cells

FREQUENT_WINNERS = 3


@dataclass(frozen=True)
class ResultHeader:
    """What an Explanation holds that does not grow with the answer."""

    visual: Tensor  # [N]
    grids: tuple[Cells, ...]
    images: tuple[Image.Image, ...]
    warnings: list[str]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """C tokens of an answer and what the pass found about them."""

    ids: Tensor  # [C]
    tokens: list[str]
    sums: Attribution


def whole(chunks: Sequence[Chunk], unfinished: str) -> Chunk:
    """The chunks one after the other; unfinished: the text of a last character that lacks bytes."""
    tokens = [token for chunk in chunks for token in chunk.tokens]
    tokens[-1] += unfinished
    with stage("aggregation"):
        return Chunk(torch.cat([chunk.ids for chunk in chunks]), tokens, joined([chunk.sums for chunk in chunks]))


def fields(header: ResultHeader, chunk: Chunk, winners: list[dict[str, Any]], text_tokens: list[str]) -> dict[str, Any]:
    """The fields of an Explanation of the chunk's tokens.

    Args:
        winners: what `frequent` returned. text_tokens: the texts of the text keys, if the sums hold maps over these.
    """
    with stage("aggregation"):
        found = arrays(chunk.sums, **_knobs(header.metadata["settings"]))
    return {
        "token_ids": chunk.ids,
        "tokens": chunk.tokens,
        "visual_positions": header.visual,
        **found,
        "grids": header.grids,
        "diagnostics": kept(found) | {"text_winners": winners, "warnings": header.warnings},
        "metadata": copy.deepcopy(header.metadata),
        "images": header.images,
        "text_relevance": _text_relevance(chunk.sums.text, text_tokens),
    }


def _text_relevance(found: TextMaps | None, tokens: list[str]) -> TextRelevance | None:
    return None if found is None else TextRelevance(found.positions, tokens, found.maps, found.unfiltered_maps)


def _knobs(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of `arrays`; a folder of an older release holds no filters."""
    filters = {name: settings.get(name, True) for name in ("head_filter", "token_filter")}
    return {"sequence_norm": settings["sequence_norm"], "map_filter": settings.get("map_filter") is not None} | filters


@torch.autocast("cpu", enabled=False)
def arrays(
    sums: Attribution,
    sequence_norm: str,
    head_filter: bool = True,
    token_filter: bool = True,
    map_filter: bool = False,
) -> dict[str, Tensor]:
    """The arrays of an Explanation, under their names (METHOD.md sections 3 and 4).

    Args:
        map_filter: whether there is one: then the sums' token maps are of the filtered G, with w of the head filter.
    """
    visual, text = sums.visual_scores, sums.text_scores
    head_weights = (visual - text).relu() if head_filter else torch.ones_like(visual)
    token_weights = (
        (visual.amax((1, 2)) - text.amax((1, 2))).relu() if token_filter else torch.ones_like(visual[:, 0, 0])
    )
    unfiltered = sums.unfiltered_token_maps
    maps = sums.token_maps if head_filter or map_filter else unfiltered
    if sums.range is not None:
        heads = visual.shape[1] * visual.shape[2]
        maps = _rescaled(maps, head_weights.sum((1, 2)), sums.range)
        unfiltered = _rescaled(unfiltered, torch.full_like(token_weights, heads), sums.range)
    shown, unfiltered_shown = (each_scaled(x) if sequence_norm == "token" else x for x in (maps, unfiltered))
    return {
        "visual_scores": visual,
        "text_scores": text,
        "head_weights": head_weights,
        "token_weights": token_weights,
        "token_maps": maps,
        "unfiltered_token_maps": unfiltered,
        "sequence_map": token_weights @ shown,
        "unfiltered_sequence_map": unfiltered_shown.sum(0),
    }


def frequent(winners: Tensor, text_of: Callable[[int], str]) -> list[dict[str, Any]]:
    """The keys that keep most heads from the image: position, text and share of the heads.

    Args:
        winners: [S] how often each key won S_txt. text_of: the text of a position.
    """
    total = max(1, int(winners.sum()))
    most = winners.topk(min(FREQUENT_WINNERS, len(winners)))
    return [
        {"position": position, "token": text_of(position), "share": count / total}
        for count, position in zip(most.values.tolist(), most.indices.tolist(), strict=True)
        if count > 0
    ]


def check_finite(sums: Attribution, layers: list[int]) -> None:
    """Raises NumericalError for NaN or infinity; the message names the first layer that has it."""
    scores = sums.visual_scores + sums.text_scores
    bad = (~scores.isfinite()).any(2).any(0).nonzero()
    if len(bad):
        beyond = ", or the final norm or the output head" if len(bad) == scores.shape[1] else ""
        raise NumericalError(
            f"NaN or infinity in decoder layer {layers[int(bad[0])]} (its weights, its activations, or what enters "
            f"it{beyond}): check the model's weights, or load it in bfloat16 or float32"
        )
    if not (all_finite(sums.token_maps) and all_finite(sums.unfiltered_token_maps)):
        raise NumericalError("the maps overflow: load the model in float32 or float64")


def kept(found: dict[str, Tensor]) -> dict[str, Any]:
    """How many heads and tokens survive the filters (METHOD.md section 5)."""
    kept, weights = found["head_weights"] > 0, found["token_weights"]
    return {
        "tokens": len(weights),
        "tokens_with_weight": int((weights > 0).sum()),
        "tokens_with_map": int(kept.any(2).any(1).sum()),
        "heads": kept.numel(),
        "heads_kept": int(kept.sum()),
    }


def _rescaled(sums: Tensor, weights: Tensor, extremes: Tensor) -> Tensor:
    """sum w (G - m) / (M - m) from sum w G [T, N] and sum w [T], the global min-max of the authors' code."""
    lowest, highest = extremes.unbind()
    if highest == lowest:
        return torch.zeros_like(sums)
    return (sums - lowest * weights[:, None]) / (highest - lowest)


def each_scaled(maps: Tensor) -> Tensor:
    """Each map of [..., N] to [0, 1]; a constant one to zeros."""
    low, high = maps.amin(-1, keepdim=True), maps.amax(-1, keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), torch.zeros_like(maps))


def without_heads(token_maps: Tensor, sequence_map: Tensor, token_weights: Tensor) -> dict[str, Any]:
    """Arrays of a result whose method has no heads to filter: [T, 0, 0] for theirs, and one map where there are two."""
    no_heads = token_maps.new_zeros(len(token_maps), 0, 0)
    return {
        "visual_scores": no_heads,
        "text_scores": no_heads,
        "head_weights": no_heads,
        "token_weights": token_weights,
        "token_maps": token_maps,
        "unfiltered_token_maps": token_maps,
        "sequence_map": sequence_map,
        "unfiltered_sequence_map": sequence_map,
    }
