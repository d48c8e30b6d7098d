#include "cpu/head_score_kernel.h"

// The assemblers of older compilers may lack the instruction.
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 11

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace {
constexpr int kVectorBytes = 64;
constexpr int kAccumulators = 24;
}  // namespace

#include "cpu/head_score_pairs.h"

namespace dexar {
ScoreBlock avx512_bf16_kernel() { return score_block<LaneProduct<Pair<2>>>; }
}  // namespace dexar

#else

namespace dexar {
ScoreBlock avx512_bf16_kernel() { return nullptr; }
}  // namespace dexar

#endif
