#pragma once

#include "cpu/head_score.h"

namespace dexar {

constexpr int64_t kQueries = 64;  // of one block
constexpr int64_t kTile = 24;     // keys read at a time, at most

/// `queries` queries from `first` on, and the heads that one partial sum of their maps takes.
struct Block {
  int64_t first, queries, width;  // width: queries rounded up to a multiple of kWidth
  int64_t first_head, last_head;  // last_head is not included
};

constexpr int64_t kWidth = 16;  // a multiple of the lanes of every vector

/// Scratch and partial sums of a block, elements of the sum type, aligned to 64 bytes.
struct Buffers {
  void* u;           // [width * D] u of the queries, one lane each; here and below D is a multiple of 16
  void* query;       // the same of q, where there is one
  void* value_rows;  // [kTile, D] of V, converted
  void* key_rows;    // [kTile, D] of k, where there is a query
  void* gradients;   // [N, width] G of one head
  void* filtered;    // [N, width] E of the block's heads
  void* unfiltered;  // [N, width] U
};

/// head_score on one instruction set: `score` one block, heads in ascending order.
using ScoreBlock = void (*)(const HeadScore&, const Block&, const Buffers&);

ScoreBlock portable_kernel(Type type);
ScoreBlock avx2_kernel(Type type);    // nullptr where it was not compiled
ScoreBlock avx512_kernel(Type type);  // likewise
ScoreBlock avx512_bf16_kernel();      // likewise; of Type::kBFloat16
ScoreBlock amx_kernel();              // likewise

}  // namespace dexar
