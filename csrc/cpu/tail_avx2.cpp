#include "cpu/tail_kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)

#pragma GCC target("avx2,fma")

namespace {
constexpr int kVectorBytes = 32;
}  // namespace

#include "cpu/tail_rows.h"

namespace dexar {
TailKernels avx2_tail() { return {norm_of, gated_of}; }
}  // namespace dexar

#else

namespace dexar {
TailKernels avx2_tail() { return {}; }
}  // namespace dexar

#endif
