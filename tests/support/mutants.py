"""One change each to the source of a kernel that its tests must notice: `mutations.py` tries them all.

Every mask, bound and tail is removed in turn, and so is what keeps NaN, zeros and ties as they are. C++ mutants are of
the portable path, which is compiled from the same lines as the others; those of AMX and CUDA run in software.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from paths import ROOT

TILE, THREADS = "csrc/cpu/head_score_tile.h", "csrc/cpu/head_score.cpp"
LANES, TYPES = "csrc/cpu/head_score_lanes.h", "csrc/cpu/head_score_types.h"
PAIRS, AMX = "csrc/cpu/head_score_pairs.h", "csrc/cpu/head_score_amx.cpp"
SIMD, HALF = "csrc/cpu/simd.h", "csrc/cpu/half.h"
ROWS, TAIL = "csrc/cpu/tail_rows.h", "csrc/cpu/tail.cpp"
PARTS, SCORE, MAPS = (f"kernels/{name}.py" for name in ("head_score_parts", "score_kernel", "map_kernel"))
LAUNCHER = "kernels/head_score.py"
LAYERS = "kernels/layers.py"
MOVES, CUDA = "kernels/kv_cache.py", "csrc/cuda/kv_copy.cu"
TAIL_TRITON = "kernels/tail.py"


@dataclass(frozen=True)
class Mutation:
    """In a file, the one place that reads `old` reads `new`; nothing changes where that is empty."""

    file: str
    old: str
    new: str
    sanitized: bool = False  # it reads or writes past an array, which only the sanitizers can be sure to see

    at: int | None = None  # where in the file, if not at the one place

    def source(self) -> str:
        text = (ROOT / self.file).read_text()
        if not self.old:
            return text
        assert self.at is not None or text.count(self.old) == 1, f"{self.file} must hold {self.old!r} once"
        at = text.index(self.old, self.at)
        return text[:at] + self.new + text[at + len(self.old) :]


def masks_of(file: str) -> Iterator[Mutation]:
    """Each mask of a load or store of a Triton kernel made true; of one that is several joined, each of these."""
    for match in re.finditer(r"mask=((?:\[[^]]*]|[^,()[\]])+)", (ROOT / file).read_text()):
        at = match.start(1)
        for part in match[1].split(" & "):
            yield Mutation(file, part, f"(({part}) == ({part}))", at=at)
            at += len(part) + len(" & ")


CPP = [
    # attendable keys
    Mutation(TILE, "(first <= here) & (here <= last)", "(here <= last)"),
    Mutation(TILE, "(first <= here) & (here <= last)", "(first <= here)"),
    Mutation(TILE, "(first <= here)", "(first < here)"),
    Mutation(TILE, "(here <= last)", "(here < last)"),
    Mutation(TILE, "p_.mask || position < all_from_", "position < all_from_"),
    Mutation(TILE, "|| position < all_from_ ||", "||"),
    Mutation(TILE, " || position > all_to_;", ";"),
    Mutation(TILE, "if (first_[i] > all_from_) all_from_ = first_[i];", ""),
    Mutation(TILE, "if (last_[i] < all_to_) all_to_ = last_[i];", ""),
    Mutation(TILE, " + position]) seen[i] = 0;", " + position]) seen[i] = -1;"),
    Mutation(TILE, "g = seen ? g : Vec{};", ""),
    Mutation(TILE, "vector(scores.largest + at) = largest;", ""),
    Mutation(TILE, "vector(scores.smallest + at) = smallest;", ""),
    Mutation(TILE, "(scores.winner + at) = winner;", "(scores.winner + at);"),
    Mutation(TILE, "smallest = seen & (", "smallest = ("),
    # NaN, zeros and ties
    Mutation(TILE, "product[i][v] <= 0 ? Vec{} : product[i][v]", "product[i][v]"),
    Mutation(TILE, "product[i][v] <= 0 ? Vec{} : product[i][v]", "product[i][v] > 0 ? product[i][v] : Vec{}"),
    Mutation(TILE, "(g > largest) | (g != g)", "(g > largest)"),
    Mutation(TILE, "(g > largest) | (g != g)", "(g >= largest) | (g != g)"),
    Mutation(TILE, "((g < smallest) | (g != g))", "(g < smallest)"),
    Mutation(TILE, "text_.largest[i] > 0 ? text_.winner[i] : -1", "text_.winner[i]"),
    Mutation(TILE, "difference <= 0 ? Vec{} : difference", "difference"),
    # tails of tiles, blocks and rows
    Mutation(TILE, "tile.size - k < kKeys ? tile.size - k : kKeys", "kKeys", sanitized=True),
    Mutation(LANES, "here = key + k < count ? key + k : count - 1", "here = key + k", sanitized=True),
    Mutation(LANES, "start + i < block_.queries", "true", sanitized=True),
    Mutation(LANES, "block_.first + start + i", "block_.first + i"),
    Mutation(LANES, "out += elements_ * lanes;", ""),
    Mutation(TILE, "b_.first + (i < b_.queries ? i : 0)", "b_.first + i", sanitized=True),
    Mutation(TILE, "i < kLanes && at + i < b_.queries", "i < kLanes", sanitized=True),
    Mutation(LANES, "elements - line < kLine ? elements : line + kLine", "line + kLine"),
    Mutation(THREADS, "ceil_div(p.dim, kWidth) * kWidth;", "p.dim;", sanitized=True),
    # layouts, numbers, heads
    Mutation(TILE, "head / (p_.heads / p_.kv_heads)", "head % p_.kv_heads"),
    Mutation(TYPES, "return kSame<In, T> && step == 1;", "return kSame<In, T>;"),
    Mutation(TYPES, "widen(row[d * step])", "widen(row[d])"),
    Mutation(HALF, " | special | ", " | "),
    Mutation(HALF, " | (x.bits & 0x8000u) << 16", ""),
    Mutation(THREADS, "type == Type::kBFloat16 ? amx_kernel() : avx512_kernel(type)", "amx_kernel()"),
    Mutation(THREADS, "type == Type::kBFloat16 ? avx512_bf16_kernel() : avx512_kernel(type)", "avx512_bf16_kernel()"),
    Mutation(THREADS, "(slot + 1) * p.heads / slots}", "(slot + 1) * (p.heads / slots)}"),
    Mutation(THREADS, "std::min(kQueries, p.queries - first)", "kQueries", sanitized=True),
    Mutation(THREADS, "std::min(kKeysAtOnce, p.visual_count - n)", "kKeysAtOnce", sanitized=True),
    # sums over heads, slots and layers
    Mutation(TILE, "head == b_.first_head", "true"),
    Mutation(TILE, "head == b_.first_head", "false"),
    Mutation(THREADS, "+= sum[", "= sum["),
    Mutation(THREADS, "sum[k * block.width + i]", "sum[k * kQueries + i]"),
    Mutation(THREADS, "+= partial[", "= partial["),
    Mutation(THREADS, "+= partial[", "+= 2 * partial["),
    Mutation(THREADS, "slot < grid.slots; ++slot) {", "slot < 1; ++slot) {"),
    Mutation(THREADS, "slot < grid.slots; ++slot) {", "slot < grid.slots; slot += 2) {"),
    Mutation(THREADS, "pieces = ceil_div(p.visual_count, kKeysAtOnce)", "pieces = p.visual_count / kKeysAtOnce"),
    Mutation(THREADS, "piece < grid.blocks * pieces", "piece < pieces"),
    Mutation(THREADS, "static_cast<T*>(out) + block.first * count", "static_cast<T*>(out)"),
    Mutation(THREADS, "size, p.unfiltered_map);", "size, p.token_map);"),
    # attention probabilities
    Mutation(TILE, "if (kAttended) g *= ", "if (false) g *= "),
    Mutation(TILE, "if (kAttended) pack_attention(head);", "if (kAttended && !head) pack_attention(head);"),
    Mutation(TILE, " * T(p_.scale) - ", " - "),
    Mutation(TILE, " - vector(log_sum_exp_ + at)", ""),
    Mutation(TILE, "logit_.read(kv_head,", "logit_.read(0,"),
    Mutation(TILE, "i < b_.queries ? rows[", "true ? rows[", sanitized=True),
    Mutation(SIMD, "x < S::kLowest ? Vec{} : ", ""),
    Mutation(SIMD, "x > S::kHighest ? Vec{} + T(__builtin_inf()) : power", "power"),
    Mutation(SIMD, "return x != x ? x : normal;", "return normal;"),
    Mutation(SIMD, " - n * S::kLn2Rest;", ";"),
]  # fmt: skip

IN_TAIL = [
    # rows: their tails, places and kinds
    Mutation(ROWS, "k < count ? widen(from[k]) : rest", "widen(from[k])", sanitized=True),
    Mutation(ROWS, "k < count ? widen(from[k]) : rest", "k < count ? widen(from[k]) : T(0)"),
    Mutation(ROWS, "k < count; ++k) narrow", "k < kBlock; ++k) narrow", sanitized=True),
    Mutation(ROWS, "k < count; ++k) narrow", "k < count - 1; ++k) narrow"),
    Mutation(ROWS, "return count == kBlock ? from : copied(from, count, rest, copy);", "return from;", sanitized=True),
    Mutation(ROWS, "left < kBlock ? left : kBlock", "kBlock", sanitized=True),
    Mutation(ROWS, "i < kLanes<T>; ++i) sum", "i < kLanes<T> - 1; ++i) sum"),
    Mutation(ROWS, "<T>(problem.residual, row, problem.residual_stride)", "<T>(problem.residual, row, problem.width)"),
    Mutation(ROWS, "row_of<X>(problem.x, row, problem.x_stride)", "row_of<X>(problem.x, row, problem.width)"),
    Mutation(ROWS, "row_of<G>(problem.grad, row, problem.grad_stride)", "row_of<G>(problem.grad, row, problem.width)"),
    Mutation(ROWS, "(problem.out) + row * problem.width", "(problem.out)"),
    Mutation(ROWS, "block(scale_ + d, ", "block(scale_, "),
    Mutation(ROWS, "block(residual_ + d, ", "block(residual_, "),
    Mutation(ROWS, "write(found, count, out_ + d);", "write(found, count, out_);"),
    Mutation(ROWS, "row_of<In>(p.grad, row, p.grad_stride)", "row_of<In>(p.grad, row, p.width)"),
    Mutation(ROWS, "row_of<In>(p.gate, row, p.gate_stride)", "row_of<In>(p.gate, row, p.width)"),
    Mutation(ROWS, "row_of<In>(p.up, row, p.up_stride)", "row_of<In>(p.up, row, p.width)"),
    Mutation(ROWS, "(p.grad_gate) + row * p.width", "(p.grad_gate)"),
    Mutation(ROWS, "(p.grad_up) + row * p.width", "(p.grad_up)"),
    Mutation(ROWS, "return alike ? norm_row<BFloat16, BFloat16, float> : summed ?", "return summed ?"),
    # norms
    Mutation(ROWS, "mean_ = p_.centred ? sum_of_x() / width : T(0);", "mean_ = 0;"),
    Mutation(ROWS, "mean_ = p_.centred ? sum_of_x() / width : T(0);", "mean_ = sum_of_x() / width;"),
    Mutation(ROWS, "offset = p_.centred ? sum_of<T>(sum) / width : T(0);", "offset = 0;"),
    Mutation(ROWS, "offset = p_.centred ? sum_of<T>(sum) / width : T(0);", "offset = sum_of<T>(sum) / width;"),
    Mutation(ROWS, " + T(p_.eps)", ""),
    Mutation(ROWS, " / width * inverse * inverse;", " / width * (inverse * inverse * inverse) / inverse;"),
    Mutation(ROWS, "residual ? gradient + vector(residual + k) : gradient", "gradient"),
    Mutation(ROWS, " - centred(k) * along)", ")"),
    # activations, and numbers at their ends
    Mutation(ROWS, "(z < 0 ? z : -z)", "(-z)"),
    Mutation(ROWS, "return z < 0 ? power * larger : larger;", "return larger;"),
    Mutation(ROWS, "slope = s + value * (1 - s);", "slope = s;"),
    Mutation(ROWS, "value * (1 - s) * (kLinear + 3 * kCubic * square)", "value * (1 - s) * kLinear"),
    Mutation(ROWS, "below = x > kLimit ? Vec{} + kLimit : x;", "below = x;"),
    Mutation(ROWS, "near = below < -kLimit ? Vec{} - kLimit : below;", "near = below;"),
    Mutation(ROWS, "kLimit = 32", "kLimit = 2"),
    Mutation(ROWS, "act.slope * (vector(q + k) * vector(dz + k))", "act.slope * vector(q + k)"),
    Mutation(ROWS, "act.value * vector(dz + k)", "act.value"),
    # roundings
    Mutation(ROWS, " + (bits >> 16 & 1u)", ""),
    Mutation(ROWS, "bits + 0x7FFFu", "bits"),
    Mutation(ROWS, " + (magnitude >> 13 & 1u)", ""),
    Mutation(ROWS, "- 0x38000000u + 0xFFFu", "- 0x38000000u"),
    Mutation(ROWS, "magnitude < 0x38800000u ? subnormal : normal", "normal"),
    Mutation(ROWS, "magnitude < 0x38800000u ? subnormal : normal", "magnitude < 0x38000000u ? subnormal : normal"),
    Mutation(ROWS, "finite < 0x7C00u ? finite : 0x7C00u", "finite"),
    Mutation(ROWS, "x != x ? 0x7E00u : number", "number"),
    Mutation(ROWS, " | (bits >> 16 & 0x8000u))", ")"),
    # pieces of rows
    Mutation(TAIL, "p.grad_stride != p.width || p.gate_stride", "p.gate_stride"),
    Mutation(TAIL, " || p.gate_stride != p.width || ", " || "),
    Mutation(TAIL, " || p.up_stride != p.width) return p;", ") return p;"),
    Mutation(TAIL, "std::min<int64_t>(p.rows, 1)", "p.rows", sanitized=True),
    Mutation(TAIL, "(p.width + kPiece - 1) / kPiece", "p.width / kPiece"),
    Mutation(TAIL, "i % pieces * kPiece", "i % pieces"),
    Mutation(TAIL, "std::min(from + kPiece, p.width)", "from + kPiece", sanitized=True),
    Mutation(TAIL, "if (!norm) return false;", ""),
]  # fmt: skip

IN_BF16 = [
    # tails of rows
    Mutation(PAIRS, "(dim + kNumbers - 1) / kNumbers", "dim / kNumbers"),
    Mutation(PAIRS, "first = d < dim ? row", "first = true ? row"),
    Mutation(PAIRS, "second = d + 1 < dim ? row", "second = true ? row"),
    Mutation(PAIRS, "return step == 1 && dim % kNumbers == 0;", "return step == 1;"),
    Mutation(PAIRS, "__builtin_memset(out, 0, elements(dim) * sizeof(Element));", "", sanitized=True),
    Mutation(AMX, "pair < elements_;", "pair + kTilePairs < elements_;"),
    # layouts
    Mutation(PAIRS, "return step == 1 && dim % kNumbers == 0;", "return dim % kNumbers == 0;"),
    Mutation(PAIRS, "element(row, step, i, dim)", "element(row, 1, i, dim)"),
    Mutation(AMX, "if (!evenly_spaced()) gather();", ""),
    Mutation(AMX, "int64_t k = 2; k < kKeys;", "int64_t k = 2; k < kKeys - 1;"),
    Mutation(AMX, "int64_t k = 2; k < kKeys;", "int64_t k = 3; k < kKeys;"),
    Mutation(AMX, "      here_[k] = copy;\n", ""),
    Mutation(AMX, "    stride_ = elements_ * sizeof(Element);\n", ""),
    # tiles
    Mutation(AMX, "Tiles() { configure_tiles(&kShapes); }", "Tiles() {}", sanitized=True),
    Mutation(AMX, "~Tiles() { release_tiles(); }", "~Tiles() {}", sanitized=True),
    Mutation(AMX, "clear_sums<kVectors - 1>();", ""),
    Mutation(AMX, "(kVector > 0) clear_sums", "(kVector > 1) clear_sums"),
    Mutation(AMX, "(kVector > 0) add_products", "(kVector > 1) add_products"),
    Mutation(AMX, "(kVector > 0) store_sums", "(kVector > 1) store_sums"),
    Mutation(AMX, "packed_ + start * elements_ + ", "packed_ + "),
    Mutation(AMX, "pair * kVectors * kLanes", "pair * kLanes"),
]  # fmt: skip

IN_TRITON = [
    # attendable keys
    Mutation(PARTS, "(positions[None, :] - first[:, None]).to", "positions[None, :].to"),
    Mutation(PARTS, "positions[None, :] - first[:, None]", "positions[None, :] - first[:, None] - 1"),
    Mutation(PARTS, "< count[:, None].to", "<= count[:, None].to"),
    Mutation(PARTS, "last - first + 1", "last - first"),
    Mutation(PARTS, "mask=offs_n < count, other=-1", "mask=offs_n < count, other=0"),
    Mutation(PARTS, "tl.minimum(positions.to(tl.uint32), (keys - 1).to(tl.uint32)).to(tl.int32)", "positions"),
    Mutation(PARTS, "tl.maximum(tl.load(first_ptr + offs_t, mask=mask_t, other=0), 0)", "tl.load(first_ptr + offs_t, mask=mask_t, other=0)"),  # noqa: E501
    Mutation(PARTS, "tl.minimum(tl.load(last_ptr + offs_t, mask=mask_t, other=-1), keys - 1)", "tl.load(last_ptr + offs_t, mask=mask_t, other=-1)"),  # noqa: E501
    Mutation(PARTS, "    if HAS_MASK:", "    if False:"),
    Mutation(SCORE, "g if RUN else tl.where(seen, g, 0.0)", "g"),
    Mutation(SCORE, "g = tl.where(seen, g, 0.0) if EDGE else g", "g = g"),
    Mutation(MAPS, "g if RUN else tl.where(seen, g, 0.0)", "g"),
    # keys without lists
    Mutation(SCORE, "(text_count - queries + 1 + first_t) // BLOCK_N", "(text_count - queries + 1 + last_t) // BLOCK_N"),  # noqa: E501
    Mutation(SCORE, "last_text = text_count - queries + 1 + last_t", "last_text = text_count - queries + last_t"),
    Mutation(SCORE, "readable = (text_count - queries + 1 + offs_t)", "readable = (text_count - queries + offs_t)"),
    Mutation(SCORE, "whole_visual = visual_count // BLOCK_N", "whole_visual = (visual_count + 1) // BLOCK_N"),
    Mutation(SCORE, "tl.minimum(offs_n, visual_count - 1)", "offs_n"),
    Mutation(SCORE, "tl.minimum(offs_n, text_count - 1)", "offs_n"),
    Mutation(SCORE, "tl.where(offs < visual_start, 0, visual_count)", "tl.where(offs <= visual_start, 0, visual_count)"),  # noqa: E501
    Mutation(SCORE, "tl.where(won < visual_start, 0, visual_count)", "tl.where(won <= visual_start, 0, visual_count)"),
    Mutation(MAPS, "visual_start + tl.minimum(offs_n, visual_count - 1)", "visual_start + offs_n"),
    # parts of the keys
    Mutation(SCORE, "tl.minimum((part + 1) * each, visual_count)", "part * each + each - BLOCK_N"),
    Mutation(SCORE, "tl.minimum((part + 1) * each, last_text)", "last_text - BLOCK_N"),
    Mutation(SCORE, "(part * tl.num_programs(2) + layer)", "layer"),
    Mutation(SCORE, "tl.where(score > text, tl.load", "tl.where(score >= text, tl.load"),
    Mutation(SCORE, "visual = larger(visual, tl.load(", "visual = tl.maximum(visual, tl.load("),
    Mutation(SCORE, "text = larger(text, score)", "text = tl.maximum(text, score)"),
    Mutation(SCORE, "tl.where(text > 0, winner, -1)", "winner"),
    Mutation(SCORE, "tl.where(visual != visual, visual, smallest)", "smallest"),
    Mutation(SCORE, "        winner_parts_ptr += count\n", ""),
    # layers
    Mutation(LAYERS, "tl.static_range(1, len(pointers))", "tl.static_range(2, len(pointers))"),
    Mutation(MAPS, "(layer * queries + offs_t)", "offs_t"),
    Mutation(MAPS, "tl.minimum(begin + kv_heads_each * GROUP, len(u_ptrs) * heads)", "begin + kv_heads_each * GROUP"),
    Mutation(MAPS, "if head == heads:", "if head > heads:"),
    Mutation(MAPS, "layer, head = layer + 1, head - heads", "layer, head = layer + 1, head"),
    Mutation(MAPS, "layer = begin // heads", "layer = begin * 0"),
    Mutation(LAUNCHER, "cdiv(layers * kv_heads, tiles.splits)", "cdiv(kv_heads, tiles.splits)"),
    # NaN, zeros and ties
    Mutation(MAPS, "larger(g if RUN else tl.where(seen, g, 0.0), 0.0)", "g if RUN else tl.where(seen, g, 0.0)"),
    Mutation(PARTS, "tl.maximum(x, y, propagate_nan=NAN_STAYS)", "tl.maximum(x, y)"),
    Mutation(SCORE, 'g if RUN else tl.where(seen, g, float("inf"))', "g"),
    Mutation(SCORE, "tl.maximum(tl.min(smallest, axis=1), 0.0)", "tl.min(smallest, axis=1)"),
    Mutation(SCORE, "tl.where(g > largest, start", "tl.where(g >= largest, start"),
    Mutation(SCORE, "    if WITH_SMALLEST:\n                smallest", "    if False:\n                smallest"),
    Mutation(PARTS, 'tl.where(bad, float("nan"), tl.max(values, axis=1))', "tl.max(tl.where(values != values, 0.0, values), axis=1)"),  # noqa: E501
    Mutation(SCORE, "tl.where(visual_score != visual_score, visual_score, lowest)", "lowest"),
    Mutation(SCORE, "tl.where(wins, won, -1)", "won"),
    Mutation(MAPS, "tl.where(difference <= 0, 0.0, difference)", "difference"),
    # tails, beside the masks of loads and stores
    Mutation(SCORE, "offs_r // GROUP, kv_head * GROUP + offs_r % GROUP", "offs_r // GROUP, offs_r % GROUP"),
    Mutation(SCORE, "of_layer(value_ptrs, layer) + kv_head * stride_vh", "of_layer(value_ptrs, layer)"),
    Mutation(MAPS, "value, key = value_ptr + head // GROUP * stride_vh,", "value, key = value_ptr,"),
    # sums over heads and layers
    Mutation(MAPS, "out = (split * queries + ", "out = ("),
    Mutation(LAUNCHER, "torch._foreach_add_(", "torch._foreach_copy_("),
    Mutation(LAUNCHER, "else parts.sum(1)", "else parts[:, 0]"),
    # attention probabilities
    Mutation(PARTS, "    if ATTENDED:\n        logits", "    if False:\n        logits"),
    Mutation(PARTS, "logits * scale - log_sum_exp", "logits - log_sum_exp"),
    Mutation(PARTS, " - log_sum_exp[:, None])", ")"),
    Mutation(SCORE, "key_ptr += kv_head * stride_kh", "key_ptr += 0"),
    Mutation(MAPS, "key_ptr + head // GROUP * stride_kh", "key_ptr"),
    *masks_of(PARTS),
    *masks_of(SCORE),
    *masks_of(MAPS),
    # appends and copies of slots
    Mutation(MOVES, "head = tl.program_id(1).to(tl.int64)", "head = tl.program_id(1)"),
    Mutation(MOVES, "tl.program_id(0).to(tl.int64)", "tl.program_id(0)"),
    Mutation(MOVES, "tl.arange(0, BLOCK_D).to(tl.int64)", "tl.arange(0, BLOCK_D)"),
    Mutation(MOVES, " * BLOCK_Q + tl.arange", " + tl.arange"),
    Mutation(MOVES, "(start + offs_q)[:, None]", "offs_q[:, None]"),
    Mutation(MOVES, "DIM_V, BLOCK_Q, BLOCK_V", "DIM_K, BLOCK_Q, BLOCK_V"),
    Mutation(MOVES, "offs_q < count", "offs_q <= count"),
    Mutation(MOVES, "offs_d < DIM", "offs_d <= DIM"),
    Mutation(MOVES, "of_layer(keys_ptrs, layer)", "keys_ptrs[0]"),
    Mutation(MOVES, "of_layer(key_ptrs, layer)", "key_ptrs[0]"),
    Mutation(MOVES, "of_layer(values_ptrs, layer)", "values_ptrs[0]"),
    Mutation(MOVES, "of_layer(value_ptrs, layer)", "value_ptrs[0]"),
    *masks_of(MOVES),
    # the layer tail
    Mutation(TAIL_TRITON, "row = tl.program_id(0).to(tl.int64)\n    offs = tl.arange", "row = tl.program_id(0)\n    offs = tl.arange"),  # noqa: E501
    Mutation(TAIL_TRITON, "row = tl.program_id(0).to(tl.int64)\n    offs = tl.program_id", "row = tl.program_id(0)\n    offs = tl.program_id"),  # noqa: E501
    Mutation(TAIL_TRITON, "tl.program_id(1) * BLOCK_I + ", ""),
    Mutation(TAIL_TRITON, "    mask = offs < WIDTH", "    mask = offs <= WIDTH"),
    Mutation(TAIL_TRITON, "    mask = offs < width", "    mask = offs <= width"),
    Mutation(TAIL_TRITON, "tl.where(mask, y - tl.sum(y, axis=0) / WIDTH, 0.0)", "y - tl.sum(y, axis=0) / WIDTH"),
    Mutation(TAIL_TRITON, "    if CENTRED:\n        y", "    if False:\n        y"),
    Mutation(TAIL_TRITON, "    if CENTRED:\n        v", "    if False:\n        v"),
    Mutation(TAIL_TRITON, "    if HAS_RESIDUAL:", "    if False:"),
    Mutation(TAIL_TRITON, "    if HAS_RESIDUAL:", "    if True:"),
    Mutation(TAIL_TRITON, " / WIDTH + eps)", " / WIDTH)"),
    Mutation(TAIL_TRITON, "(v - y * along)", "v"),
    Mutation(TAIL_TRITON, "out_ptr + row * WIDTH", "out_ptr + row * stride_x"),
    Mutation(TAIL_TRITON, "out = row * width + offs", "out = row * stride_gate + offs"),
    Mutation(TAIL_TRITON, "x_ptr + row * stride_x", "x_ptr + row * WIDTH"),
    Mutation(TAIL_TRITON, "grad_ptr + row * stride_grad + offs, mask=mask, other=0).to(tl.float32)\n    v *=", "grad_ptr + row * WIDTH + offs, mask=mask, other=0).to(tl.float32)\n    v *="),  # noqa: E501
    Mutation(TAIL_TRITON, "row * stride_residual", "row * WIDTH"),
    Mutation(TAIL_TRITON, "dz = tl.load(grad_ptr + row * stride_grad", "dz = tl.load(grad_ptr + row * width"),
    Mutation(TAIL_TRITON, "gate_ptr + row * stride_gate + offs, mask", "gate_ptr + row * width + offs, mask"),
    Mutation(TAIL_TRITON, "up_ptr + row * stride_up", "up_ptr + row * width"),
    Mutation(TAIL_TRITON, "power = tl.exp(-tl.abs(z))", "power = tl.exp(-z)"),
    Mutation(TAIL_TRITON, "tl.where(z < 0, power * larger, larger)", "larger"),
    Mutation(TAIL_TRITON, "near = tl.where(x > GELU_LIMIT, GELU_LIMIT, ", "near = tl.where(False, GELU_LIMIT, "),
    Mutation(TAIL_TRITON, "tl.where(x < -GELU_LIMIT, -GELU_LIMIT, x)", "x"),
    Mutation(TAIL_TRITON, "    if out.numel() == 0:\n        return out\n", ""),
    Mutation(TAIL_TRITON, "return x if x.stride(1) == 1 else x.contiguous()", "return x"),
    *masks_of(TAIL_TRITON),
]  # fmt: skip

IN_CUDA = [
    Mutation(CUDA, "return unit < 16 ? unit : 16;", "return 16;"),
    Mutation(CUDA, "case 4: return move<uint32_t>", "case 4: return move<uint2>"),
    Mutation(CUDA, "if (first + i * kThreads < units) target", "target"),
    Mutation(CUDA, "chunk * kThreads * kUnits + threadIdx.x", "chunk * kThreads + threadIdx.x"),
    Mutation(CUDA, "if (head >= tensor.heads) return;", ""),
    Mutation(CUDA, "tensor.data + head * tensor.slots * tensor.slot_bytes", "tensor.data"),
    Mutation(CUDA, "slots + copy.from * tensor.slot_bytes", "slots"),
    Mutation(CUDA, "slots + copy.to * tensor.slot_bytes", "slots"),
    Mutation(CUDA, "slots = std::max(slots, copies[i].count)", "slots = copies[i].count"),
    Mutation(CUDA, "units = std::max(units, slots * ", "units = (slots * "),
    Mutation(CUDA, "(units + kThreads * kUnits - 1) / ", "units / "),
    Mutation(CUDA, "t < tensor_count; t += kTensors", "t < 1; t += kTensors"),
    Mutation(CUDA, "c < copy_count && error", "c < 1 && error"),
    Mutation(CUDA, "tensors + t, std::min", "tensors, std::min"),
    Mutation(CUDA, "copies + c,", "copies,"),
]  # fmt: skip
