// Calls head_score on arrays of exactly their size, for every path of this CPU, so that sanitizers see a step
// too far.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/head_score.h"

// Memory is NaN until it is written.
extern "C" const char* __asan_default_options() { return "max_malloc_fill_size=100000000:malloc_fill_byte=255"; }

namespace {

using dexar::HeadScore;
using dexar::InstructionSet;
using dexar::Type;

struct Shape {
  int64_t queries, kv_heads, group, keys, dim;
};

template <class In, class Out>
void run(Type type, const Shape& s, InstructionSet instructions, int stride, bool masked, bool attended) {
  const int64_t heads = s.kv_heads * s.group, last_dim = (s.dim - 1) * stride + 1;
  std::vector<In> u((s.queries * heads - 1) * s.dim * stride + last_dim);
  std::vector<In> value((s.kv_heads * s.keys - 1) * s.dim * stride + last_dim);
  for (size_t i = 0; i < u.size(); ++i) u[i] = In(i % 5);
  for (size_t i = 0; i < value.size(); ++i) value[i] = In(i % 7);
  std::vector<int32_t> visual, text, first(s.queries, 0), last;
  for (int32_t j = 0; j < s.keys; ++j) ((masked ? j % 3 : j > s.keys / 3) ? visual : text).push_back(j);
  for (int64_t t = 0; t < s.queries; ++t) last.push_back(int32_t(s.keys - s.queries + t));
  std::vector<uint8_t> mask(masked ? s.queries * s.keys : 0, 1);
  const int64_t count = int64_t(visual.size());
  std::vector<Out> visual_score(s.queries * heads, -1), text_score = visual_score, smallest = visual_score;
  std::vector<Out> token_map(s.queries * count, 1), unfiltered = token_map;
  std::vector<int64_t> winner(s.queries * heads);

  HeadScore p{};
  p.type = type;
  p.queries = s.queries, p.heads = heads, p.kv_heads = s.kv_heads, p.keys = s.keys, p.dim = s.dim;
  p.u = u.data(), p.value = value.data();
  const int64_t u_stride[] = {heads * s.dim * stride, s.dim * stride, stride};
  const int64_t value_stride[] = {s.keys * s.dim * stride, s.dim * stride, stride};
  for (int i = 0; i < 3; ++i) p.u_stride[i] = u_stride[i], p.value_stride[i] = value_stride[i];
  p.visual = visual.data(), p.visual_count = count;
  const std::vector<Out> log_sum_exp(attended ? s.queries * heads : 0, 1);
  if (attended) {
    p.query = u.data(), p.key = value.data(), p.log_sum_exp = log_sum_exp.data(), p.scale = 0.01;
    for (int i = 0; i < 3; ++i) p.query_stride[i] = u_stride[i], p.key_stride[i] = value_stride[i];
  }
  p.text = text.data(), p.text_count = int64_t(text.size());
  p.first = first.data(), p.last = last.data();
  p.mask = masked ? mask.data() : nullptr, p.mask_stride = s.keys;
  p.visual_score = visual_score.data(), p.text_score = text_score.data(), p.text_winner = winner.data();
  p.smallest = smallest.data(), p.token_map = token_map.data(), p.unfiltered_map = unfiltered.data();
  dexar::head_score(p, instructions, 2);
  for (const auto& map : {token_map, unfiltered})
    for (const Out x : map)
      if (!(x >= 1)) std::puts("a map was not added to what was there"), std::exit(1);
}

}  // namespace

int main() {
  const Shape shapes[] = {
      {1, 1, 1, 1, 1}, {3, 2, 7, 63, 17}, {64, 1, 2, 25, 16}, {130, 3, 1, 50, 5}, {17, 1, 8, 24, 64}, {64, 1, 2, 61, 34}};
  for (const InstructionSet set : {InstructionSet::kPortable, InstructionSet::kAvx2, InstructionSet::kAvx512,
                                   InstructionSet::kAvx512Bf16, InstructionSet::kAmx})
    for (const Shape& shape : shapes)
      for (const int stride : {1, 2}) {
        if (!dexar::available(set)) continue;
        const bool masked = stride == 2, attended = shape.dim != 17;
        run<float, float>(Type::kFloat32, shape, set, stride, masked, attended);
        run<double, double>(Type::kFloat64, shape, set, stride, masked, attended);
        run<uint16_t, float>(Type::kBFloat16, shape, set, stride, masked, attended);
        run<uint16_t, float>(Type::kFloat16, shape, set, stride, masked, attended);
      }
}
