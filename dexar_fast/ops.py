"""The operations, each on the backend that `plan` gives it, and the torch backend, which takes everything.

One call per layer and chunk: gradients of all heads, their scores, and the filtered sums (method.md section 3).
The pool of keys and values has two more.
Nothing here knows about transformers, nothing above it about backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dexar_fast import cuda, operators
from dexar_fast.backends import HeadScore, MapFilter, moving, plan
from dexar_fast.reference import rank_filter
from dexar_fast.slots import Copies

SCORE_BYTES = 64 * 2**20  # of one set of gradients [H, queries, keys]: queries are scored in blocks of that size
SCORE_BYTES_ON_CPU = 8 * 2**20  # stays near the cores' caches
FILTER_BLOCK = 16  # queries filtered at a time: the nine shifted copies stay small


def kv_append(keys: Tensor, values: Tensor, key: Tensor, value: Tensor, start: int, *, backend: str = "auto") -> None:
    """Writes one layer's states [1, H_kv, Q, D] into a pool's [1, H_kv, slots, D], from slot `start` on.

    Args:
        backend: as `plan` takes it.
    """
    if keys.is_cuda and moving(backend, "cuda")[0].backend == "triton":  # a layer's every step comes by here
        return operators.kv_append(keys, values, key, value, start)
    keys.narrow(2, start, key.shape[2]).copy_(key)
    values.narrow(2, start, value.shape[2]).copy_(value)


def kv_copy(layers: Sequence[tuple[Tensor, Tensor]], copies: Copies, *, backend: str = "auto") -> None:
    """Copies slots (from, to, count) in the keys and values of layers of one device.

    Args:
        backend: as `plan` takes it.
    """
    _, copy = moving(backend, layers[0][0].device.type)
    tensors = [tensor for layer in layers for tensor in layer]
    if copy.backend == "cuda":
        return cuda.kv_copy(tensors, copies)
    if copy.backend == "triton":
        from dexar_fast.kernels import kv_cache  # where triton is missing, moving has said so

        return kv_cache.kv_copy(layers, copies)
    for source, target, count in copies:
        for tensor in tensors:
            tensor[:, :, target : target + count] = tensor[:, :, source : source + count]


@dataclass(frozen=True)
class Sight:
    """The keys of a chunk as the fused kernels take them (`operators.head_score`)."""

    visual: Tensor  # [N] int32 positions
    text: Tensor  # [M] int32 positions
    first: Tensor  # [C] int32
    last: Tensor  # [C] int32
    mask: Tensor | None  # [C, S] bool; None where each query attends to all keys from first to last


@dataclass(frozen=True)
class Masked:
    """The keys of a chunk as the torch backend takes them; a mask of None means all are attendable."""

    visual: Tensor | slice  # [N]
    text: Tensor  # [M]
    visual_mask: Tensor | None  # [C, N] bool
    text_mask: Tensor | None  # [C, M] bool

    @property
    def widest(self) -> int:
        """The larger of N and M."""
        run = self.visual
        return max(run.stop - run.start if isinstance(run, slice) else len(run), len(self.text))

    def of_queries(self, rows: slice) -> Masked:
        """The same keys for some of the queries."""
        of_visual, of_text = (None if mask is None else mask[rows] for mask in (self.visual_mask, self.text_mask))
        return Masked(self.visual, self.text, of_visual, of_text)


@dataclass(frozen=True)
class Keys:
    """The keys that the C queries of a chunk score: N visual, M text."""

    visual: Tensor | slice  # [N] positions; a slice where they are consecutive, so that V is read in place
    text: Tensor  # [M] positions
    attendable: Tensor  # [C, S] bool

    @classmethod
    def of(cls, visual: Tensor, text: Tensor, attendable: Tensor) -> Keys:
        """From positions [N], [M] in ascending order on the CPU and what each query may read, [C, S] bool."""
        device = attendable.device
        return cls(placed(run_of(visual), device), text.to(device), attendable)

    @cached_property
    def masked(self) -> Masked:
        """Without a mask where it would hide nothing."""
        masks = self.attendable[:, self.visual], self.attendable[:, self.text]
        of_visual, of_text = (None if surely(mask) else mask for mask in masks)
        return Masked(self.visual, self.text, of_visual, of_text)

    @cached_property
    def sight(self) -> Sight:
        """As lists and bounds; without a mask where the keys of every query are a run, as a window's are."""
        seen, keys = self.attendable, self.attendable.shape[1]
        position = torch.arange(keys, dtype=torch.int32, device=seen.device)
        first = torch.where(seen, position, keys).amin(1).int()
        last = torch.where(seen, position, -1).amax(1).int()
        runs = (last - first + 1 == seen.sum(1)).logical_or(last < 0)
        return Sight(position[self.visual], self.text.int(), first, last, None if surely(runs) else seen)


@dataclass(frozen=True)
class Attention:
    """What one layer's attention keeps of its probabilities A = exp(scale <q, k> - L) for C queries."""

    query: Tensor  # [C, H, D]
    key: Tensor  # [H_kv, S, D]
    log_sum_exp: Tensor  # [C, H] L
    scale: float

    def of_queries(self, rows: slice) -> Attention:
        """The same for some of the queries."""
        return Attention(self.query[rows], self.key, self.log_sum_exp[rows], self.scale)

    def probabilities(self, keys: Tensor | slice, dtype: torch.dtype) -> Tensor:
        """A of some keys: [H, C, K]."""
        logits = _products(self.query.to(dtype), self.key[:, keys].to(dtype))
        return logits.mul_(self.scale).sub_(self.log_sum_exp.to(dtype).T[:, :, None]).exp_()


@dataclass(frozen=True)
class MapSums:
    """What layers add their maps to, dense, float32 or better."""

    token_map: Tensor  # [C, N] sum of E
    unfiltered_map: Tensor  # [C, N] sum of U

    @classmethod
    def zeros(cls, u: Tensor, visual: int) -> MapSums:
        """For layers whose u [C, H, D] is of this dtype and on this device, over N visual keys."""
        dtype = torch.promote_types(u.dtype, torch.float32)
        return cls(*(u.new_zeros((len(u), visual), dtype=dtype) for _ in range(2)))

    def of_queries(self, rows: slice) -> MapSums:
        """The same memory, of some of the queries."""
        return MapSums(self.token_map[rows], self.unfiltered_map[rows])


@dataclass(frozen=True)
class LayerScores:
    """What one layer says about a chunk of C tokens beside its maps; float32 or better."""

    visual_score: Tensor  # [C, H]
    text_score: Tensor  # [C, H]
    text_winner: Tensor  # [C, H] position of the text key with the largest gradient; -1 where none is positive
    range: Tensor | None  # [2] smallest and largest G over the visual keys, where asked for


def attribute_layer(
    u: Tensor,
    value: Tensor,
    keys: Keys,
    sums: MapSums,
    *,
    head_score: HeadScore = "max",
    map_filter: MapFilter = None,
    grids: tuple[Tensor, ...] = (),
    with_range: bool = False,
    attention: Attention | None = None,
    backend: str = "auto",
) -> LayerScores:
    """Scores one layer's heads and adds their maps to the sums over layers.

        G = relu(<u, V>);  w = relu(S_img - S_txt);  E += sum_h w G;  U += sum_h G      (method.md sections 2 and 3)

    Args:
        u: [C, H, D], the gradient of each target logit with respect to the attention output of each head.
        value: [H_kv, S, D], the values of the layer.
        keys: which positions are visual and text, and attendable.
        sums: E and U, of the layers before; as `MapSums.zeros` makes them for u and the N visual keys.
        head_score, map_filter: the knobs of method.md section 4.
        grids: [rows, columns] of each grid, the cells as indices of visual keys; the map filter works on these.
        with_range: whether to find the smallest and largest G over the visual keys.
        attention: multiplies G by the probabilities of this attention, for methods that weigh gradients by them.
        backend: as `plan` takes it.
    """
    scoring, *_ = plan(backend, device=u.device.type, head_score=head_score, map_filter=map_filter)
    if scoring.backend != "torch":
        return _fused(u, value, keys.sight, sums, attention, with_range)
    dtype = torch.promote_types(u.dtype, torch.float32)
    u, value = u.to(dtype), value.to(dtype)
    masked = keys.masked
    visual_value, text_value = value[:, keys.visual], value[:, keys.text]
    knobs = (head_score, map_filter, grids, with_range)
    row = u.element_size() * u.shape[1] * masked.widest
    size = max(1, (SCORE_BYTES_ON_CPU if u.device.type == "cpu" else SCORE_BYTES) // row)
    blocks = [slice(start, start + size) for start in range(0, u.shape[0], size)]
    return _joined(
        [
            _attribute(
                u[rows],
                visual_value,
                text_value,
                masked.of_queries(rows),
                sums.of_queries(rows),
                None if attention is None else attention.of_queries(rows),
                *knobs,
            )
            for rows in blocks
        ]
    )


def _fused(
    u: Tensor, value: Tensor, keys: Sight, sums: MapSums, attention: Attention | None, with_range: bool
) -> LayerScores:
    """By the kernel of the device."""
    maps = sums.token_map, sums.unfiltered_map
    weights = () if attention is None else (attention.query, attention.key, attention.log_sum_exp, attention.scale)
    visual_score, text_score, winner, smallest = operators.head_score(
        u, value, keys.visual, keys.text, keys.first, keys.last, keys.mask, *maps, *weights
    )
    extremes = torch.stack([smallest.amin(), visual_score.amax()]) if with_range else None
    return LayerScores(visual_score, text_score, winner, extremes)


def _attribute(
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
        None if attention is None else attention.probabilities(some, u.dtype) for some in (keys.visual, keys.text)
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


def total_range(ranges: list[Tensor]) -> Tensor:
    """[2] smallest and largest of several [2]."""
    lowest, highest = torch.stack(ranges).unbind(1)
    return torch.stack([lowest.min(), highest.max()])


def _range(gradient: Tensor, mask: Tensor | None) -> Tensor:
    """[2] smallest and largest of gradients [H, C, N] under the mask [C, N]."""
    lowest = gradient if mask is None else gradient.masked_fill(~mask, float("inf"))
    return torch.stack([lowest.amin(), gradient.amax()])


def gradients(u: Tensor, value: Tensor, mask: Tensor | None, attention: Tensor | None = None) -> Tensor:
    """G = relu(<u, V>) as [H, C, K] from u [C, H, D] and value [H_kv, K, D], times attention [H, C, K] where given.

    0 where the mask [C, K] is False.
    """
    product = _products(u, value).relu_()
    if attention is not None:
        product *= attention
    return product if mask is None else product.masked_fill_(~mask, 0)


def _products(rows: Tensor, keys: Tensor) -> Tensor:
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


def run_of(positions: Tensor) -> Tensor | slice:
    """Ascending positions on the CPU; as a slice where they are consecutive."""
    first, last = (int(positions[0]), int(positions[-1])) if len(positions) else (0, -1)
    return slice(first, last + 1) if last + 1 - first == len(positions) else positions


def placed(positions: Tensor | slice, device: torch.device) -> Tensor | slice:
    """What `run_of` returned, for tensors on a device."""
    return positions if isinstance(positions, slice) else positions.to(device)


def surely(facts: Tensor) -> bool:
    """Whether all of them are true. A GPU is not asked: inside a layer it would have to be waited for."""
    return facts.device.type == "cpu" and bool(facts.all())


def _largest(text: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of gradients [H, C, M] and its key's position, each [H, C]; -1 where none is positive."""
    if text.shape[-1] == 0:
        return text.new_zeros(text.shape[:2]), torch.full(text.shape[:2], -1, device=text.device)
    largest, index = text.max(-1)
    return largest, torch.where(largest > 0, positions[index], -1)
