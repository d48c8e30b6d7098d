// Compiled twice: with VDPBF16PS and with its emulation (compare.cpp).
#include <cstdint>

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace {
constexpr int kVectorBytes = 64;
}

#include "cpu/bf16_instructions.h"

void NAME(float* sum, const int32_t* queries, const int32_t* keys) {
  using Lanes = dexar::Simd<float>;
  dexar::add_pair_products(*reinterpret_cast<Lanes::Vec*>(sum), *reinterpret_cast<const Lanes::Int*>(queries),
                           *reinterpret_cast<const Lanes::Int*>(keys));
}
