// csrc/cpu/bf16_instructions.h in software, for CPUs without the instructions (test_bf16_instructions.py): by the
// operations of Intel's manual, volume 2. What would fault, or is left to chance there, ends the process.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cpu/head_score_tile.h"

namespace dexar {

extern bool spoiled_pairs, spoiled_tiles;  // the second number of every pair counts as 0

namespace {

using Lane = Simd<float>;

void require(bool holds, const char* what) {
  if (!holds) std::fprintf(stderr, "tiles: %s\n", what), std::abort();
}

inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.f, x) : x; }

// One rounding, to nearest; subnormal numbers are 0.
inline float multiply_add(float x, float y, float sum) {
  return flushed(std::fma(flushed(x), flushed(y), flushed(sum)));
}

float half_of(uint32_t pair, int which) {
  const uint32_t bits = which ? pair & 0xFFFF0000u : pair << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline void add_pair_products(Lane::Vec& sum, Lane::Int queries, Lane::Int keys) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = uint32_t(queries[i]), k = uint32_t(keys[i]);
    const float odd = spoiled_pairs ? sum[i] : multiply_add(half_of(q, 1), half_of(k, 1), sum[i]);
    sum[i] = multiply_add(half_of(q, 0), half_of(k, 0), odd);
  }
}

struct Tile {
  int rows = 0, bytes = 0;
  uint32_t data[16][16] = {};  // in pairs or sums
};

thread_local bool configured = false;
thread_local Tile tiles[8];

Tile& tile(int number) {
  require(configured, "not configured");
  require(number < 8 && tiles[number].rows && tiles[number].bytes, "no such tile");
  return tiles[number];
}

inline void configure_tiles(const void* shapes) {
  unsigned char bytes[64];
  std::memcpy(bytes, shapes, sizeof(bytes));
  require(!configured, "configured twice: the last block has not released them");
  require(bytes[0] == 1 && bytes[1] == 0, "palette 1 from row 0 on is the one that is known");
  configured = true;
  for (int i = 2; i < 16; ++i) require(bytes[i] == 0, "reserved bytes");
  for (int i = 0; i < 16; ++i) {
    const int row_bytes = bytes[16 + 2 * i] | bytes[17 + 2 * i] << 8, rows = bytes[48 + i];
    require(i < 8 ? row_bytes <= 64 && rows <= 16 && !row_bytes == !rows : !row_bytes && !rows, "shape");
    if (i < 8) tiles[i] = Tile{rows, row_bytes, {}};
  }
}

inline void release_tiles() {
  require(configured, "released twice");
  configured = false;
}

template <int kTile>
void clear_tile() {
  std::memset(tile(kTile).data, 0, sizeof(Tile::data));
}

template <int kTile>
void load_tile(const void* rows, int64_t stride) {
  clear_tile<kTile>();
  for (int i = 0; i < tiles[kTile].rows; ++i)
    std::memcpy(tiles[kTile].data[i], static_cast<const char*>(rows) + i * stride, size_t(tiles[kTile].bytes));
}

template <int kTile>
void store_tile(void* rows, int64_t stride) {
  for (int i = 0; i < tile(kTile).rows; ++i)
    std::memcpy(static_cast<char*>(rows) + i * stride, tiles[kTile].data[i], size_t(tiles[kTile].bytes));
}

// Even and odd places of the pairs have sums of their own, which meet before they are added.
template <int kSum, int kKeys, int kQueries>
void multiply_tiles() {
  Tile &sums = tile(kSum), &keys = tile(kKeys), &queries = tile(kQueries);
  require(kSum != kKeys && kSum != kQueries && kKeys != kQueries, "one tile twice");
  require(sums.rows == keys.rows && sums.bytes == queries.bytes && keys.bytes == 4 * queries.rows, "shapes do not fit");
  for (int m = 0; m < sums.rows; ++m) {
    float sum[2][16] = {};
    for (int k = 0; k < keys.bytes / 4; ++k)
      for (int half = 0; half < (spoiled_tiles ? 1 : 2); ++half)
        for (int n = 0; n < sums.bytes / 4; ++n)
          sum[half][n] = multiply_add(half_of(keys.data[m][k], half), half_of(queries.data[k][n], half), sum[half][n]);
    for (int n = 0; n < sums.bytes / 4; ++n) {
      float before;
      std::memcpy(&before, &sums.data[m][n], sizeof(before));
      const float after = flushed(flushed(before) + flushed(sum[0][n] + sum[1][n]));
      std::memcpy(&sums.data[m][n], &after, sizeof(after));
    }
  }
}

}  // namespace
}  // namespace dexar
