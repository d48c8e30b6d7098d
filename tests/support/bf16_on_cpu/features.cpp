// In place of csrc/cpu/features.cpp: a CPU that has the instructions of cpu/bf16_instructions.h beside its own.
#include "cpu/features.h"

namespace dexar {

bool spoiled_pairs = false, spoiled_tiles = false;

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = [] {
    CpuFeatures f;
    f.avx2 = __builtin_cpu_supports("avx2"), f.fma = __builtin_cpu_supports("fma");
    f.avx512f = __builtin_cpu_supports("avx512f"), f.avx512bw = __builtin_cpu_supports("avx512bw");
    f.avx512vl = __builtin_cpu_supports("avx512vl"), f.avx512dq = __builtin_cpu_supports("avx512dq");
    f.avx512bf16 = f.amx_tile = f.amx_bf16 = true;
    return f;
  }();
  return features;
}

}  // namespace dexar
