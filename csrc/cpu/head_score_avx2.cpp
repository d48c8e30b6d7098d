#include "cpu/head_score_kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)

#pragma GCC target("avx2,fma")

namespace {
constexpr int kVectorBytes = 32;
constexpr int kAccumulators = 12;
}  // namespace

#include "cpu/head_score_types.h"

namespace dexar {
ScoreBlock avx2_kernel(Type type) { return kernel_of(type); }
}  // namespace dexar

#else

namespace dexar {
ScoreBlock avx2_kernel(Type) { return nullptr; }
}  // namespace dexar

#endif
