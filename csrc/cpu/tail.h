#pragma once

#include <cstdint>

#include "cpu/head_score.h"

namespace dexar {

/// residual + norm'(x)^T grad of C rows of d numbers, of norm(x) = scale y / sqrt(mean(y^2) + eps):
///
///   y = x, or x - mean(x) if centred    s = 1 / sqrt(mean(y^2) + eps)    v = scale grad
///   out = s (v - s y mean(s y v)) + residual, minus its own mean before the residual if centred
///
/// The sum type is double for kFloat64 and float for all others. NaN spoils its row alone.
struct NormVjp {
  Type x_type, grad_type;  // grad_type: that of x, or the sum type of x
  int64_t rows, width;     // C, d
  const void* x;           // [C, d]; strides are in elements from row to row, inside a row they are 1
  int64_t x_stride;
  const void* grad;  // [C, d]
  int64_t grad_stride;
  const void* scale;     // [d] of the sum type
  const void* residual;  // [C, d] of the sum type; nullptr: 0
  int64_t residual_stride;
  double eps;
  bool centred;
  void* out;  // [C, d] of the sum type, dense
};

enum class Activation { kSilu, kGeluTanh };

/// The gradients of z = act(g) * p in C rows of I numbers: d_gate = act'(g) p dz and d_up = act(g) dz, computed in the
/// sum type and rounded once.
struct GatedVjp {
  Type type;
  Activation activation;
  int64_t rows, width;  // C, I
  const void* grad;     // [C, I] dz; strides as above
  int64_t grad_stride;
  const void* gate;  // [C, I] g
  int64_t gate_stride;
  const void* up;  // [C, I] p
  int64_t up_stride;
  void* grad_gate;  // [C, I], dense, as is the other
  void* grad_up;
};

/// Below this many elements a call stays on the calling thread: the others would take longer to wake.
constexpr int64_t kAlone = 64 * 1024;

/// Each runs on at most `threads` threads; their number changes no bit. norm_vjp reads x, grad and scale twice, the
/// second time from the cache; all else is read and written once. False if there is no kernel for grad_type.
bool norm_vjp(const NormVjp& problem, InstructionSet instructions, int threads);
void gated_vjp(const GatedVjp& problem, InstructionSet instructions, int threads);

}  // namespace dexar
