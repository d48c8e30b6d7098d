#include "head_score_binding.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/head_score.h"
#include "names.h"

namespace py = pybind11;

namespace {

using dexar::InstructionSet;
using dexar::Type;
using Address = std::uintptr_t;
using Strided = std::pair<Address, std::array<int64_t, 3>>;  // data, strides in elements
using List = std::pair<Address, int64_t>;                    // data, and its length or stride
using Attention = std::tuple<Strided, Strided, Address, double>;  // query, key, log_sum_exp, scale

constexpr std::array<std::pair<const char*, Type>, 4> kTypes{{{"float32", Type::kFloat32},
                                                              {"float64", Type::kFloat64},
                                                              {"bfloat16", Type::kBFloat16},
                                                              {"float16", Type::kFloat16}}};
constexpr std::array<std::pair<const char*, InstructionSet>, 5> kInstructionSets{
    {{"portable", InstructionSet::kPortable},
     {"avx2", InstructionSet::kAvx2},
     {"avx512", InstructionSet::kAvx512},
     {"avx512_bf16", InstructionSet::kAvx512Bf16},
     {"amx", InstructionSet::kAmx}}};

void check_positions(const List& positions, int64_t keys) {
  const int32_t* first = reinterpret_cast<const int32_t*>(positions.first);
  if (std::any_of(first, first + positions.second, [=](int32_t p) { return p < 0 || p >= keys; }))
    throw std::out_of_range("positions of keys must be one list from 0 to " + std::to_string(keys - 1));
}

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

void head_score(const std::string& type, const std::array<int64_t, 5>& shape, const Strided& u,
                const Strided& value, const List& visual, const List& text,
                const std::pair<Address, Address>& bounds, const List& mask, const Attention& attention,
                const std::array<Address, 4>& scores, const std::pair<Address, Address>& maps,
                const std::string& instructions, int threads) {
  if (threads < 1) throw std::invalid_argument("head_score needs a thread");
  const auto [queries, heads, kv_heads, keys, dim] = shape;
  const int64_t smallest = std::min({queries, heads, keys, dim, visual.second, text.second});
  if (smallest < 0 || kv_heads < 1 || heads % kv_heads != 0)
    throw std::invalid_argument("head_score takes sizes of 0 and more, and a multiple of kv_heads as heads");
  check_positions(visual, keys);
  check_positions(text, keys);
  dexar::HeadScore p{};
  p.type = type_named(type);
  p.queries = queries, p.heads = heads, p.kv_heads = kv_heads, p.keys = keys, p.dim = dim;
  p.u = at<void>(u.first), p.value = at<void>(value.first);
  for (int i = 0; i < 3; ++i) p.u_stride[i] = u.second[i], p.value_stride[i] = value.second[i];
  p.visual = at<int32_t>(visual.first), p.visual_count = visual.second;
  p.text = at<int32_t>(text.first), p.text_count = text.second;
  p.first = at<int32_t>(bounds.first), p.last = at<int32_t>(bounds.second);
  p.mask = at<uint8_t>(mask.first), p.mask_stride = mask.second;
  const auto& [query, key, log_sum_exp, scale] = attention;
  p.query = at<void>(query.first), p.key = at<void>(key.first);
  for (int i = 0; i < 3; ++i) p.query_stride[i] = query.second[i], p.key_stride[i] = key.second[i];
  p.log_sum_exp = at<void>(log_sum_exp), p.scale = scale;
  p.visual_score = at<void>(scores[0]), p.text_score = at<void>(scores[1]);
  p.text_winner = at<int64_t>(scores[2]), p.smallest = at<void>(scores[3]);
  p.token_map = at<void>(maps.first), p.unfiltered_map = at<void>(maps.second);
  const InstructionSet chosen = usable(instructions);
  py::gil_scoped_release release;
  dexar::head_score(p, chosen, threads);
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const auto& [name, value] : kInstructionSets)
    if (dexar::available(value)) names.emplace_back(name);
  return names;
}

}  // namespace

dexar::Type type_named(const std::string& name) { return named(kTypes, name); }

dexar::InstructionSet usable(const std::string& name) {
  const InstructionSet asked = named(kInstructionSets, name);
  if (!dexar::available(asked)) throw std::invalid_argument("this CPU, or this build, has no " + name);
  return asked;
}

void bind_head_score(py::module_& m) {
  m.def("head_score", &head_score, py::arg("type"), py::arg("shape"), py::arg("u"), py::arg("value"),
        py::arg("visual"), py::arg("text"), py::arg("bounds"), py::arg("mask"), py::arg("attention"),
        py::arg("scores"), py::arg("maps"), py::arg("instructions"), py::arg("threads"),
        "csrc/cpu/head_score.h: head_score, over the memory at the given addresses, which nothing here can "
        "check; IndexError for positions of keys that are none");
  m.def("instruction_sets", &instruction_sets, "Those available here by csrc/cpu/head_score.h, slowest first");
}
