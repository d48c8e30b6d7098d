namespace {
constexpr int kVectorBytes = 16;
}  // namespace

#include "cpu/tail_rows.h"

namespace dexar {
TailKernels portable_tail() { return {norm_of, gated_of}; }
}  // namespace dexar
