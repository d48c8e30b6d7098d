#include "cpu/head_score_kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace {
constexpr int kVectorBytes = 64;
constexpr int kAccumulators = 24;
}  // namespace

#include "cpu/head_score_types.h"

namespace dexar {
ScoreBlock avx512_kernel(Type type) { return kernel_of(type); }
}  // namespace dexar

#else

namespace dexar {
ScoreBlock avx512_kernel(Type) { return nullptr; }
}  // namespace dexar

#endif
