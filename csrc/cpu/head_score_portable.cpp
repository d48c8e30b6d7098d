namespace {
constexpr int kVectorBytes = 16;
constexpr int kAccumulators = 12;
}  // namespace

#include "cpu/head_score_types.h"

namespace dexar {
ScoreBlock portable_kernel(Type type) { return kernel_of(type); }
}  // namespace dexar
