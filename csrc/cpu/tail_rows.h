// The kernels of norm_vjp and gated_vjp, compiled once for each instruction set: the including file sets kVectorBytes.
// Rows are taken in whole blocks of the sum type, read in place or copied.

#include "cpu/half.h"
#include "cpu/simd.h"
#include "cpu/tail_kernel.h"

namespace dexar {
namespace {

constexpr int64_t kBlock = 64;

template <class T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

// `count` numbers as T, and `rest` behind them.
template <class In, class T>
const T* copied(const In* from, int64_t count, T rest, T* copy) {
  if (count == kBlock)
    for (int64_t k = 0; k < kBlock; ++k) copy[k] = widen(from[k]);
  else
    for (int64_t k = 0; k < kBlock; ++k) copy[k] = k < count ? widen(from[k]) : rest;
  return copy;
}

template <class In, class T>
const T* block(const In* from, int64_t count, T rest, T* copy) {
  return copied(from, count, rest, copy);
}

template <class T>
const T* block(const T* from, int64_t count, T rest, T* copy) {
  return count == kBlock ? from : copied(from, count, rest, copy);
}

inline void narrow(float x, float& out) { out = x; }
inline void narrow(double x, double& out) { out = x; }

// Rounds to nearest, ties to even, as those below do. NaN stays: no arithmetic sets its last bits.
inline void narrow(float x, BFloat16& out) {
  const uint32_t bits = to_bits(x);
  out.bits = uint16_t((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

// Numbers below the normal ones are rounded by a sum: the last bit of 0.5 is worth as much as theirs.
inline void narrow(float x, Float16& out) {
  const uint32_t bits = to_bits(x), magnitude = bits & 0x7FFFFFFFu;
  const uint32_t subnormal = to_bits(from_bits(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t number = finite < 0x7C00u ? finite : 0x7C00u;
  out.bits = uint16_t((x != x ? 0x7E00u : number) | (bits >> 16 & 0x8000u));
}

template <class T, class Out>
void write(const T* block, int64_t count, Out* to) {
  if (count == kBlock)
    for (int64_t k = 0; k < kBlock; ++k) narrow(block[k], to[k]);
  else
    for (int64_t k = 0; k < count; ++k) narrow(block[k], to[k]);
}

inline int64_t block_size(int64_t left) { return left < kBlock ? left : kBlock; }

// An array [rows, width] from one of its rows on.
template <class T>
const T* row_of(const void* data, int64_t row, int64_t stride) {
  return static_cast<const T*>(data) + row * stride;
}

template <class T>
T sum_of(typename Simd<T>::Vec lanes) {
  T sum = 0;
  for (int64_t i = 0; i < kLanes<T>; ++i) sum += lanes[i];
  return sum;
}

template <class X, class G, class T>
class NormOfRow {
  using Vec = typename Simd<T>::Vec;

 public:
  NormOfRow(const NormVjp& problem, int64_t row)
      : p_(problem),
        x_(row_of<X>(problem.x, row, problem.x_stride)),
        grad_(row_of<G>(problem.grad, row, problem.grad_stride)),
        scale_(static_cast<const T*>(problem.scale)),
        residual_(problem.residual ? row_of<T>(problem.residual, row, problem.residual_stride) : nullptr),
        out_(static_cast<T*>(problem.out) + row * problem.width) {}

  void run() {
    const T width = T(p_.width);
    mean_ = p_.centred ? sum_of_x() / width : T(0);
    Vec squares{}, products{}, sum{};
    for (int64_t d = 0; d < p_.width; d += kBlock) {
      read(d);
      for (int64_t k = 0; k < kBlock; k += kLanes<T>) {
        const Vec y = centred(k), v = scaled(k);
        squares += y * y;
        products += y * v;
        sum += v;
      }
    }
    const T inverse = 1 / T(__builtin_sqrt(sum_of<T>(squares) / width + T(p_.eps)));
    const T along = sum_of<T>(products) / width * inverse * inverse;
    const T offset = p_.centred ? sum_of<T>(sum) / width : T(0);
    for (int64_t d = 0; d < p_.width; d += kBlock) write_block(d, inverse, along, offset);
  }

 private:
  T sum_of_x() {
    Vec sum{};
    for (int64_t d = 0; d < p_.width; d += kBlock) {
      const T* x = block(x_ + d, block_size(p_.width - d), T(0), copies_[0]);
      for (int64_t k = 0; k < kBlock; k += kLanes<T>) sum += vector(x + k);
    }
    return sum_of<T>(sum);
  }

  // A block from column d on; behind the last column y and v are 0.
  void read(int64_t d) {
    const int64_t count = block_size(p_.width - d);
    x_block_ = block(x_ + d, count, mean_, copies_[0]);
    grad_block_ = block(grad_ + d, count, T(0), copies_[1]);
    scale_block_ = block(scale_ + d, count, T(0), copies_[2]);
  }

  Vec centred(int64_t k) const { return vector(x_block_ + k) - mean_; }
  Vec scaled(int64_t k) const { return vector(grad_block_ + k) * vector(scale_block_ + k); }

  void write_block(int64_t d, T inverse, T along, T offset) {
    alignas(64) T found[kBlock], copy[kBlock];
    const int64_t count = block_size(p_.width - d);
    read(d);
    const T* residual = residual_ ? block(residual_ + d, count, T(0), copy) : nullptr;
    for (int64_t k = 0; k < kBlock; k += kLanes<T>) {
      const Vec gradient = (scaled(k) - offset - centred(k) * along) * inverse;
      vector(found + k) = residual ? gradient + vector(residual + k) : gradient;
    }
    write(found, count, out_ + d);
  }

  const NormVjp& p_;
  const X* x_;
  const G* grad_;
  const T *scale_, *residual_;
  T* out_;
  T mean_;
  const T *x_block_, *grad_block_, *scale_block_;
  alignas(64) T copies_[3][kBlock];
};

template <class X, class G, class T>
void norm_row(const NormVjp& problem, int64_t row) {
  NormOfRow<X, G, T>(problem, row).run();
}

NormRow norm_of(Type x, Type grad) {
  const bool alike = x == grad, summed = grad == Type::kFloat32;
  switch (x) {
    case Type::kFloat32:
      return alike ? norm_row<float, float, float> : nullptr;
    case Type::kFloat64:
      return alike ? norm_row<double, double, double> : nullptr;
    case Type::kBFloat16:
      return alike ? norm_row<BFloat16, BFloat16, float> : summed ? norm_row<BFloat16, float, float> : nullptr;
    default:
      return alike ? norm_row<Float16, Float16, float> : summed ? norm_row<Float16, float, float> : nullptr;
  }
}

// 1 / (1 + e^-z), by an exponential that is at most 1.
template <class T>
typename Simd<T>::Vec logistic(typename Simd<T>::Vec z) {
  const auto power = exponential<T>(z < 0 ? z : -z), larger = 1 / (1 + power);
  return z < 0 ? power * larger : larger;
}

// An activation and its derivative.
template <class T>
struct Silu {
  using Vec = typename Simd<T>::Vec;
  explicit Silu(Vec x) {
    const Vec s = logistic<T>(x);
    value = x * s;
    slope = s + value * (1 - s);
  }
  Vec value, slope;
};

// x / 2 (1 + tanh(z / 2)) with z = 2 sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + e^-z). Beyond +-32
// 1 / (1 + e^-z) is as good as 0 or 1, and x^3 need not be finite.
template <class T>
struct GeluTanh {
  using Vec = typename Simd<T>::Vec;
  static constexpr T kLinear = T(1.5957691216057308), kCubic = kLinear * T(0.044715), kLimit = 32;
  explicit GeluTanh(Vec x) {
    const Vec below = x > kLimit ? Vec{} + kLimit : x;
    const Vec near = below < -kLimit ? Vec{} - kLimit : below;
    const Vec square = near * near;
    const Vec s = logistic<T>(near * (kLinear + kCubic * square));
    value = x * s;
    slope = s + value * (1 - s) * (kLinear + 3 * kCubic * square);
  }
  Vec value, slope;
};

template <class In, class T, template <class> class Act>
void gated_piece(const GatedVjp& p, int64_t row, int64_t from, int64_t to) {
  const In* grad = row_of<In>(p.grad, row, p.grad_stride);
  const In* gate = row_of<In>(p.gate, row, p.gate_stride);
  const In* up = row_of<In>(p.up, row, p.up_stride);
  In* grad_gate = static_cast<In*>(p.grad_gate) + row * p.width;
  In* grad_up = static_cast<In*>(p.grad_up) + row * p.width;
  alignas(64) T copies[3][kBlock], found[2][kBlock];
  for (int64_t i = from; i < to; i += kBlock) {
    const int64_t count = block_size(to - i);
    const T* dz = block(grad + i, count, T(0), copies[0]);
    const T* g = block(gate + i, count, T(0), copies[1]);
    const T* q = block(up + i, count, T(0), copies[2]);
    for (int64_t k = 0; k < kBlock; k += kLanes<T>) {
      const Act<T> act(vector(g + k));
      vector(found[0] + k) = act.slope * (vector(q + k) * vector(dz + k));
      vector(found[1] + k) = act.value * vector(dz + k);
    }
    write(found[0], count, grad_gate + i);
    write(found[1], count, grad_up + i);
  }
}

template <template <class> class Act>
GatedPiece gated_by(Type type) {
  switch (type) {
    case Type::kFloat32:
      return gated_piece<float, float, Act>;
    case Type::kFloat64:
      return gated_piece<double, double, Act>;
    case Type::kBFloat16:
      return gated_piece<BFloat16, float, Act>;
    default:
      return gated_piece<Float16, float, Act>;
  }
}

GatedPiece gated_of(Type type, Activation activation) {
  return activation == Activation::kSilu ? gated_by<Silu>(type) : gated_by<GeluTanh>(type);
}

}  // namespace
}  // namespace dexar
