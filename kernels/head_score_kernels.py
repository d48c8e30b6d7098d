"""The two kernels that `head_score` launches: scores of heads, and their maps.

`offs_r` counts the rows of a key/value head, one for each query and head of its group. Positions are those of keys in
the sequence.
"""

import triton
import triton.language as tl

NO_POSITION = tl.constexpr(2**31 - 1)
NAN_STAYS = tl.constexpr(tl.PropagateNan.ALL)
# What differs from chunk to chunk: compiled for multiples of 16, or for 1, a kernel would be compiled in mid-stream.
SIZES = ("queries", "keys", "visual_count", "text_count", "kv_heads", "kv_heads_each", "stride_mt")
LISTS = ("visual_ptr", "text_ptr", "first_ptr", "last_ptr", "mask_ptr")


def _kernel(function):
    """A kernel that is compiled once for all lengths and places of its lists."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    lengths, lists = ([name for name in some if name in names] for some in (SIZES, LISTS))
    return triton.jit(function, do_not_specialize=lengths, do_not_specialize_on_alignment=lists)


@triton.jit
def _positions(list_ptr, offs_n, count, keys):
    """Positions of some keys, -1 behind the last; and the nearest that can be read."""
    mask_k = offs_n < count
    positions = tl.load(list_ptr + offs_n, mask=mask_k, other=-1)
    return positions, tl.minimum(positions.to(tl.uint32), (keys - 1).to(tl.uint32)).to(tl.int32)


@triton.jit
def _bounds(first_ptr, last_ptr, keys, offs_t, mask_t):
    """The first key that each query attends to, and how many from there on: only such as there are."""
    first = tl.maximum(tl.load(first_ptr + offs_t, mask=mask_t, other=0), 0)
    last = tl.minimum(tl.load(last_ptr + offs_t, mask=mask_t, other=-1), keys - 1)
    return first, tl.maximum(last - first + 1, 0)


@triton.jit
def _seen(positions, places, first, count, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK: tl.constexpr):
    """Which keys each query attends to, [BLOCK_R, BLOCK_N]: by one comparison without a sign."""
    seen = (positions[None, :] - first[:, None]).to(tl.uint32) < count[:, None].to(tl.uint32)
    if HAS_MASK:
        cells = mask_ptr + offs_t[:, None] * stride_mt + places[None, :]
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
    """<u, V> [BLOCK_R, BLOCK_N] of the keys at some positions, relu(<u, V>) A if ATTENDED; 0 where unseen, NaN stays.

    G is its maximum with 0: a maximum that begins with 0 needs no other.
    """
    product = _product(u, value_ptr, positions, offs_d, mask_d, stride_vs, stride_vd, WIDEN)
    if ATTENDED:
        logits = _product(query, key_ptr, positions, offs_d, mask_d, stride_ks, stride_kd, WIDEN)
        product = _larger(product, 0.0) * tl.exp(logits * scale - log_sum_exp[:, None])
    return tl.where(seen, product, 0.0)


@triton.jit
def _larger(x, y):
    """The maximum; NaN if either is."""
    return tl.maximum(x, y, propagate_nan=NAN_STAYS)


@triton.jit
def _row_maximum(values):
    """The maximum of each row; NaN if the row holds one."""
    bad = tl.max((values != values).to(tl.int32), axis=1) > 0
    return tl.where(bad, float("nan"), tl.max(values, axis=1))


@_kernel
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
    keys,
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
    WITH_SMALLEST: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Scores of BLOCK_R rows, one for each query and head, of the heads that share one key/value head."""
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
    first, count = _bounds(first_ptr, last_ptr, keys, offs_t, mask_t)
    value_ptr += kv_head * stride_vh
    key_ptr += kv_head * stride_kh

    largest = tl.zeros((BLOCK_R, BLOCK_N), tl.float32)
    smallest = tl.full((BLOCK_R, BLOCK_N), float("inf"), tl.float32)
    for start in range(0, visual_count, BLOCK_N):
        positions, places = _positions(visual_ptr, start + tl.arange(0, BLOCK_N), visual_count, keys)
        seen = _seen(positions, places, first, count, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)
        g = _gradient(
            u, value_ptr, stride_vs, stride_vd, query, key_ptr, stride_ks, stride_kd, log_sum_exp, scale,
            places, offs_d, mask_d, seen, ATTENDED, WIDEN,
        )  # fmt: skip
        largest = _larger(largest, g)
        if WITH_SMALLEST:
            smallest = tl.minimum(smallest, tl.where(seen, g, float("inf")))
    visual_score = _row_maximum(largest)

    largest = tl.zeros((BLOCK_R, BLOCK_N), tl.float32)
    winner = tl.full((BLOCK_R, BLOCK_N), NO_POSITION, tl.int32)
    for start in range(0, text_count, BLOCK_N):
        positions, places = _positions(text_ptr, start + tl.arange(0, BLOCK_N), text_count, keys)
        seen = _seen(positions, places, first, count, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)
        g = _gradient(
            u, value_ptr, stride_vs, stride_vd, query, key_ptr, stride_ks, stride_kd, log_sum_exp, scale,
            places, offs_d, mask_d, seen, ATTENDED, WIDEN,
        )  # fmt: skip
        winner = tl.where(g > largest, positions[None, :], winner)
        largest = _larger(largest, g)
    text_score = _row_maximum(largest)
    won = tl.min(tl.where(largest == text_score[:, None], winner, NO_POSITION), axis=1)

    tl.store(visual_score_ptr + out, visual_score, mask=mask_t)
    if WITH_SMALLEST:
        lowest = tl.maximum(tl.min(smallest, axis=1), 0.0)
        tl.store(smallest_ptr + out, tl.where(visual_score != visual_score, visual_score, lowest), mask=mask_t)
    tl.store(text_score_ptr + out, text_score, mask=mask_t)
    tl.store(winner_ptr + out, tl.where(text_score > 0, won, -1).to(tl.int64), mask=mask_t)


@_kernel
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
    keys,
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

    If ADDS they are added to what is there.
    """
    offs_t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2).to(tl.int64)
    mask_t = offs_t < queries
    offs_d = tl.arange(0, BLOCK_D)
    mask_d = offs_d < DIM
    first, count = _bounds(first_ptr, last_ptr, keys, offs_t, mask_t)
    positions, places = _positions(visual_ptr, offs_n, visual_count, keys)
    seen = _seen(positions, places, first, count, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK)

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
            places, offs_d, mask_d, seen, ATTENDED, WIDEN,
        )  # fmt: skip
        g = _larger(g, 0.0)
        difference = tl.load(visual_score_ptr + scores, mask=mask_t, other=0)
        difference -= tl.load(text_score_ptr + scores, mask=mask_t, other=0)
        token_map += tl.where(difference <= 0, 0.0, difference)[:, None] * g
        unfiltered += g

    out = (split * queries + offs_t)[:, None] * visual_count + offs_n[None, :]
    written = mask_t[:, None] & (offs_n < visual_count)[None, :]
    if ADDS:
        token_map += tl.load(token_map_ptr + out, mask=written)
        unfiltered += tl.load(unfiltered_ptr + out, mask=written)
    tl.store(token_map_ptr + out, token_map, mask=written)
    tl.store(unfiltered_ptr + out, unfiltered, mask=written)
