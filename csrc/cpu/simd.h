// Vectors of the instruction set that the including file compiles for, of its kVectorBytes. Includes nothing of the
// standard library but integers: the linker might keep the copy of an inline function that is compiled here, for a
// newer CPU, for all.
#pragma once

#include <cstdint>

namespace dexar {
namespace {

template <class T>
struct Simd;

template <>
struct Simd<float> {
  using Lane = int32_t;
  // exponential: its range, terms of its series, and 1.5 times 2 to the number of stored fraction bits.
  static constexpr float kLowest = -87, kHighest = 88, kShift = 0x1.8p23f, kLn2 = 0x1.62ep-1f;
  static constexpr float kLn2Rest = 0x1.0bfbe8p-15f;
  static constexpr int kTerms = 7, kFraction = 23;
  typedef float Vec __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t Int __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};

template <>
struct Simd<double> {
  using Lane = int64_t;
  static constexpr double kLowest = -708, kHighest = 709, kShift = 0x1.8p52, kLn2 = 0x1.62e42fefap-1;
  static constexpr double kLn2Rest = 0x1.cf79abc9e3b3ap-40;
  static constexpr int kTerms = 13, kFraction = 52;
  typedef double Vec __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t Int __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};

// The vector that begins at an element.
template <class T>
typename Simd<T>::Vec& vector(T* p) {
  return *reinterpret_cast<typename Simd<T>::Vec*>(p);
}

template <class T>
const typename Simd<T>::Vec& vector(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::Vec*>(p);
}

// e^x: 2^n e^r with n the nearest whole number to x / ln 2 and e^r by its series. 0 below kLowest, where results
// are no longer normal, infinity above kHighest; NaN stays.
template <class T>
typename Simd<T>::Vec exponential(typename Simd<T>::Vec x) {
  using S = Simd<T>;
  using Vec = typename S::Vec;
  using Int = typename S::Int;
  const Vec shifted = x * T(0x1.71547652b82fep+0) + S::kShift;  // n in its last bits
  const Vec n = shifted - S::kShift;
  const Vec r = (x - n * S::kLn2) - n * S::kLn2Rest;
  Vec sum = Vec{} + 1;
#pragma GCC unroll 16
  for (int k = S::kTerms; k > 0; --k) sum = sum * (r * (T(1) / T(k))) + 1;
  const Vec power = (Vec)((Int)sum + ((Int)shifted << S::kFraction));
  const Vec normal = x < S::kLowest ? Vec{} : x > S::kHighest ? Vec{} + T(__builtin_inf()) : power;
  return x != x ? x : normal;
}

}  // namespace
}  // namespace dexar
