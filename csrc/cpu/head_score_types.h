// head_score for every type in vectors of the including file's kVectorBytes: each number is converted, and
// multiplied in the type of the sums.
#pragma once

#include "cpu/half.h"
#include "cpu/head_score_lanes.h"

namespace dexar {
namespace {

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

// A Feature of LaneProduct: each number by itself.
template <class Input, class T>
struct Single {
  using In = Input;
  using Sum = T;
  using Element = T;
  using Vec = typename Simd<T>::Vec;
  using Lanes = Vec;
  static constexpr int64_t kOfElement = 1;

  static int64_t elements(int64_t dim) { return dim; }

  static T element(const In* row, int64_t step, int64_t index, int64_t) { return widen(row[index * step]); }

  static void copy(const In* row, int64_t step, int64_t dim, T* out) {
    if (step == 1)
      for (int64_t d = 0; d < dim; ++d) out[d] = widen(row[d]);
    else
      for (int64_t d = 0; d < dim; ++d) out[d] = widen(row[d * step]);
  }

  static bool in_place(int64_t step, int64_t) { return kSame<In, T> && step == 1; }

  static void accumulate(Vec& sum, T key, const Vec& queries) { sum += (key - Vec{}) * queries; }
};

ScoreBlock kernel_of(Type type) {
  switch (type) {
    case Type::kFloat32:
      return score_block<LaneProduct<Single<float, float>>>;
    case Type::kFloat64:
      return score_block<LaneProduct<Single<double, double>>>;
    case Type::kBFloat16:
      return score_block<LaneProduct<Single<BFloat16, float>>>;
    default:
      return score_block<LaneProduct<Single<Float16, float>>>;
  }
}

}  // namespace
}  // namespace dexar
