#pragma once

#include "cpu/tail.h"

namespace dexar {

using NormRow = void (*)(const NormVjp&, int64_t row);
using GatedPiece = void (*)(const GatedVjp&, int64_t row, int64_t from, int64_t to);  // columns; without `to`

/// What one instruction set has: the function for some types, nullptr where there is none.
struct TailKernels {
  NormRow (*norm)(Type x, Type grad);
  GatedPiece (*gated)(Type type, Activation activation);
};

TailKernels portable_tail();
TailKernels avx2_tail();    // nothing where it was not compiled
TailKernels avx512_tail();  // likewise

}  // namespace dexar
