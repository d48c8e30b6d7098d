"""Head scores, head filter and maps of one layer on a GPU (`operators.head_score`; METHOD.md sections 2 and 3).

    scores:  G = relu(<u, V>), a tile at a time;  S_img = max over visual keys;  S_txt = max over text keys
    maps:    the visual G again;  w = relu(S_img - S_txt);  E += sum_h w G;  U += sum_h G

With a query, G = A relu(<u, V>), and A = exp(scale <q, k> - L) is recomputed in the tile: twice the products and bytes.

E needs S_img, which needs every visual key: so G must be kept, as [T, H, N], or computed twice. Here it is computed
twice, in two launches, and never leaves the registers. With T queries, N visual and M text keys, D features of b bytes:

    operations  2 T H (2 N + M) D, on tensor cores in half precision
    read        T H D b (1 + N / BLOCK_N) of u;  V of N + M keys ceil(T H / H_kv / BLOCK_R) times, that of the N visual
                ones ceil(T / BLOCK_T) times more: from memory once where the layer's V, H_kv (N + M) D b, stays in the
                L2 cache (50 MB on an H100: N + M <= 6,100 at H_kv = 32 and D = 128 in half precision)
    written     4 T H scores and, read before, 8 T N bytes of maps

Sums have a fixed order, so results are the same in every run: heads are summed within a program, which adds to E and U.
If the tiles of the maps alone would leave processors idle, the heads are split into SPLITS groups, whose 8 T N SPLITS
bytes are written, summed and added afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from dexar_fast.kernels.head_score_kernels import map_kernel, score_kernel
from torch import Tensor
from triton import cdiv, next_power_of_2

from dexar_fast.backends.cpp import Scored, check_maps, empty_scores
from dexar_fast.errors import InputError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PROGRAMS = 128  # about as many as a large GPU has multiprocessors
WARPS = 8  # with four, sums of 64 queries and 64 keys spill on sm_80


@dataclass(frozen=True)
class Tiles:
    """Sizes of the two launches, chosen from the shape alone."""

    rows: int  # BLOCK_R
    queries: int  # BLOCK_T
    keys: int  # BLOCK_N
    dim: int  # BLOCK_D
    splits: int  # groups of heads whose maps are summed apart
    stages: int  # of loads under way

    @classmethod
    def of(
        cls,
        dtype: torch.dtype,
        queries: int,
        heads: int,
        kv_heads: int,
        visual: int,
        dim: int,
        attended: bool = False,
    ) -> Tiles:
        """Half precision takes the tiles of tensor cores; in float32 plain products take their operands into registers.

        With attention there are two products at a time. Their tiles are the largest that spill nothing (see
        kernels/compile.py), except for D above 128 in float32: there not even the smallest tile's operands fit.
        """
        half = dtype != torch.float32
        keys = 16 if attended and not half else (64 if half else 32) // (1 if dim <= 128 else 2)
        most = keys // 2 if attended and half else keys
        rows = _tile(queries * heads // kv_heads, most)
        tile = _tile(queries, most)
        programs = cdiv(queries, tile) * cdiv(max(1, visual), keys)
        splits = max(1, min(kv_heads, PROGRAMS // programs))
        splits = cdiv(kv_heads, cdiv(kv_heads, splits))
        return cls(rows, tile, keys, max(16, next_power_of_2(dim)), splits, 2 if half else 1)


def _tile(size: int, most: int) -> int:
    return max(16, min(most, next_power_of_2(size)))


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
    u, value = u.resolve_neg(), value.resolve_neg()
    scores, maps = empty_scores(u), (token_map, unfiltered_map)
    (queries, heads, dim), kv_heads = u.shape, value.shape[0]
    attended = query is not None and key is not None and log_sum_exp is not None
    tiles = Tiles.of(u.dtype, queries, heads, kv_heads, len(visual), dim, attended)
    lists = [x.to(torch.int32).contiguous() for x in (visual, text, first, last)]
    seen = lists[2] if mask is None else mask.contiguous().view(torch.uint8)
    attention = (
        (query.resolve_neg(), key.resolve_neg(), log_sum_exp.float().contiguous(), scale)
        if attended
        else (u, value, u, scale)
    )
    strides = (*u.stride(), *value.stride(), *attention[0].stride(), *attention[1].stride())
    strides = (*strides, 0 if mask is None else seen.stride(0))
    constants = {
        "GROUP": heads // kv_heads,
        "DIM": dim,
        "HAS_MASK": mask is not None,
        "ATTENDED": attended,
        "WIDEN": u.device.type == "cpu",  # Triton's interpreter: its dot reads bfloat16 as whole numbers
        "BLOCK_N": tiles.keys,
        "BLOCK_D": tiles.dim,
        "num_stages": tiles.stages,
    }
    with torch.cuda.device_of(u):  # Triton launches on the current device
        score_kernel[(cdiv(queries * heads // kv_heads, tiles.rows), kv_heads)](
            u, value, *attention, *lists, seen, *scores, queries, value.shape[1], len(visual), len(text), *strides,
            WITH_SMALLEST=smallest, BLOCK_R=tiles.rows, num_warps=WARPS, **constants,
        )  # fmt: skip
        if len(visual):
            _add_maps(tiles, (u, value, *attention), (lists[0], *lists[2:], seen), scores, maps, strides, constants)
    return scores


def _add_maps(
    tiles: Tiles,
    operands: tuple[Any, ...],
    lists: tuple[Tensor, ...],
    scores: Scored,
    maps: tuple[Tensor, Tensor],
    strides: tuple[int, ...],
    constants: dict[str, Any],
) -> None:
    """The second launch; and if heads are summed apart, their sums."""
    (queries, visual), kv_heads = maps[0].shape, operands[1].shape[0]
    parts = maps if tiles.splits == 1 else maps[0].new_empty((2, tiles.splits, *maps[0].shape))
    map_kernel[(cdiv(queries, tiles.queries), cdiv(visual, tiles.keys), tiles.splits)](
        *operands, *lists, *scores[:2], *parts, queries, operands[1].shape[1], visual, kv_heads,
        cdiv(kv_heads, tiles.splits), *strides, ADDS=tiles.splits == 1, BLOCK_T=tiles.queries,
        num_warps=WARPS, **constants,
    )  # fmt: skip
    if tiles.splits > 1:
        torch._foreach_add_(list(maps), list(parts.sum(1)))  # both in one launch


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
