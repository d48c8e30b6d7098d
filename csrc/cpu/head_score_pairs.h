// Rows of bfloat16 for instructions that multiply pairs of them.
#pragma once

#include "cpu/bf16_instructions.h"
#include "cpu/head_score_lanes.h"

namespace dexar {
namespace {

// A Feature of LaneProduct: two numbers side by side. Rows of queries and of keys are both padded with zeros to a
// multiple of kNumbers: an infinity or NaN behind a row would not vanish in a product with 0.
template <int64_t kNumbers>
struct Pair {
  using In = uint16_t;
  using Sum = float;
  typedef int32_t Element __attribute__((aligned(2), may_alias));
  using Vec = Simd<float>::Vec;
  using Lanes = Simd<float>::Int;
  static constexpr int64_t kOfElement = 2;

  static int64_t elements(int64_t dim) { return (dim + kNumbers - 1) / kNumbers * kNumbers / 2; }

  static Element element(const In* row, int64_t step, int64_t index, int64_t dim) {
    const int64_t d = 2 * index;
    const uint32_t first = d < dim ? row[d * step] : 0, second = d + 1 < dim ? row[(d + 1) * step] : 0;
    return Element(first | second << 16);
  }

  static void copy(const In* row, int64_t step, int64_t dim, Element* out) {
    if (step == 1) {
      __builtin_memset(out, 0, elements(dim) * sizeof(Element));
      __builtin_memcpy(out, row, dim * sizeof(In));
    } else {
      for (int64_t i = 0; i < elements(dim); ++i) out[i] = element(row, step, i, dim);
    }
  }

  static bool in_place(int64_t step, int64_t dim) { return step == 1 && dim % kNumbers == 0; }

  static void accumulate(Vec& sum, Element key, const Lanes& queries) {
    add_pair_products(sum, queries, key - Lanes{});
  }
};

}  // namespace
}  // namespace dexar
