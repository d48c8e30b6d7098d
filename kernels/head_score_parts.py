"""What the two kernels of `head_score` share: places of keys, gradients of a tile."""

import triton
import triton.language as tl

NAN_STAYS = tl.constexpr(tl.PropagateNan.ALL)
# What differs from chunk to chunk: compiled for multiples of 16, or for 1, a kernel would be compiled in mid-stream.
SIZES = (
    "queries",
    "keys",
    "visual_count",
    "text_count",
    "visual_start",
    "parts",
    "kv_heads",
    "kv_heads_each",
    "stride_mt",
)
LISTS = ("visual_ptr", "text_ptr", "first_ptr", "last_ptr", "mask_ptr")


def kernel(function):
    """A kernel that is compiled once for all lengths and places of its lists."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    lengths, lists = ([name for name in some if name in names] for some in (SIZES, LISTS))
    return triton.jit(function, do_not_specialize=lengths, do_not_specialize_on_alignment=lists)


@triton.jit
def listed(list_ptr, offs_n, count, keys):
    """Positions of some keys, -1 behind the last; and the nearest that can be read."""
    positions = tl.load(list_ptr + offs_n, mask=offs_n < count, other=-1)
    return positions, tl.minimum(positions.to(tl.uint32), (keys - 1).to(tl.uint32)).to(tl.int32)


@triton.jit
def bounds(first_ptr, last_ptr, keys, offs_t, mask_t):
    """The first key that each query attends to, and how many from there on: only such as there are."""
    first = tl.maximum(tl.load(first_ptr + offs_t, mask=mask_t, other=0), 0)
    last = tl.minimum(tl.load(last_ptr + offs_t, mask=mask_t, other=-1), keys - 1)
    return first, tl.maximum(last - first + 1, 0)


@triton.jit
def seen_of(positions, places, first, count, mask_ptr, offs_t, mask_t, stride_mt, HAS_MASK: tl.constexpr):
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
def gradient(
    u, value_ptr, stride_vs, stride_vd, query, key_ptr, stride_ks, stride_kd, log_sum_exp, scale,
    positions, offs_d, mask_d, ATTENDED: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """<u, V> [BLOCK_R, BLOCK_N] of the keys at some positions, relu(<u, V>) A if ATTENDED.

    G is its maximum with 0: a maximum that begins with 0 needs no other.
    """
    product = _product(u, value_ptr, positions, offs_d, mask_d, stride_vs, stride_vd, WIDEN)
    if ATTENDED:
        logits = _product(query, key_ptr, positions, offs_d, mask_d, stride_ks, stride_kd, WIDEN)
        product = larger(product, 0.0) * tl.exp(logits * scale - log_sum_exp[:, None])
    return product


@triton.jit
def larger(x, y):
    """The maximum; NaN if either is."""
    return tl.maximum(x, y, propagate_nan=NAN_STAYS)


@triton.jit
def row_maximum(values):
    """The maximum of each row; NaN if the row holds one."""
    bad = tl.max((values != values).to(tl.int32), axis=1) > 0
    return tl.where(bad, float("nan"), tl.max(values, axis=1))
