"""Head scores, head filter and maps of one layer or of all on a GPU (`operators`; METHOD.md sections 2 and 3).

    scores:  G = relu(<u, V>), a tile at a time;  S_img = max over visual keys;  S_txt = max over text keys
    maps:    the visual G again;  w = relu(S_img - S_txt);  E += sum_h w G;  U += sum_h G

With a query, G = A relu(<u, V>), and A = exp(scale <q, k> - L) is recomputed in the tile: twice the products and bytes.

E needs S_img, which needs every visual key: so G must be kept, as [L, T, H, N], or computed twice. Here it is computed
twice, in two launches, and never leaves the registers. For each of L layers, with T queries, N visual and M text keys
and D features of b bytes:

    operations  2 T H (2 N + M) D, on tensor cores in half precision
    read        T H D b (1 + N / BLOCK_N) of u;  V of N + M keys ceil(T H / H_kv / BLOCK_R) times, that of the N visual
                ones ceil(T / BLOCK_T) times more: from memory once where the layer's V, H_kv (N + M) D b, stays in the
                L2 cache (50 MB on an H100: N + M <= 6,100 at H_kv = 32 and D = 128 in half precision)
    written     4 T H scores; for all layers together 8 T N SPLITS bytes of maps

Sums have a fixed order, so results are the same in every run: heads of all layers are summed within a program. If the
tiles of the maps alone would leave processors idle, heads are split into SPLITS groups, which are summed afterwards; if
those of the scores would, keys are scored in parts, and one launch more joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dexar_fast.kernels.map_kernel import map_kernel
from dexar_fast.kernels.score_kernel import join_kernel, score_kernel
from torch import Tensor
from triton import cdiv, next_power_of_2

from dexar_fast.backends.cpp import Scored, check_maps, empty_scores
from dexar_fast.backends.operands import KeyLists, KeyRun
from dexar_fast.errors import InputError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PROGRAMS = 256  # about two for each multiprocessor of a large GPU
LEAST_TILES = 8  # of keys, for each part: fewer take less time than a launch
JOINED = 256  # scores a program joins
WARPS = 8  # with four, sums of 64 queries and 64 keys spill on sm_80
FEW_WARPS = 4  # for sums of up to SMALLEST queries, of which some spill with eight
SMALLEST = 16  # rows of a tensor core's tile


@dataclass(frozen=True)
class Tiles:
    """Sizes of the two launches, chosen from the shape alone."""

    rows: int  # BLOCK_R
    queries: int  # BLOCK_T
    keys: int  # BLOCK_N
    dim: int  # BLOCK_D
    splits: int  # groups of heads whose maps are summed apart
    parts: int  # of the keys, which are scored apart
    map_warps: int
    stages: int  # of loads under way

    @classmethod
    def of(
        cls,
        dtype: torch.dtype,
        queries: int,
        heads: int,
        kv_heads: int,
        visual: int,
        text: int,
        dim: int,
        attended: bool = False,
        layers: int = 1,
    ) -> Tiles:
        """Half precision takes the tiles of tensor cores; in float32 plain products take their operands into registers.

        With attention there are two products at a time. Their tiles are the largest that spill nothing (see
        kernels/compile.py), except in float32: for D above 128 not even the smallest tile's operands fit, and beside a
        mask a few do not.
        """
        half = dtype != torch.float32
        keys = 16 if attended and not half else (64 if half else 32) // (1 if dim <= 128 else 2)
        most = keys // 2 if attended and half else keys
        rows = _tile(queries * heads // kv_heads, most)
        tile = _tile(queries, most)
        programs = cdiv(queries, tile) * cdiv(max(1, visual), keys)
        splits = max(1, min(layers * kv_heads, PROGRAMS // programs))
        splits = cdiv(layers * kv_heads, cdiv(layers * kv_heads, splits))
        scoring = cdiv(queries * heads // kv_heads, rows) * kv_heads * layers
        parts = max(1, min(PROGRAMS // scoring, cdiv(visual + text, keys) // LEAST_TILES))
        warps = FEW_WARPS if half and tile == SMALLEST and not attended else WARPS
        few = not attended and dim > 128  # with three stages these spill on sm_80, others with two on sm_90
        stages = (2 if few else 3) if half else 1
        return cls(rows, tile, keys, max(SMALLEST, next_power_of_2(dim)), splits, parts, warps, stages)


def _tile(size: int, most: int) -> int:
    return max(SMALLEST, min(most, next_power_of_2(size)))


def head_score(
    u: Tensor,
    value: Tensor,
    visual: Tensor,
    text: Tensor,
    first: Tensor,
    last: Tensor,
    mask: Tensor | None,
    token_map: Tensor,
    unfiltered_map: Tensor,
    query: Tensor | None = None,
    key: Tensor | None = None,
    log_sum_exp: Tensor | None = None,
    scale: float = 1.0,
    smallest: bool = True,
) -> Scored:
    """`operators.head_score` on the device of its arguments, in float32 whatever their dtype.

    Raises:
        InputError: a dtype other than float32, bfloat16 and float16, arguments that do not fit each other or lie on
            several devices, or maps that cannot be added to in place.
    """
    _check(u, value, (visual, text), (first, last), mask)
    check_maps(u, visual, token_map, unfiltered_map)
    attention = None
    if query is not None and key is not None and log_sum_exp is not None:
        attention = query.resolve_neg(), key.resolve_neg(), log_sum_exp.float().contiguous(), scale
    scores, maps = _scored([(u, value)], KeyLists(visual, text, first, last, mask), attention, smallest)
    torch._foreach_add_([token_map, unfiltered_map], list(maps))  # both in one launch
    return tuple(x[0] for x in scores)  # type: ignore[return-value]


def head_scores(
    layers: Sequence[tuple[Tensor, Tensor]], keys: KeyRun | KeyLists, smallest: bool = True
) -> tuple[Scored, Tensor]:
    """`head_score` of L layers that read the same keys, in two launches; a third sums maps that are summed apart.

    Args:
        layers: u [T, H, D] and value [H_kv, S, D] of each, alike in shape, strides, dtype and device.
        smallest: as of `head_score`.
    Returns:
        The scores [L, T, H], and the sums over these layers of E and U [2, T, N].
    Raises:
        InputError: as `head_score`, or for layers that are not alike.
    """
    (u, value), *others = layers
    if any(_kind(*layer) != _kind(u, value) for layer in others):
        raise InputError("layers that are scored together are of one shape, layout, dtype and device")
    lists = isinstance(keys, KeyLists)
    _check(u, value, (keys.visual, keys.text) if lists else (), (keys.first, keys.last) if lists else (), keys.mask)
    return _scored(layers, keys, None, smallest)


def _kind(u: Tensor, value: Tensor) -> tuple[Any, ...]:
    return tuple((x.shape, x.stride(), x.dtype, x.device, x.is_neg()) for x in (u, value))


def _scored(
    layers: Sequence[tuple[Tensor, Tensor]],
    keys: KeyRun | KeyLists,
    attention: tuple[Tensor, Tensor, Tensor, float] | None,
    smallest: bool,
) -> tuple[Scored, Tensor]:
    us, values = (tuple(x.resolve_neg() for x in each) for each in zip(*layers, strict=True))
    (queries, heads, dim), (kv_heads, length, _) = us[0].shape, values[0].shape
    lists, counts = _lists(keys, us[0], length)
    masked, attended = keys.mask is not None, attention is not None
    tiles = Tiles.of(us[0].dtype, queries, heads, kv_heads, *counts[:2], dim, attended, len(us))
    parts = empty_scores(us[0].expand(tiles.parts, len(us), -1, -1, -1))
    operands = us, values, *(attention or (us[0], values[0], us[0], 1.0))
    strides = *(stride for x in (us[0], values[0], *operands[2:4]) for stride in x.stride()), lists[4].stride(0)
    constants = {
        "GROUP": heads // kv_heads,
        "DIM": dim,
        "RUN": isinstance(keys, KeyRun),
        "HAS_MASK": masked,
        "ATTENDED": attended,
        "WIDEN": us[0].device.type == "cpu",  # Triton's interpreter: its dot reads bfloat16 as whole numbers
        "BLOCK_N": tiles.keys,
        "BLOCK_D": tiles.dim,
        "num_stages": tiles.stages,
    }
    with torch.cuda.device_of(us[0]):  # Triton launches on the current device
        score_kernel[(cdiv(queries * heads // kv_heads, tiles.rows) * tiles.parts, kv_heads, len(us))](
            *operands, *lists, *parts, queries, length, *counts, tiles.parts, *strides, WITH_SMALLEST=smallest,
            BLOCK_R=tiles.rows, num_warps=WARPS, **constants,
        )  # fmt: skip
        scores = _joined(parts, us[0], smallest)
        return scores, _maps(tiles, operands, lists, scores, counts, strides, constants)


def _joined(parts: Scored, u: Tensor, smallest: bool) -> Scored:
    """The scores [L, T, H] of all keys, from those of their parts [P, L, T, H]."""
    count, layers = parts[0].shape[:2]
    if count == 1:
        return tuple(x[0] for x in parts)  # type: ignore[return-value]
    scores = empty_scores(u.expand(layers, -1, -1, -1))
    each = scores[0].numel()
    join_kernel[(cdiv(each, JOINED),)](*parts, *scores, each, count, WITH_SMALLEST=smallest, BLOCK=JOINED)
    return scores


def _lists(keys: KeyRun | KeyLists, u: Tensor, length: int) -> tuple[list[Tensor], tuple[int, int, int]]:
    """Positions, bounds and the mask, or what stands for those that are not read; N, M and the first visual key."""
    if isinstance(keys, KeyRun):
        visual = keys.visual.stop - keys.visual.start
        return [u] * 5, (visual, length - visual, keys.visual.start)
    lists = [x.to(torch.int32).contiguous() for x in (keys.visual, keys.text, keys.first, keys.last)]
    seen = lists[2] if keys.mask is None else keys.mask.contiguous().view(torch.uint8)
    return [*lists, seen], (len(keys.visual), len(keys.text), 0)


def _maps(
    tiles: Tiles,
    operands: tuple[Any, ...],
    lists: list[Tensor],
    scores: Scored,
    counts: tuple[int, int, int],
    strides: tuple[int, ...],
    constants: dict[str, Any],
) -> Tensor:
    """The second launch; and if heads are summed apart, their sums: [2, T, N]."""
    (layers, queries, _), kv_heads, visual = scores[0].shape, operands[1][0].shape[0], counts[0]
    parts = scores[0].new_empty((2, tiles.splits, queries, visual))
    if visual:
        map_kernel[(cdiv(queries, tiles.queries), cdiv(visual, tiles.keys), tiles.splits)](
            *operands, lists[0], *lists[2:], *scores[:2], *parts, queries, operands[1][0].shape[1], visual,
            counts[2], kv_heads, cdiv(layers * kv_heads, tiles.splits), *strides, BLOCK_T=tiles.queries,
            num_warps=tiles.map_warps, **constants,
        )  # fmt: skip
    return parts[:, 0] if tiles.splits == 1 else parts.sum(1)


def _check(u: Tensor, value: Tensor, keys: tuple[Tensor, ...], bounds: tuple[Tensor, ...], mask: Tensor | None) -> None:
    """What the host knows; the kernels pass over positions that are not among the keys."""
    if u.dtype != value.dtype or u.dtype not in DTYPES:
        raise InputError(f"the Triton kernels take {DTYPES}, u and value alike: use backend='torch' for {u.dtype}")
    if {x.device for x in (value, *keys, *bounds, *([] if mask is None else [mask]))} != {u.device}:
        raise InputError(f"u lies on {u.device}, and not all that it is scored with does")
    fits = u.ndim == value.ndim == 3 and u.shape[2] == value.shape[2]
    if not fits or value.shape[0] == 0 or u.shape[1] % value.shape[0]:
        raise InputError(f"u [T, H, D] and value [H_kv, S, D] do not fit: {list(u.shape)} and {list(value.shape)}")
    if any(x.ndim != 1 for x in keys) or any(x.shape != u.shape[:1] for x in bounds):
        raise InputError(f"keys are lists of positions; first and last hold one for each of {u.shape[0]} queries")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (u.shape[0], value.shape[1])):
        raise InputError(f"the mask must be bool [{u.shape[0]}, {value.shape[1]}], not {mask.dtype} {list(mask.shape)}")
