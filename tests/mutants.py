"""One change each to the source of a kernel that its tests must notice: `python tests/mutations.py` tries them all.

Every mask, bound and tail is removed in turn, and so is what keeps NaN, zeros and ties as they are. C++ mutants are of
the portable path, which is compiled from the same lines as the others; those of AMX and CUDA run in software.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TILE, THREADS = "csrc/cpu/head_score_tile.h", "csrc/cpu/head_score.cpp"
LANES, TYPES = "csrc/cpu/head_score_lanes.h", "csrc/cpu/head_score_types.h"
PAIRS, AMX = "csrc/cpu/head_score_pairs.h", "csrc/cpu/head_score_amx.cpp"
TRITON, MOVES, CUDA = "kernels/head_score.py", "kernels/kv_cache.py", "csrc/cuda/kv_copy.cu"


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
            yield Mutation(file, part, f"({part} == {part})", at=at)
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
    Mutation(TILE, "take<kVisual>(seen ? g : Vec{}, seen", "take<kVisual>(g, seen"),
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
    Mutation(LANES, "i < block_.queries ? Feature", "true ? Feature", sanitized=True),
    Mutation(TILE, "b_.first + (i < b_.queries ? i : 0)", "b_.first + i", sanitized=True),
    Mutation(TILE, "i < kLanes && at + i < b_.queries", "i < kLanes", sanitized=True),
    Mutation(LANES, "elements - line < kLine ? elements : line + kLine", "line + kLine"),
    Mutation(THREADS, "ceil_div(p.dim, kWidth) * kWidth;", "p.dim;", sanitized=True),
    Mutation(TILE, "i < p_.visual_count * b_.width; ++i) filtered_", "i < 0; ++i) filtered_"),
    # layouts, numbers, heads
    Mutation(TILE, "head / (p_.heads / p_.kv_heads)", "head % p_.kv_heads"),
    Mutation(TYPES, "return kSame<In, T> && step == 1;", "return kSame<In, T>;"),
    Mutation(TYPES, "widen(row[d * step])", "widen(row[d])"),
    Mutation(TYPES, " | special | ", " | "),
    Mutation(TYPES, " | (x.bits & 0x8000u) << 16", ""),
    Mutation(THREADS, "type == Type::kBFloat16 ? amx_kernel() : avx512_kernel(type)", "amx_kernel()"),
    Mutation(THREADS, "type == Type::kBFloat16 ? avx512_bf16_kernel() : avx512_kernel(type)", "avx512_bf16_kernel()"),
    Mutation(THREADS, "(slot + 1) * p.heads / slots}", "(slot + 1) * (p.heads / slots)}"),
    Mutation(THREADS, "std::min(kQueries, p.queries - first)", "kQueries", sanitized=True),
    Mutation(THREADS, "std::min(kKeysAtOnce, p.visual_count - n)", "kKeysAtOnce", sanitized=True),
    # sums over layers
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
    Mutation(TILE, "x < S::kLowest ? Vec{} : ", ""),
    Mutation(TILE, "x > S::kHighest ? Vec{} + T(__builtin_inf()) : power", "power"),
    Mutation(TILE, "return x != x ? x : normal;", "return normal;"),
    Mutation(TILE, " - n * S::kLn2Rest;", ";"),
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
    Mutation(TRITON, "(positions[None, :] >= first[:, None]) & ", ""),
    Mutation(TRITON, " & (positions[None, :] <= last[:, None])", ""),
    Mutation(TRITON, "positions[None, :] >= first", "positions[None, :] > first"),
    Mutation(TRITON, "positions[None, :] <= last", "positions[None, :] < last"),
    Mutation(TRITON, "<= last[:, None]) & mask_k[None, :]", "<= last[:, None])"),
    Mutation(TRITON, "    if HAS_MASK:", "    if False:"),
    Mutation(TRITON, "return tl.where(seen, g, 0.0)", "return g"),
    # NaN, zeros and ties
    Mutation(TRITON, "g = tl.where(product <= 0, 0.0, product)", "g = product"),
    Mutation(TRITON, "g = tl.where(product <= 0, 0.0, product)", "g = tl.where(product > 0, product, 0.0)"),
    Mutation(TRITON, "tl.where((g > largest) | (g != g), g, largest)", "tl.where(g > largest, g, largest)"),
    Mutation(TRITON, "seen & (g < smallest)", "g < smallest"),
    Mutation(TRITON, "better = (g > largest) | (g != g)", "better = g > largest"),
    Mutation(TRITON, "better = (g > largest) | (g != g)", "better = (g >= largest) | (g != g)"),
    Mutation(TRITON, 'tl.where(bad, float("nan"), tl.max(values, axis=1))', "tl.max(tl.where(values != values, 0.0, values), axis=1)"),  # noqa: E501
    Mutation(TRITON, "tl.where(visual_score != visual_score, visual_score, tl.min(smallest, axis=1))", "tl.min(smallest, axis=1)"),  # noqa: E501
    Mutation(TRITON, "tl.where(text_score > 0, won, -1)", "won"),
    Mutation(TRITON, "tl.where(difference <= 0, 0.0, difference)", "difference"),
    # tails, beside the masks of loads and stores
    Mutation(TRITON, "tl.minimum((split + 1) * kv_heads_each, kv_heads)", "(split + 1) * kv_heads_each"),
    Mutation(TRITON, "offs_r // GROUP, kv_head * GROUP + offs_r % GROUP", "offs_r // GROUP, offs_r % GROUP"),
    Mutation(TRITON, "value, key = value_ptr + head // GROUP * stride_vh,", "value, key = value_ptr,"),
    # sums over layers
    Mutation(TRITON, "token_map += tl.load(token_map_ptr", "token_map = tl.load(token_map_ptr"),
    Mutation(TRITON, "unfiltered += tl.load(", "unfiltered = tl.load("),
    Mutation(TRITON, "unfiltered += tl.load(", "unfiltered += 2 * tl.load("),
    Mutation(TRITON, "token_map += tl.load(token_map_ptr", "token_map += tl.load(unfiltered_ptr"),
    Mutation(TRITON, "out = (split * queries + ", "out = ("),
    Mutation(TRITON, "    if ADDS:", "    if False:"),
    Mutation(TRITON, "ADDS=tiles.splits == 1", "ADDS=True"),
    Mutation(TRITON, "    if tiles.splits > 1:", "    if False:"),
    Mutation(TRITON, "    if tiles.splits > 1:", "    if True:"),
    Mutation(TRITON, "total += part.sum(0)", "torch.sum(part, 0, out=total)"),
    Mutation(TRITON, "total += part.sum(0)", "total += part[0]"),
    # attention probabilities
    Mutation(TRITON, "    if ATTENDED:\n        logits", "    if False:\n        logits"),
    Mutation(TRITON, "logits * scale - log_sum_exp", "logits - log_sum_exp"),
    Mutation(TRITON, " - log_sum_exp[:, None])", ")"),
    Mutation(TRITON, "key_ptr += kv_head * stride_kh", "key_ptr += 0"),
    Mutation(TRITON, "key_ptr + head // GROUP * stride_kh", "key_ptr"),
    *masks_of(TRITON),
    # appends and copies of slots
    Mutation(MOVES, "head = tl.program_id(1).to(tl.int64)", "head = tl.program_id(1)"),
    Mutation(MOVES, "tl.program_id(0).to(tl.int64)", "tl.program_id(0)"),
    Mutation(MOVES, "tl.arange(0, BLOCK_D).to(tl.int64)", "tl.arange(0, BLOCK_D)"),
    Mutation(MOVES, " * BLOCK_Q + tl.arange", " + tl.arange"),
    Mutation(MOVES, "(start + offs_q)[:, None]", "offs_q[:, None]"),
    Mutation(MOVES, "DIM_V, BLOCK_Q, BLOCK_V", "DIM_K, BLOCK_Q, BLOCK_V"),
    Mutation(MOVES, "offs_q < count", "offs_q <= count"),
    Mutation(MOVES, "offs_d < DIM", "offs_d <= DIM"),
    *masks_of(MOVES),
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
