#include "cpu/tail_kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace {
constexpr int kVectorBytes = 64;
}  // namespace

#include "cpu/tail_rows.h"

namespace dexar {
TailKernels avx512_tail() { return {norm_of, gated_of}; }
}  // namespace dexar

#else

namespace dexar {
TailKernels avx512_tail() { return {}; }
}  // namespace dexar

#endif
