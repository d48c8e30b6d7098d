"""Head scores, head filter and maps of one layer on a GPU (`operators.head_score`; METHOD.md sections 2 and 3).

    scores:  G = relu(<u, V>), a tile at a time;  S_img = max over visual keys;  S_txt = max over text keys
    maps:    the visual G again;  w = relu(S_img - S_txt);  E += sum_h w G;  U += sum_h G

With a query, G = A relu(<u, V>) with A = exp(scale <q, k> - L) made again in the tile: twice the products and bytes.

E needs S_img, which needs every visual key: so G is either kept, as [T, H, N], or made twice. Here it is made twice, in
two launches, and never leaves the registers. With T queries, N visual and M text keys, D features of b bytes:

    operations  2 T H (2 N + M) D, on tensor cores in half precision
    read        T H D b (1 + N / BLOCK_N) of u;  V of N + M keys ceil(T H / H_kv / BLOCK_R) times, that of the N visual
                ones ceil(T / BLOCK_T) times more: from memory once where the layer's V, H_kv (N + M) D b, stays in the
                L2 cache (50 MB on an H100: N + M <= 6,100 at H_kv = 32 and D = 128 in half precision)
    written     4 T H scores and, read before, 8 T N bytes of maps

Sums have a fixed order, so results are the same in every run: heads are summed within a program, which adds to E and U.
Where the tiles of the maps alone would leave processors idle, heads are in SPLITS groups, whose 8 T N SPLITS bytes are
written, summed and added afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv, next_power_of_2

from dexar_fast.backends.cpp import Scored, check_maps, empty_scores
from dexar_fast.errors import InputError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PROGRAMS = 128  # about as many as a large GPU has multiprocessors
NO_POSITION = tl.constexpr(2**31 - 1)


@triton.jit
def _seen(positions, mask_k, first, last, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK: tl.constexpr):
    """Which keys each query attends to: [BLOCK_R, BLOCK_N]."""
    seen = (positions[None, :] >= first[:, None]) & (positions[None, :] <= last[:, None]) & mask_k[None, :]
    if HAS_MASK:
        cells = mask_ptr + offs_t[:, None] * stride_mt + positions[None, :]
        seen = seen & (tl.load(cells, mask=mask_t[:, None], other=0) != 0)
    return seen


@triton.jit
def _product(rows, keys_ptr, positions, offs_d, mask_d, stride_s, stride_d, WIDEN: tl.constexpr):
    """Rows times the keys at some positions, all of which exist: [BLOCK_R, BLOCK_N]."""
    cells = keys_ptr + positions[None, :].to(tl.int64) * stride_s + offs_d[:, None] * stride_d
    keys = tl.load(cells, mask=mask_d[:, None], other=0)  # [BLOCK_D, BLOCK_N]
    if WIDEN:
        rows, keys = rows.to(tl.float32), keys.to(tl.float32)
    return tl.dot(rows, keys, input_precision="ieee")


@triton.jit
def _gradient(
    u, value_ptr, stride_vs, stride_vd, query, key_ptr, stride_ks, stride_kd, log_sum_exp, scale,
    positions, offs_d, mask_d, seen, ATTENDED: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """relu(<u, V>) [BLOCK_R, BLOCK_N] of the keys at some positions, times A if ATTENDED; 0 where unseen, NaN stays."""
    product = _product(u, value_ptr, positions, offs_d, mask_d, stride_vs, stride_vd, WIDEN)
    g = tl.where(product <= 0, 0.0, product)
    if ATTENDED:
        logits = _product(query, key_ptr, positions, offs_d, mask_d, stride_ks, stride_kd, WIDEN)
        g *= tl.exp(logits * scale - log_sum_exp[:, None])
    return tl.where(seen, g, 0.0)


@triton.jit
def _row_maximum(values):
    """The maximum of each row; NaN where one is in it."""
    bad = tl.max((values != values).to(tl.int32), axis=1) > 0
    return tl.where(bad, float("nan"), tl.max(values, axis=1))


@triton.jit
def score_kernel(
    u_ptr,
    value_ptr,
    query_ptr,
    key_ptr,
    log_sum_exp_ptr,
    scale,
    visual_ptr,
    text_ptr,
    first_ptr,
    last_ptr,
    mask_ptr,
    visual_score_ptr,
    text_score_ptr,
    winner_ptr,
    smallest_ptr,
    queries,
    visual_count,
    text_count,
    stride_ut,
    stride_uh,
    stride_ud,
    stride_vh,
    stride_vs,
    stride_vd,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_kh,
    stride_ks,
    stride_kd,
    stride_mt,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ATTENDED: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Scores of BLOCK_R rows, a row a query and a head, of the heads that share one key/value head."""
    kv_head = tl.program_id(1).to(tl.int64)
    offs_r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_t, offs_h = offs_r // GROUP, kv_head * GROUP + offs_r % GROUP
    mask_t = offs_t < queries
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < DIM
    cells = u_ptr + (offs_t * stride_ut + offs_h * stride_uh)[:, None] + offs_d[None, :] * stride_ud
    u = tl.load(cells, mask=mask_t[:, None] & mask_d[None, :], other=0)  # [BLOCK_R, BLOCK_D]
    heads = tl.num_programs(1) * GROUP
    out = offs_t * heads + offs_h
    query, log_sum_exp = u, 0.0
    if ATTENDED:
        cells = query_ptr + (offs_t * stride_qt + offs_h * stride_qh)[:, None] + offs_d[None, :] * stride_qd
        query = tl.load(cells, mask=mask_t[:, None] & mask_d[None, :], other=0)
        log_sum_exp = tl.load(log_sum_exp_ptr + out, mask=mask_t, other=0)
    first = tl.load(first_ptr + offs_t, mask=mask_t, other=0)
    last = tl.load(last_ptr + offs_t, mask=mask_t, other=-1)
    value_ptr += kv_head * stride_vh
    key_ptr += kv_head * stride_kh

    largest = tl.zeros((BLOCK_R, BLOCK_N), tl.float32)
    smallest = tl.full((BLOCK_R, BLOCK_N), float("inf"), tl.float32)
    for start in range(0, visual_count, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        mask_k = offs_n < visual_count
        positions = tl.load(visual_ptr + offs_n, mask=mask_k, other=0)
        seen = _seen(positions, mask_k, first, last, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)
        g = _gradient(
            u, value_ptr, stride_vs, stride_vd, query, key_ptr, stride_ks, stride_kd, log_sum_exp, scale,
            positions, offs_d, mask_d, seen, ATTENDED, WIDEN,
        )  # fmt: skip
        largest = tl.where((g > largest) | (g != g), g, largest)
        smallest = tl.where(seen & (g < smallest), g, smallest)
    visual_score = _row_maximum(largest)
    lowest = tl.where(visual_score != visual_score, visual_score, tl.min(smallest, axis=1))

    largest = tl.zeros((BLOCK_R, BLOCK_N), tl.float32)
    winner = tl.full((BLOCK_R, BLOCK_N), NO_POSITION, tl.int32)
    for start in range(0, text_count, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        mask_k = offs_n < text_count
        positions = tl.load(text_ptr + offs_n, mask=mask_k, other=0)
        seen = _seen(positions, mask_k, first, last, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)
        g = _gradient(
            u, value_ptr, stride_vs, stride_vd, query, key_ptr, stride_ks, stride_kd, log_sum_exp, scale,
            positions, offs_d, mask_d, seen, ATTENDED, WIDEN,
        )  # fmt: skip
        better = (g > largest) | (g != g)
        largest = tl.where(better, g, largest)
        winner = tl.where(better, positions[None, :], winner)
    text_score = _row_maximum(largest)
    won = tl.min(tl.where(largest == text_score[:, None], winner, NO_POSITION), axis=1)

    tl.store(visual_score_ptr + out, visual_score, mask=mask_t)
    tl.store(smallest_ptr + out, lowest, mask=mask_t)
    tl.store(text_score_ptr + out, text_score, mask=mask_t)
    tl.store(winner_ptr + out, tl.where(text_score > 0, won, -1).to(tl.int64), mask=mask_t)


@triton.jit
def map_kernel(
    u_ptr,
    value_ptr,
    query_ptr,
    key_ptr,
    log_sum_exp_ptr,
    scale,
    visual_ptr,
    first_ptr,
    last_ptr,
    mask_ptr,
    visual_score_ptr,
    text_score_ptr,
    token_map_ptr,
    unfiltered_ptr,
    queries,
    visual_count,
    kv_heads,
    kv_heads_each,
    stride_ut,
    stride_uh,
    stride_ud,
    stride_vh,
    stride_vs,
    stride_vd,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_kh,
    stride_ks,
    stride_kd,
    stride_mt,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ATTENDED: tl.constexpr,
    WIDEN: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """E and U of BLOCK_T queries and BLOCK_N visual keys, over the heads of kv_heads_each key/value heads.

    Added to what is there if ADDS.
    """
    offs_t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2).to(tl.int64)
    mask_t, mask_k = offs_t < queries, offs_n < visual_count
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < DIM
    first = tl.load(first_ptr + offs_t, mask=mask_t, other=0)
    last = tl.load(last_ptr + offs_t, mask=mask_t, other=-1)
    positions = tl.load(visual_ptr + offs_n, mask=mask_k, other=0)
    seen = _seen(positions, mask_k, first, last, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)

    token_map = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    unfiltered = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    first_head = split * kv_heads_each * GROUP
    last_head = tl.minimum((split + 1) * kv_heads_each, kv_heads) * GROUP
    for head in range(first_head, last_head):
        cells = u_ptr + offs_t[:, None] * stride_ut + head * stride_uh + offs_d[None, :] * stride_ud
        u = tl.load(cells, mask=mask_t[:, None] & mask_d[None, :], other=0)
        scores = offs_t * kv_heads * GROUP + head
        query, log_sum_exp = u, 0.0
        if ATTENDED:
            cells = query_ptr + offs_t[:, None] * stride_qt + head * stride_qh + offs_d[None, :] * stride_qd
            query = tl.load(cells, mask=mask_t[:, None] & mask_d[None, :], other=0)
            log_sum_exp = tl.load(log_sum_exp_ptr + scores, mask=mask_t, other=0)
        value, key = value_ptr + head // GROUP * stride_vh, key_ptr + head // GROUP * stride_kh
        g = _gradient(
            u, value, stride_vs, stride_vd, query, key, stride_ks, stride_kd, log_sum_exp, scale,
            positions, offs_d, mask_d, seen, ATTENDED, WIDEN,
        )  # fmt: skip
        difference = tl.load(visual_score_ptr + scores, mask=mask_t, other=0)
        difference -= tl.load(text_score_ptr + scores, mask=mask_t, other=0)
        token_map += tl.where(difference <= 0, 0.0, difference)[:, None] * g
        unfiltered += g

    out = (split * queries + offs_t)[:, None] * visual_count + offs_n[None, :]
    if ADDS:
        token_map += tl.load(token_map_ptr + out, mask=mask_t[:, None] & mask_k[None, :])
        unfiltered += tl.load(unfiltered_ptr + out, mask=mask_t[:, None] & mask_k[None, :])
    tl.store(token_map_ptr + out, token_map, mask=mask_t[:, None] & mask_k[None, :])
    tl.store(unfiltered_ptr + out, unfiltered, mask=mask_t[:, None] & mask_k[None, :])


@dataclass(frozen=True)
class Tiles:
    """Sizes of the two launches, chosen from the shape alone."""

    rows: int  # BLOCK_R
    queries: int  # BLOCK_T
    keys: int  # BLOCK_N
    dim: int  # BLOCK_D
    splits: int  # groups of heads whose maps are summed apart
    score_warps: int
    map_warps: int
    stages: int  # of loads under way

    @classmethod
    def of(
        cls, dtype: torch.dtype, queries: int, heads: int, kv_heads: int, visual: int, dim: int, attended: bool = False
    ) -> Tiles:
        """Half precision in the tiles of tensor cores; in float32 plain products take their operands into registers.

        With attention there are two products at a time: as large as leaves nothing spilled (kernels/compile.py), but
        for D above 128 in float32, where not even the smallest tile's operands fit. Where maps are added to what is
        there, its addresses take registers, too: of twice the threads.
        """
        half = dtype != torch.float32
        keys = 16 if attended and not half else (64 if half else 32) // (1 if dim <= 128 else 2)
        most = keys // 2 if attended and half else keys
        rows = _tile(queries * heads // kv_heads, most)
        tile = _tile(queries, most)
        programs = cdiv(queries, tile) * cdiv(max(1, visual), keys)
        splits = max(1, min(kv_heads, PROGRAMS // programs))
        splits = cdiv(kv_heads, cdiv(kv_heads, splits))
        map_warps = 8 if attended or not half or splits == 1 else 4
        return cls(rows, tile, keys, max(16, next_power_of_2(dim)), splits, 8, map_warps, 2 if half else 1)


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
) -> Scored:
    """`operators.head_score` on the device of its arguments, in float32 whatever their dtype.

    Raises:
        InputError: a dtype other than float32, bfloat16 and float16, or maps that nothing can be added to.
    """
    if u.dtype != value.dtype or u.dtype not in DTYPES:
        raise InputError(f"the Triton kernels take {DTYPES}, u and value alike: use backend='torch' for {u.dtype}")
    check_maps(u, visual, token_map, unfiltered_map)
    scores = visual_score, text_score, *_ = empty_scores(u)
    (queries, heads, dim), kv_heads = u.shape, value.shape[0]
    attended = query is not None and key is not None and log_sum_exp is not None
    tiles = Tiles.of(u.dtype, queries, heads, kv_heads, len(visual), dim, attended)
    lists = [x.to(torch.int32).contiguous() for x in (visual, text, first, last)]
    seen = lists[2] if mask is None else mask.contiguous().view(torch.uint8)
    attention = (query, key, log_sum_exp.float().contiguous(), scale) if attended else (u, value, u, scale)
    strides = (*u.stride(), *value.stride(), *attention[0].stride(), *attention[1].stride())
    strides = (*strides, 0 if mask is None else seen.stride(0))
    constants = {
        "GROUP": heads // kv_heads,
        "DIM": dim,
        "HAS_MASK": mask is not None,
        "ATTENDED": attended,
        "WIDEN": u.device.type == "cpu",  # Triton's interpreter, whose dot takes bfloat16 for whole numbers
        "BLOCK_N": tiles.keys,
        "BLOCK_D": tiles.dim,
        "num_stages": tiles.stages,
    }
    score_kernel[(cdiv(queries * heads // kv_heads, tiles.rows), kv_heads)](
        u,
        value,
        *attention,
        *lists,
        seen,
        *scores,
        queries,
        len(visual),
        len(text),
        *strides,
        BLOCK_R=tiles.rows,
        num_warps=tiles.score_warps,
        **constants,
    )
    if len(visual) == 0:
        return scores
    maps = token_map, unfiltered_map
    parts = maps if tiles.splits == 1 else [x.new_empty((tiles.splits, *x.shape)) for x in maps]
    each = cdiv(kv_heads, tiles.splits)
    map_kernel[(cdiv(queries, tiles.queries), cdiv(len(visual), tiles.keys), tiles.splits)](
        u, value, *attention, lists[0], lists[2], lists[3], seen, visual_score, text_score, *parts,
        queries, len(visual), kv_heads, each, *strides, ADDS=tiles.splits == 1, BLOCK_T=tiles.queries,
        num_warps=tiles.map_warps, **constants,
    )  # fmt: skip
    if tiles.splits > 1:
        for total, part in zip(maps, parts, strict=True):
            total += part.sum(0)
    return scores
