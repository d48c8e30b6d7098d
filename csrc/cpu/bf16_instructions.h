// The instructions of AVX512_BF16 and AMX that the kernels use, one function each (Intel SDM, volume 2).
// tests/support/bf16_on_cpu has the same functions in software. Assembly, because the tile macros of some
// compilers do not say that they read and write memory, and because it needs no flags.
//
// Both multiply pairs of bfloat16 and sum in float, rounded to nearest. Subnormal numbers, given or found, count
// as 0.
#pragma once

#include "cpu/head_score_tile.h"

namespace dexar {
namespace {

/// VDPBF16PS: each lane of sum += the two products of its pair of queries and of keys.
inline void add_pair_products(Simd<float>::Vec& sum, Simd<float>::Int queries, Simd<float>::Int keys) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(queries), "v"(keys));
}

/// LDTILECFG: this thread has tiles, all 0, until release_tiles; the 64 bytes say which.
inline void configure_tiles(const void* shapes) {
  __asm__ volatile("ldtilecfg (%0)" ::"r"(shapes) : "memory");
}

/// TILERELEASE
inline void release_tiles() { __asm__ volatile("tilerelease"); }

/// TILEZERO
template <int kTile>
void clear_tile() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(kTile));
}

/// TILELOADD: `stride` bytes from row to row.
template <int kTile>
void load_tile(const void* rows, int64_t stride) {
  __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(kTile), "r"(rows), "r"(stride) : "memory");
}

/// TILESTORED
template <int kTile>
void store_tile(void* rows, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(kTile), "r"(rows), "r"(stride) : "memory");
}

/// TDPBF16PS: sum[k][q] += the products of the pairs keys[k][d] and queries[d][q], over d.
template <int kSum, int kKeys, int kQueries>
void multiply_tiles() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kKeys), "i"(kQueries));
}

}  // namespace
}  // namespace dexar
