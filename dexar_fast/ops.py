"""The operations of the pass: what each backend can take, and the torch backend.

One call per layer and chunk: gradients of all heads, their scores, and the filtered sums (method.md section 3).
Nothing here knows about transformers, nothing above it about backends.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dexar_fast.errors import BackendError, InputError
from dexar_fast.reference import rank_filter

HeadScore = Literal["max", "mean"] | tuple[Literal["topk"], int]
MapFilter = tuple[Literal["rank"], int] | None

OPERATIONS = ("head_score", "aggregate", "layer_tail_vjp")
BACKENDS = ("torch", "cpp", "triton")
ENVIRONMENT = "DEXAR_FAST_BACKEND"
SCORE_BYTES = 64 * 2**20  # of one set of gradients [H, queries, keys]: queries are scored in blocks of that size
SCORE_BYTES_ON_CPU = 8 * 2**20  # stays near the cores' caches
FILTER_BLOCK = 16  # queries filtered at a time: the nine shifted copies stay small


@dataclass(frozen=True)
class Choice:
    """Which backend an operation takes, and why."""

    op: str
    backend: str
    reason: str


def plan(backend: str = "auto") -> list[Choice]:
    """The backend of every operation for `backend`, which the environment's DEXAR_FAST_BACKEND overrides if "auto".

    Raises:
        InputError: an unknown name. BackendError: a backend asked for by name that cannot run.
    """
    asked = os.environ.get(ENVIRONMENT, backend) if backend == "auto" else backend
    if asked not in ("auto", *BACKENDS):
        raise InputError(f"unknown backend {asked!r}: choose auto, {', '.join(BACKENDS)}")
    if asked in ("cpp", "triton"):
        raise BackendError(f"backend {asked!r} has no kernels in this version of dexar_fast: use backend='torch'")
    reason = "asked for" if asked == "torch" else "the only backend of this version; runs on every device"
    return [Choice(op, "torch", reason) for op in OPERATIONS]


@dataclass(frozen=True)
class Keys:
    """The keys that the C queries of a chunk score: N visual, M text; a mask of None means all are attendable."""

    visual: Tensor | slice  # [N] positions; a slice where they are consecutive, so that V is read in place
    text: Tensor  # [M] positions
    visual_mask: Tensor | None  # [C, N] bool
    text_mask: Tensor | None  # [C, M] bool

    @classmethod
    def of(cls, visual: Tensor, text: Tensor, attendable: Tensor) -> Keys:
        """From positions [N], [M] in ascending order on the CPU and what each query may read, [C, S] bool."""
        run, text, positions = _run(visual), text.to(attendable.device), visual.to(attendable.device)
        masks = (None if bool(mask.all()) else mask for mask in (attendable[:, positions], attendable[:, text]))
        return cls(positions if run is None else run, text, *masks)

    @property
    def widest(self) -> int:
        """The larger of N and M."""
        run = self.visual
        return max(run.stop - run.start if isinstance(run, slice) else len(run), len(self.text))

    def of_queries(self, rows: slice) -> Keys:
        """The same keys for some of the queries."""
        masks = (None if mask is None else mask[rows] for mask in (self.visual_mask, self.text_mask))
        return Keys(self.visual, self.text, *masks)


@dataclass(frozen=True)
class LayerAttribution:
    """What one layer says about a chunk of C tokens; float32 or better."""

    visual_score: Tensor  # [C, H]
    text_score: Tensor  # [C, H]
    text_winner: Tensor  # [C, H] position of the text key with the largest gradient; -1 where none is positive
    token_map: Tensor  # [C, N] E, this layer's part
    unfiltered_token_map: Tensor  # [C, N] U, this layer's part
    range: Tensor | None  # [2] smallest and largest G over the visual keys, where asked for


def attribute_layer(
    u: Tensor,
    value: Tensor,
    keys: Keys,
    *,
    head_score: HeadScore = "max",
    map_filter: MapFilter = None,
    grids: tuple[Tensor, ...] = (),
    with_range: bool = False,
) -> LayerAttribution:
    """Scores one layer's heads and sums their maps.

        G = relu(<u, V>);  w = relu(S_img - S_txt);  E = sum_h w G;  U = sum_h G        (method.md sections 2 and 3)

    Args:
        u: [C, H, D], the gradient of each target logit with respect to the attention output of each head.
        value: [H_kv, S, D], the values of the layer.
        keys: which positions are visual and text, and attendable.
        head_score, map_filter: the knobs of method.md section 4.
        grids: [rows, columns] of each grid, the cells as indices of visual keys; the map filter works on these.
        with_range: whether to find the smallest and largest G over the visual keys.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)
    u, value = u.to(dtype), value.to(dtype)
    visual_value, text_value = value[:, keys.visual], value[:, keys.text]
    knobs = (head_score, map_filter, grids, with_range)
    row = u.element_size() * u.shape[1] * keys.widest
    size = max(1, (SCORE_BYTES_ON_CPU if u.device.type == "cpu" else SCORE_BYTES) // row)
    blocks = [slice(start, start + size) for start in range(0, u.shape[0], size)]
    return _joined([_attribute(u[rows], visual_value, text_value, keys.of_queries(rows), *knobs) for rows in blocks])


def _attribute(
    u: Tensor,
    visual_value: Tensor,
    text_value: Tensor,
    keys: Keys,
    head_score: HeadScore,
    map_filter: MapFilter,
    grids: tuple[Tensor, ...],
    with_range: bool,
) -> LayerAttribution:
    visual = gradients(u, visual_value, keys.visual_mask)  # [H, C, N]
    text = gradients(u, text_value, keys.text_mask)  # [H, C, M]
    largest, winner = _largest(text, keys.text)
    text_score = largest if head_score == "max" else score_heads(text, keys.text_mask, head_score)
    if map_filter is None:
        maps, visual_score = visual, score_heads(visual, keys.visual_mask, head_score)
    else:
        maps = filter_maps(visual, keys.visual_mask, map_filter[1], grids)
        visual_score = score_heads(maps, keys.visual_mask, head_score) * _filter_gain(visual, maps)
    weights = (visual_score - text_score).relu()
    token_map, unfiltered = sums_over_heads(weights, maps, visual)
    return LayerAttribution(
        visual_score=visual_score.T,
        text_score=text_score.T,
        text_winner=winner.T,
        token_map=token_map,
        unfiltered_token_map=unfiltered,
        range=_range(visual, keys.visual_mask) if with_range else None,
    )


def _joined(blocks: list[LayerAttribution]) -> LayerAttribution:
    if len(blocks) == 1:
        return blocks[0]
    names = ("visual_score", "text_score", "text_winner", "token_map", "unfiltered_token_map")
    ranges = [block.range for block in blocks if block.range is not None]
    return LayerAttribution(
        **{name: torch.cat([getattr(block, name) for block in blocks]) for name in names},
        range=total_range(ranges) if ranges else None,
    )


def total_range(ranges: list[Tensor]) -> Tensor:
    """[2] smallest and largest of several [2]."""
    lowest, highest = torch.stack(ranges).unbind(1)
    return torch.stack([lowest.min(), highest.max()])


def _range(gradient: Tensor, mask: Tensor | None) -> Tensor:
    """[2] smallest and largest of gradients [H, C, N] under the mask [C, N]."""
    lowest = gradient if mask is None else gradient.masked_fill(~mask, float("inf"))
    return torch.stack([lowest.amin(), gradient.amax()])


def gradients(u: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """G = relu(<u, V>) as [H, C, K] from u [C, H, D] and value [H_kv, K, D]; 0 where the mask [C, K] is False."""
    queries, heads, dim = u.shape
    grouped = u.view(queries, value.shape[0], -1, dim).permute(1, 2, 0, 3).reshape(value.shape[0], -1, dim)
    product = torch.bmm(grouped, value.transpose(1, 2)).relu_().view(heads, queries, -1)
    return product if mask is None else product.masked_fill_(~mask, 0)


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
    """Each head's map [H, C, N] through the 3x3 rank filter, grid by grid; keys of no grid are left as they are.

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


def _run(positions: Tensor) -> slice | None:
    """The slice of consecutive positions; None if they are not."""
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last + 1 - first == len(positions) else None


def _largest(text: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of gradients [H, C, M] and its key's position, each [H, C]; -1 where none is positive."""
    if text.shape[-1] == 0:
        return text.new_zeros(text.shape[:2]), torch.full(text.shape[:2], -1, device=text.device)
    largest, index = text.max(-1)
    return largest, torch.where(largest > 0, positions[index], -1)
