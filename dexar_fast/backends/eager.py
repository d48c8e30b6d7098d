"""Scoring on the torch backend, which takes every knob on every device: METHOD.md sections 2 to 4."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from dexar_fast.backends.operands import Attention, LayerScores, MapSums, Masked, total_range
from dexar_fast.backends.reference import rank_filter
from dexar_fast.settings import HeadScore, MapFilter

SCORE_BYTES = 128 * 2**20  # of one set of gradients [H, queries, keys]: queries are scored in blocks of that size
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
    head_filter: bool = True,
) -> LayerScores:
    """`ops.head_score`, in blocks of queries."""
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    knobs = (head_score, map_filter, grids, with_range, head_filter)
    row = value.element_size() * u.shape[1] * keys.widest
    size = max(1, (SCORE_BYTES_ON_CPU if u.device.type == "cpu" else SCORE_BYTES) // row)
    blocks = [slice(start, start + size) for start in range(0, u.shape[0], size)]
    return _joined(
        [
            _of_block(
                u[rows],
                value,
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
    value: Tensor,
    keys: Masked,
    sums: MapSums,
    attention: Attention | None,
    head_score: HeadScore,
    map_filter: MapFilter,
    grids: tuple[Tensor, ...],
    with_range: bool,
    head_filter: bool,
) -> LayerScores:
    visual, text = _visual_and_text(u, value, keys, attention)
    largest, winner = _largest(text, keys.text)
    text_score = largest if head_score == "max" else score_heads(text, keys.text_hidden, head_score)
    if map_filter is None:
        maps, visual_score = visual, score_heads(visual, keys.visual_hidden, head_score)
    else:
        maps = filter_maps(visual, keys.visual_hidden, map_filter[1], grids)
        visual_score = score_heads(maps, keys.visual_hidden, head_score) * _filter_gain(visual, maps)
    difference = visual_score - text_score
    _add(sums, difference if head_filter else torch.ones_like(difference), maps, visual)
    return LayerScores(
        visual_score=visual_score.T,
        text_score=text_score.T,
        text_winner=winner.T,
        range=_range(visual, keys.visual_hidden) if with_range else None,
    )


def _visual_and_text(u: Tensor, value: Tensor, keys: Masked, attention: Attention | None) -> tuple[Tensor, Tensor]:
    """G of the visual keys [H, C, N], and of the text keys [H, C, M or S]."""
    if keys.text is not None:
        return (
            gradients(u, value, keys.visual, keys.visual_hidden, attention),
            gradients(u, value, keys.text, keys.text_hidden, attention),
        )
    every = gradients(u, value, slice(None), None, attention)
    assert keys.text_hidden is not None
    visual = every[..., keys.visual]
    visual = visual if keys.visual_hidden is None else visual.masked_fill(keys.visual_hidden, 0)
    return visual, every.masked_fill(keys.text_hidden, 0)


def _joined(blocks: list[LayerScores]) -> LayerScores:
    if len(blocks) == 1:
        return blocks[0]
    names = ("visual_score", "text_score", "text_winner")
    ranges = [block.range for block in blocks if block.range is not None]
    return LayerScores(
        **{name: torch.cat([getattr(block, name) for block in blocks]) for name in names},
        range=total_range(ranges) if ranges else None,
    )


def _range(gradient: Tensor, hidden: Tensor | None) -> Tensor:
    """[2] smallest and largest of gradients [H, C, N]; hidden: which of [C, N] do not count."""
    lowest = gradient if hidden is None else gradient.masked_fill(hidden, float("inf"))
    return torch.stack([lowest.amin(), gradient.amax()])


def gradients(
    u: Tensor, value: Tensor, keys: Tensor | slice, hidden: Tensor | None, attention: Attention | None = None
) -> Tensor:
    """G = relu(<u, V>) as [H, C, K] from u [C, H, D] and K keys of value [H_kv, S, D], times the attention if given.

    0 where hidden [C, K] is True.
    """
    product = products(u, value[:, keys]).relu_()
    if attention is not None:
        product *= _probabilities(attention, keys, value.dtype)
    return product if hidden is None else product.masked_fill_(hidden, 0)


def _probabilities(attention: Attention, keys: Tensor | slice, dtype: torch.dtype) -> Tensor:
    """A of some keys: [H, C, K]."""
    logits = products(attention.query, attention.key[:, keys].to(dtype))
    return logits.mul_(attention.scale).sub_(attention.log_sum_exp.to(dtype).T[:, :, None]).exp_()


def products(rows: Tensor, keys: Tensor) -> Tensor:
    """<rows, keys> as [H, C, K] from [C, H, D] and [H_kv, K, D], in the dtype of the keys."""
    queries, heads, dim = rows.shape
    grouped = rows.reshape(queries, keys.shape[0], -1, dim).permute(1, 2, 0, 3)
    dense = (
        torch.contiguous_format if heads > keys.shape[0] else torch.preserve_format
    )  # heads that share keys: in rows
    grouped = grouped.to(keys.dtype, memory_format=dense).reshape(keys.shape[0], -1, dim)
    return torch.bmm(grouped, keys.transpose(1, 2)).view(heads, queries, -1)


def _add(sums: MapSums, difference: Tensor, maps: Tensor, gradient: Tensor) -> None:
    """Adds sum_h w maps and sum_h G [C, N] of w = relu(difference) [H, C] and maps, G [H, C, N]."""
    if maps is not gradient:
        sums.token_map.add_((difference.relu()[:, :, None] * maps).sum(0))
        sums.unfiltered_map.add_(gradient.sum(0))
        return
    ones = _number(1, difference.dtype, difference.device).expand_as(difference)
    rows = torch.stack([difference, ones], 2).relu_().permute(1, 2, 0)  # [C, 2, H]
    sums.both.transpose(0, 1).baddbmm_(rows, gradient.transpose(0, 1))


@cache
def _number(value: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Where it is read: a number of the host would be written there by a launch of its own."""
    return torch.full((), value, dtype=dtype, device=device)


def score_heads(gradient: Tensor, hidden: Tensor | None, head_score: HeadScore) -> Tensor:
    """S [H, C] of gradients [H, C, K] >= 0 that are 0 where hidden [C, K] is True; 0 over an empty set."""
    queries, keys = gradient.shape[1:]
    if keys == 0:
        return gradient.new_zeros(gradient.shape[:2])
    if head_score == "max":
        return gradient.amax(-1)
    count = torch.full((queries,), keys, device=gradient.device)
    if hidden is not None:
        count -= hidden.sum(-1)
    if head_score == "mean":
        return gradient.sum(-1) / count.clamp(min=1)
    size = min(int(head_score[1]), keys)
    return gradient.topk(size).values.sum(-1) / count.clamp(min=1, max=size)


def filter_maps(gradient: Tensor, hidden: Tensor | None, rank: int, grids: tuple[Tensor, ...]) -> Tensor:
    """Each head's map [H, C, N] through the 3x3 rank filter, grid by grid; keys outside every grid stay as they are.

    Keys where hidden [C, N] is True are 0 for their neighbours, and stay 0.
    """
    filtered = gradient.clone()
    for cells in (grid.to(gradient.device) for grid in grids):
        for first in range(0, gradient.shape[1], FILTER_BLOCK):
            rows = slice(first, first + FILTER_BLOCK)
            filtered[:, rows, cells] = rank_filter(gradient[:, rows, cells], rank)
    return filtered if hidden is None else filtered.masked_fill_(hidden, 0)


def _filter_gain(gradient: Tensor, filtered: Tensor) -> Tensor:
    """median_h(max_j G) / median_h(max_j filtered G) as [C]: the filter must not shrink S_img against S_txt."""
    before, after = (x.amax(-1).quantile(0.5, dim=0) for x in (gradient, filtered))
    return torch.where(after > 0, before / after, torch.zeros_like(after))


def _largest(text: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest of gradients [H, C, M] and its key's position, each [H, C]; -1 where none is positive.

    Without positions the keys are all there are, in order.
    """
    if text.shape[-1] == 0:
        return text.new_zeros(text.shape[:2]), torch.full(text.shape[:2], -1, device=text.device)
    largest, index = text.max(-1)
    winner = index if positions is None else positions[index]
    return largest, torch.where(largest > 0, winner, _number(-1, winner.dtype, winner.device))
