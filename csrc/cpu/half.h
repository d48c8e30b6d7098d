// Numbers of half precision, as floats.
#pragma once

#include <cstdint>

namespace dexar {
namespace {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

float from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

uint32_t to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(BFloat16 x) { return from_bits(uint32_t{x.bits} << 16); }

// The exponent moves from a bias of 15 to one of 127 by a product, which is exact and normalises subnormal
// numbers.
inline float widen(Float16 x) {
  const float magnitude = from_bits((x.bits & 0x7FFFu) << 13) * 0x1p112f;
  const uint32_t special = (x.bits & 0x7C00u) == 0x7C00u ? 0x7F800000u : 0u;
  return from_bits(to_bits(magnitude) | special | (x.bits & 0x8000u) << 16);
}

}  // namespace
}  // namespace dexar
