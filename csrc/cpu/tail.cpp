#include "cpu/tail.h"

#include <algorithm>

#include "cpu/tail_kernel.h"

namespace dexar {
namespace {

constexpr int64_t kPiece = 4096;  // elements of a row that a thread takes at a time

TailKernels kernels_of(InstructionSet instructions) {
  if (instructions >= InstructionSet::kAvx512) return avx512_tail();
  return instructions == InstructionSet::kAvx2 ? avx2_tail() : portable_tail();
}

int threads_for(int64_t elements, int threads) { return elements < kAlone ? 1 : threads; }

// Dense rows are one long row.
GatedVjp flattened(GatedVjp p) {
  if (p.grad_stride != p.width || p.gate_stride != p.width || p.up_stride != p.width) return p;
  p.width *= p.rows;
  p.rows = std::min<int64_t>(p.rows, 1);
  return p;
}

}  // namespace

bool norm_vjp(const NormVjp& p, InstructionSet instructions, int threads) {
  const NormRow norm = kernels_of(instructions).norm(p.x_type, p.grad_type);
  if (!norm) return false;
#pragma omp parallel for schedule(static) num_threads(threads_for(p.rows * p.width, threads))
  for (int64_t row = 0; row < p.rows; ++row) norm(p, row);
  return true;
}

void gated_vjp(const GatedVjp& given, InstructionSet instructions, int threads) {
  const GatedVjp p = flattened(given);
  const GatedPiece gated = kernels_of(instructions).gated(p.type, p.activation);
  const int64_t pieces = (p.width + kPiece - 1) / kPiece;
#pragma omp parallel for schedule(static) num_threads(threads_for(p.rows * p.width, threads))
  for (int64_t i = 0; i < p.rows * pieces; ++i) {
    const int64_t from = i % pieces * kPiece;
    gated(p, i / pieces, from, std::min(from + kPiece, p.width));
  }
}

}  // namespace dexar
