"""The first kernel of `head_score`: scores of heads, of all layers at once; and what puts parts of the keys together.

`offs_r` counts the rows of a key/value head, one for each query and head of its group; `offs_n` the keys of a class,
visual or text. Positions are those of keys in the sequence.
"""

import triton
import triton.language as tl
from dexar_fast.kernels.head_score_parts import bounds, gradient, kernel, larger, listed, row_maximum, seen_of
from dexar_fast.kernels.layers import of_layer

NOWHERE = tl.constexpr(2**30)


@kernel
def score_kernel(
    u_ptrs,
    value_ptrs,
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
    keys,
    visual_count,
    text_count,
    visual_start,
    parts,
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
    RUN: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ATTENDED: tl.constexpr,
    WIDEN: tl.constexpr,
    WITH_SMALLEST: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Scores of BLOCK_R rows, one for each query and head, of the heads of a layer that share one key/value head.

    If RUN, the visual keys are those from visual_start on, all others are text, and no list is read: query t reads all
    keys but the last queries - 1 - t, which are text. So only the edge of the text has to ask who reads what.

    The keys of each class are taken in `parts` parts, whose scores stand one behind the other.
    """
    kv_head, layer = tl.program_id(1).to(tl.int64), tl.program_id(2)
    u_ptr, value_ptr = of_layer(u_ptrs, layer), of_layer(value_ptrs, layer) + kv_head * stride_vh
    tile, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    offs_r = tile.to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_t, offs_h = offs_r // GROUP, kv_head * GROUP + offs_r % GROUP
    mask_t = offs_t < queries
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < DIM
    cells = u_ptr + (offs_t * stride_ut + offs_h * stride_uh)[:, None] + offs_d[None, :] * stride_ud
    u = tl.load(cells, mask=mask_t[:, None] & mask_d[None, :], other=0)  # [BLOCK_R, BLOCK_D]
    heads = tl.num_programs(1) * GROUP
    row = offs_t * heads + offs_h
    out = (part * tl.num_programs(2) + layer).to(tl.int64) * queries * heads + row
    query, log_sum_exp = u, 0.0
    if ATTENDED:
        cells = query_ptr + (offs_t * stride_qt + offs_h * stride_qh)[:, None] + offs_d[None, :] * stride_qd
        query = tl.load(cells, mask=mask_t[:, None] & mask_d[None, :], other=0)
        log_sum_exp = tl.load(log_sum_exp_ptr + row, mask=mask_t, other=0)
        key_ptr += kv_head * stride_kh
    whole_visual, whole_text, last_text = 0, 0, text_count  # tiles up to there are read by every row
    if RUN:
        whole_visual = visual_count // BLOCK_N * BLOCK_N
        first_t = tile * BLOCK_R // GROUP
        last_t = tl.minimum((tile * BLOCK_R + BLOCK_R - 1) // GROUP, queries - 1)
        whole_text = (text_count - queries + 1 + first_t) // BLOCK_N * BLOCK_N
        last_text = text_count - queries + 1 + last_t
        readable = (text_count - queries + 1 + offs_t).to(tl.int32)
    else:
        first, count = bounds(first_ptr, last_ptr, keys, offs_t, mask_t)

    each = tl.cdiv(tl.cdiv(visual_count, BLOCK_N), parts) * BLOCK_N
    begin, end = part * each, tl.minimum((part + 1) * each, visual_count)
    whole = tl.minimum(whole_visual, end)
    largest = tl.zeros((BLOCK_R, BLOCK_N), tl.float32)
    smallest = tl.full((BLOCK_R, BLOCK_N), float("inf"), tl.float32)
    for EDGE in tl.static_range(0 if RUN else 1, 2):
        for start in range(tl.maximum(begin, whole) if EDGE and RUN else begin, end if EDGE else whole, BLOCK_N):
            offs_n = start + tl.arange(0, BLOCK_N)
            if RUN:  # the last key stands for those behind it: a maximum does not count
                places = visual_start + (tl.minimum(offs_n, visual_count - 1) if EDGE else offs_n)
            else:
                positions, places = listed(visual_ptr, offs_n, visual_count, keys)
                seen = seen_of(positions, places, first, count, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)
            g = gradient(
                u, value_ptr, stride_vs, stride_vd, query, key_ptr, stride_ks, stride_kd, log_sum_exp, scale,
                places, offs_d, mask_d, ATTENDED, WIDEN,
            )  # fmt: skip
            largest = larger(largest, g if RUN else tl.where(seen, g, 0.0))
            if WITH_SMALLEST:
                smallest = tl.minimum(smallest, g if RUN else tl.where(seen, g, float("inf")))
    visual_score = row_maximum(largest)

    each = tl.cdiv(tl.cdiv(text_count, BLOCK_N), parts) * BLOCK_N
    begin, end = part * each, tl.minimum((part + 1) * each, last_text)
    whole = tl.minimum(whole_text, end)
    largest = tl.zeros((BLOCK_R, BLOCK_N), tl.float32)
    winner = tl.full((BLOCK_R, BLOCK_N), NOWHERE, tl.int32)  # the tile in which each column was largest
    for EDGE in tl.static_range(0 if RUN else 1, 2):
        for start in range(tl.maximum(begin, whole) if EDGE and RUN else begin, end if EDGE else whole, BLOCK_N):
            offs_n = start + tl.arange(0, BLOCK_N)
            if RUN:
                offs = tl.minimum(offs_n, text_count - 1) if EDGE else offs_n
                places = offs + tl.where(offs < visual_start, 0, visual_count)
                seen = offs_n[None, :] < readable[:, None]
            else:
                positions, places = listed(text_ptr, offs_n, text_count, keys)
                seen = seen_of(positions, places, first, count, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)
            g = gradient(
                u, value_ptr, stride_vs, stride_vd, query, key_ptr, stride_ks, stride_kd, log_sum_exp, scale,
                places, offs_d, mask_d, ATTENDED, WIDEN,
            )  # fmt: skip
            g = tl.where(seen, g, 0.0) if EDGE else g
            winner = tl.where(g > largest, start, winner)
            largest = larger(largest, g)
    text_score = row_maximum(largest)
    candidates = tl.where(largest == text_score[:, None], winner + tl.arange(0, BLOCK_N)[None, :], NOWHERE)
    won, wins = tl.min(candidates, axis=1), mask_t & (text_score > 0)
    if RUN:
        won += tl.where(won < visual_start, 0, visual_count)
    else:
        won = tl.load(text_ptr + won, mask=wins, other=-1)

    tl.store(visual_score_ptr + out, visual_score, mask=mask_t)
    if WITH_SMALLEST:
        lowest = tl.maximum(tl.min(smallest, axis=1), 0.0)
        tl.store(smallest_ptr + out, tl.where(visual_score != visual_score, visual_score, lowest), mask=mask_t)
    tl.store(text_score_ptr + out, text_score, mask=mask_t)
    tl.store(winner_ptr + out, tl.where(wins, won, -1).to(tl.int64), mask=mask_t)


@triton.jit(do_not_specialize=["count", "parts"])
def join_kernel(
    visual_parts_ptr,
    text_parts_ptr,
    winner_parts_ptr,
    smallest_parts_ptr,
    visual_score_ptr,
    text_score_ptr,
    winner_ptr,
    smallest_ptr,
    count,
    parts,
    WITH_SMALLEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK of the `count` scores, from those of parts of the keys: the first of equal keys wins, and NaN stays."""
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < count
    visual, text = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    smallest, winner = tl.full((BLOCK,), float("inf"), tl.float32), tl.full((BLOCK,), -1, tl.int64)
    for _ in range(parts):
        visual = larger(visual, tl.load(visual_parts_ptr + offs, mask=mask, other=0))
        score = tl.load(text_parts_ptr + offs, mask=mask, other=0)
        winner = tl.where(score > text, tl.load(winner_parts_ptr + offs, mask=mask, other=-1), winner)
        text = larger(text, score)
        if WITH_SMALLEST:
            smallest = tl.minimum(smallest, tl.load(smallest_parts_ptr + offs, mask=mask, other=float("inf")))
        visual_parts_ptr += count
        text_parts_ptr += count
        winner_parts_ptr += count
        smallest_parts_ptr += count
    tl.store(visual_score_ptr + offs, visual, mask=mask)
    tl.store(text_score_ptr + offs, text, mask=mask)
    tl.store(winner_ptr + offs, tl.where(text > 0, winner, -1), mask=mask)
    if WITH_SMALLEST:
        tl.store(smallest_ptr + offs, tl.where(visual != visual, visual, smallest), mask=mask)
