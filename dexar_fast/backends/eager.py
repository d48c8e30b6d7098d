"""Scoring on the torch backend, which takes every knob on every device: METHOD.md sections 2 to 4."""

from __future__ import annotations

import torch
from torch import Tensor

from dexar_fast.backends.operands import Attention, LayerScores, MapSums, Masked, total_range
from dexar_fast.backends.reference import rank_filter
from dexar_fast.settings import HeadScore, MapFilter

SCORE_BYTES = 64 * 2**20  # of one set of gradients [H, queries, keys]: queries are scored in blocks of that size
SCORE_BYTES_ON_CPU = 8 * 2**20  # stays near the cores' caches
FILTER_BLOCK = 16  # queries filtered at a time: the nine shifted copies stay small


def head_score(
    u: Tensor,
    value: Tensor,
    keys: Masked,
    sums: MapSums,
    head_score: HeadScore,
    map_filter: MapFilter,
    grids: tuple[Tensor, ...],
    with_range: bool,
    attention: Attention | None,
) -> LayerScores:
    """`ops.head_score`, in blocks of queries."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    u, value = u.to(dtype), value.to(dtype)
    visual_value, text_value = value[:, keys.visual], value[:, keys.text]
    knobs = (head_score, map_filter, grids, with_range)
    row = u.element_size() * u.shape[1] * keys.widest
    size = max(1, (SCORE_BYTES_ON_CPU if u.device.type == "cpu" else SCORE_BYTES) // row)
    blocks = [slice(start, start + size) for start in range(0, u.shape[0], size)]
    return _joined(
        [
            _of_block(
                u[rows],
                visual_value,
                text_value,
                keys.of_queries(rows),
                sums.of_queries(rows),
                None if attention is None else attention.of_queries(rows),
                *knobs,
            )
            for rows in blocks
        ]
    )


def _of_block(
    u: Tensor,
    visual_value: Tensor,
    text_value: Tensor,
    keys: Masked,
    sums: MapSums,
    attention: Attention | None,
    head_score: HeadScore,
    map_filter: MapFilter,
    grids: tuple[Tensor, ...],
    with_range: bool,
) -> LayerScores:
    of_visual, of_text = (
        None if attention is None else _probabilities(attention, some, u.dtype) for some in (keys.visual, keys.text)
    )
    visual = gradients(u, visual_value, keys.visual_mask, of_visual)  # [H, C, N]
    text = gradients(u, text_value, keys.text_mask, of_text)  # [H, C, M]
    largest, winner = _largest(text, keys.text)
    text_score = largest if head_score == "max" else score_heads(text, keys.text_mask, head_score)
    if map_filter is None:
        maps, visual_score = visual, score_heads(visual, keys.visual_mask, head_score)
    else:
        maps = filter_maps(visual, keys.visual_mask, map_filter[1], grids)
        visual_score = score_heads(maps, keys.visual_mask, head_score) * _filter_gain(visual, maps)
    weights = (visual_score - text_score).relu()
    token_map, unfiltered = sums_over_heads(weights, maps, visual)
    sums.token_map.add_(token_map)
    sums.unfiltered_map.add_(unfiltered)
    return LayerScores(
        visual_score=visual_score.T,
        text_score=text_score.T,
        text_winner=winner.T,
        range=_range(visual, keys.visual_mask) if with_range else None,
    )


def _joined(blocks: list[LayerScores]) -> LayerScores:
    if len(blocks) == 1:
        return blocks[0]
    names = ("visual_score", "text_score", "text_winner")
    ranges = [block.range for block in blocks if block.range is not None]
    return LayerScores(
        **{name: torch.cat([getattr(block, name) for block in blocks]) for name in names},
        range=total_range(ranges) if ranges else None,
    )


def _range(gradient: Tensor, mask: Tensor | None) -> Tensor:
    """[2] smallest and largest of gradients [H, C, N] under the mask [C, N]."""
    lowest = gradient if mask is None else gradient.masked_fill(~mask, float("inf"))
    return torch.stack([lowest.amin(), gradient.amax()])


def gradients(u: Tensor, value: Tensor, mask: Tensor | None, attention: Tensor | None = None) -> Tensor:
    """G = relu(<u, V>) as [H, C, K] from u [C, H, D] and value [H_kv, K, D], times attention [H, C, K] where given.

    0 where the mask [C, K] is False.
    """
    product = products(u, value).relu_()
    if attention is not None:
        product *= attention
    return product if mask is None else product.masked_fill_(~mask, 0)


def _probabilities(attention: Attention, keys: Tensor | slice, dtype: torch.dtype) -> Tensor:
    """A of some keys: [H, C, K]."""
    logits = products(attention.query.to(dtype), attention.key[:, keys].to(dtype))
    return logits.mul_(attention.scale).sub_(attention.log_sum_exp.to(dtype).T[:, :, None]).exp_()


def products(rows: Tensor, keys: Tensor) -> Tensor:
    """<rows, keys> as [H, C, K] from [C, H, D] and [H_kv, K, D]."""
    queries, heads, dim = rows.shape
    grouped = rows.reshape(queries, keys.shape[0], -1, dim).permute(1, 2, 0, 3).reshape(keys.shape[0], -1, dim)
    return torch.bmm(grouped, keys.transpose(1, 2)).view(heads, queries, -1)


def sums_over_heads(weights: Tensor, maps: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """sum_h w maps and sum_h G, each [C, N], of weights [H, C] and maps, G [H, C, N]; in one product if maps are G."""
    if maps is not gradient:
        return (weights[:, :, None] * maps).sum(0), gradient.sum(0)
    rows = torch.stack([weights.T, torch.ones_like(weights.T)], 1)  # [C, 2, H]
    token_map, unfiltered = torch.bmm(rows, gradient.transpose(0, 1)).unbind(1)
    return token_map, unfiltered


def score_heads(gradient: Tensor, mask: Tensor | None, head_score: HeadScore) -> Tensor:
    """S [H, C] of gradients [H, C, K] >= 0 that are 0 outside the mask [C, K]; 0 over an empty set."""
    queries, keys = gradient.shape[1:]
    if keys == 0:
        return gradient.new_zeros(gradient.shape[:2])
    if head_score == "max":
        return gradient.amax(-1)
    count = torch.full((queries,), keys, device=gradient.device) if mask is None else mask.sum(-1)
    if head_score == "mean":
        return gradient.sum(-1) / count.clamp(min=1)
    size = min(int(head_score[1]), keys)
    return gradient.topk(size).values.sum(-1) / count.clamp(min=1, max=size)


def filter_maps(gradient: Tensor, mask: Tensor | None, rank: int, grids: tuple[Tensor, ...]) -> Tensor:
    """Each head's map [H, C, N] through the 3x3 rank filter, grid by grid; keys outside every grid stay as they are.

    Keys outside the mask [C, N] are 0 for their neighbours, and stay 0.
    """
    filtered = gradient.clone()
    for cells in (grid.to(gradient.device) for grid in grids):
        for first in range(0, gradient.shape[1], FILTER_BLOCK):
            rows = slice(first, first + FILTER_BLOCK)
            filtered[:, rows, cells] = rank_filter(gradient[:, rows, cells], rank)
    return filtered if mask is None else filtered.masked_fill_(~mask, 0)


def _filter_gain(gradient: Tensor, filtered: Tensor) -> Tensor:
    """median_h(max_j G) / median_h(max_j filtered G) as [C]: the filter must not shrink S_img against S_txt."""
    before, after = (x.amax(-1).quantile(0.5, dim=0) for x in (gradient, filtered))
    return torch.where(after > 0, before / after, torch.zeros_like(after))


def _largest(text: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of gradients [H, C, M] and its key's position, each [H, C]; -1 where none is positive."""
    if text.shape[-1] == 0:
        return text.new_zeros(text.shape[:2]), torch.full(text.shape[:2], -1, device=text.device)
    largest, index = text.max(-1)
    return largest, torch.where(largest > 0, positions[index], -1)
