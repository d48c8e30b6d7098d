#include "tail_binding.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "cpu/tail.h"
#include "names.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;
using Rows = std::pair<Address, int64_t>;  // data, and its stride from row to row in elements

constexpr std::array<std::pair<const char*, dexar::Activation>, 2> kActivations{
    {{"silu", dexar::Activation::kSilu}, {"gelu_tanh", dexar::Activation::kGeluTanh}}};

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

void check(const std::pair<int64_t, int64_t>& shape, int threads) {
  if (threads < 1) throw std::invalid_argument("the layer tail needs a thread");
  if (std::min(shape.first, shape.second) < 0)
    throw std::invalid_argument("the layer tail takes sizes of 0 and more");
}

void norm_vjp(const std::pair<std::string, std::string>& types, const std::pair<int64_t, int64_t>& shape,
              const Rows& x, const Rows& grad, Address scale, const Rows& residual, double eps, bool centred,
              Address out, const std::string& instructions, int threads) {
  check(shape, threads);
  dexar::NormVjp p{};
  p.x_type = type_named(types.first), p.grad_type = type_named(types.second);
  p.rows = shape.first, p.width = shape.second;
  p.x = at<void>(x.first), p.x_stride = x.second;
  p.grad = at<void>(grad.first), p.grad_stride = grad.second;
  p.scale = at<void>(scale);
  p.residual = at<void>(residual.first), p.residual_stride = residual.second;
  p.eps = eps, p.centred = centred;
  p.out = at<void>(out);
  const dexar::InstructionSet chosen = usable(instructions);
  py::gil_scoped_release release;
  if (!dexar::norm_vjp(p, chosen, threads))
    throw std::invalid_argument("norm_vjp has no kernel for x of " + types.first + " and grad of " +
                                types.second);
}

void gated_vjp(const std::string& type, const std::string& activation,
               const std::pair<int64_t, int64_t>& shape, const Rows& grad, const Rows& gate, const Rows& up,
               const std::pair<Address, Address>& outputs, const std::string& instructions, int threads) {
  check(shape, threads);
  dexar::GatedVjp p{};
  p.type = type_named(type), p.activation = named(kActivations, activation);
  p.rows = shape.first, p.width = shape.second;
  p.grad = at<void>(grad.first), p.grad_stride = grad.second;
  p.gate = at<void>(gate.first), p.gate_stride = gate.second;
  p.up = at<void>(up.first), p.up_stride = up.second;
  p.grad_gate = at<void>(outputs.first), p.grad_up = at<void>(outputs.second);
  const dexar::InstructionSet chosen = usable(instructions);
  py::gil_scoped_release release;
  dexar::gated_vjp(p, chosen, threads);
}

}  // namespace

void bind_tail(py::module_& m) {
  m.def("norm_vjp", &norm_vjp, py::arg("types"), py::arg("shape"), py::arg("x"), py::arg("grad"),
        py::arg("scale"), py::arg("residual"), py::arg("eps"), py::arg("centred"), py::arg("out"),
        py::arg("instructions"), py::arg("threads"),
        "csrc/cpu/tail.h: norm_vjp, over the memory at the given addresses, which nothing here can check");
  m.def("gated_vjp", &gated_vjp, py::arg("type"), py::arg("activation"), py::arg("shape"), py::arg("grad"),
        py::arg("gate"), py::arg("up"), py::arg("outputs"), py::arg("instructions"), py::arg("threads"),
        "csrc/cpu/tail.h: gated_vjp, likewise");
}
