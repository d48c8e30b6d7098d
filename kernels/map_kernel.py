"""The second kernel of `head_score`: maps of all layers, summed. Names are those of score_kernel.py."""

import triton.language as tl
from dexar_fast.kernels.head_score_parts import bounds, gradient, kernel, larger, listed, seen_of
from dexar_fast.kernels.layers import of_layer


@kernel
def map_kernel(
    u_ptrs,
    value_ptrs,
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
    keys,
    visual_count,
    visual_start,
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
    RUN: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ATTENDED: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """E and U of BLOCK_T queries and BLOCK_N visual keys, over kv_heads_each of all layers' key/value heads."""
    offs_t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2).to(tl.int64)
    mask_t = offs_t < queries
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < DIM
    if RUN:  # every query reads every visual key
        places = visual_start + tl.minimum(offs_n, visual_count - 1)
    else:
        first, count = bounds(first_ptr, last_ptr, keys, offs_t, mask_t)
        positions, places = listed(visual_ptr, offs_n, visual_count, keys)
        seen = seen_of(positions, places, first, count, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)

    token_map = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    unfiltered = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    heads = kv_heads * GROUP
    begin = split * kv_heads_each * GROUP
    end = tl.minimum(begin + kv_heads_each * GROUP, len(u_ptrs) * heads)
    layer = begin // heads
    u_ptr, value_ptr = of_layer(u_ptrs, layer), of_layer(value_ptrs, layer)
    for row in range(begin, end):
        head = row - layer * heads
        if head == heads:  # a loop in a loop would take registers
            layer, head = layer + 1, head - heads
            u_ptr, value_ptr = of_layer(u_ptrs, layer), of_layer(value_ptrs, layer)
        cells = u_ptr + offs_t[:, None] * stride_ut + head * stride_uh + offs_d[None, :] * stride_ud
        u = tl.load(cells, mask=mask_t[:, None] & mask_d[None, :], other=0)
        scores = (layer * queries + offs_t) * heads + head
        query, log_sum_exp = u, 0.0
        if ATTENDED:
            cells = query_ptr + offs_t[:, None] * stride_qt + head * stride_qh + offs_d[None, :] * stride_qd
            query = tl.load(cells, mask=mask_t[:, None] & mask_d[None, :], other=0)
            log_sum_exp = tl.load(log_sum_exp_ptr + scores, mask=mask_t, other=0)
        value, key = value_ptr + head // GROUP * stride_vh, key_ptr + head // GROUP * stride_kh
        g = gradient(
            u, value, stride_vs, stride_vd, query, key, stride_ks, stride_kd, log_sum_exp, scale,
            places, offs_d, mask_d, ATTENDED, WIDEN,
        )  # fmt: skip
        g = larger(g if RUN else tl.where(seen, g, 0.0), 0.0)
        difference = tl.load(visual_score_ptr + scores, mask=mask_t, other=0)
        difference -= tl.load(text_score_ptr + scores, mask=mask_t, other=0)
        token_map += tl.where(difference <= 0, 0.0, difference)[:, None] * g
        unfiltered += g

    out = (split * queries + offs_t)[:, None] * visual_count + offs_n[None, :]
    written = mask_t[:, None] & (offs_n < visual_count)[None, :]
    tl.store(token_map_ptr + out, token_map, mask=written)
    tl.store(unfiltered_ptr + out, unfiltered, mask=written)
