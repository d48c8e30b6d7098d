// Calls norm_vjp and gated_vjp on arrays of exactly their size, for every path of this CPU, so that sanitizers see a
// step too far.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/tail.h"

namespace {

using dexar::Activation;
using dexar::InstructionSet;
using dexar::Type;

struct Shape {
  int64_t rows, width, room;  // room: elements from the end of a row to the next one

  int64_t stride() const { return width + room; }
  size_t size() const { return size_t((rows - 1) * stride() + width); }
};

template <class In>
std::vector<In> numbers(size_t size) {
  std::vector<In> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = In(i % 5 + 1);
  return values;
}

template <class Out>
void expect_written(const std::vector<Out>& results) {
  for (const Out x : results)
    if (x == Out(-1)) std::puts("a result was not written"), std::exit(1);
}

template <class X, class G, class T>
void norm(Type x_type, Type grad_type, const Shape& s, InstructionSet instructions, bool centred) {
  const std::vector<X> x = numbers<X>(s.size());
  const std::vector<G> grad = numbers<G>(s.size());
  const std::vector<T> scale = numbers<T>(s.width), residual = numbers<T>(centred ? s.size() : 0);
  std::vector<T> out(s.rows * s.width, T(-1));
  dexar::NormVjp p{};
  p.x_type = x_type, p.grad_type = grad_type;
  p.rows = s.rows, p.width = s.width;
  p.x = x.data(), p.x_stride = s.stride();
  p.grad = grad.data(), p.grad_stride = s.stride();
  p.scale = scale.data();
  p.residual = centred ? residual.data() : nullptr, p.residual_stride = s.stride();
  p.eps = 0.1, p.centred = centred;
  p.out = out.data();
  if (!dexar::norm_vjp(p, instructions, 2)) std::puts("there is no kernel"), std::exit(1);
  expect_written(out);
}

template <class In>
void gated(Type type, const Shape& s, InstructionSet instructions, Activation activation) {
  const std::vector<In> grad = numbers<In>(s.size()), gate = grad, up = grad;
  std::vector<In> grad_gate(s.rows * s.width, In(-1)), grad_up = grad_gate;
  dexar::GatedVjp p{};
  p.type = type, p.activation = activation;
  p.rows = s.rows, p.width = s.width;
  p.grad = grad.data(), p.gate = gate.data(), p.up = up.data();
  p.grad_stride = p.gate_stride = p.up_stride = s.stride();
  p.grad_gate = grad_gate.data(), p.grad_up = grad_up.data();
  dexar::gated_vjp(p, instructions, 2);
  expect_written(grad_gate);
  expect_written(grad_up);
}

}  // namespace

int main() {
  const Shape shapes[] = {{1, 1, 0}, {3, 63, 0}, {2, 64, 1}, {3, 65, 2}, {2, 500, 0}, {17, 4099, 0}, {17, 4099, 3}};
  for (const InstructionSet set : {InstructionSet::kPortable, InstructionSet::kAvx2, InstructionSet::kAvx512})
    for (const Shape& shape : shapes) {
      if (!dexar::available(set)) continue;
      for (const bool centred : {false, true}) {
        norm<float, float, float>(Type::kFloat32, Type::kFloat32, shape, set, centred);
        norm<double, double, double>(Type::kFloat64, Type::kFloat64, shape, set, centred);
        norm<uint16_t, uint16_t, float>(Type::kBFloat16, Type::kBFloat16, shape, set, centred);
        norm<uint16_t, float, float>(Type::kBFloat16, Type::kFloat32, shape, set, centred);
        norm<uint16_t, uint16_t, float>(Type::kFloat16, Type::kFloat16, shape, set, centred);
        norm<uint16_t, float, float>(Type::kFloat16, Type::kFloat32, shape, set, centred);
        const Activation activation = centred ? Activation::kSilu : Activation::kGeluTanh;
        gated<float>(Type::kFloat32, shape, set, activation);
        gated<double>(Type::kFloat64, shape, set, activation);
        gated<uint16_t>(Type::kBFloat16, shape, set, activation);
        gated<uint16_t>(Type::kFloat16, shape, set, activation);
      }
    }
}
