#include "cpu/head_score.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "cpu/features.h"
#include "cpu/head_score_kernel.h"

namespace dexar {
namespace {

constexpr int64_t kPartials =
    8;  // of a map, over slots and blocks: what few blocks leave idle, slots of heads take
constexpr int64_t kAlignment = 64;
constexpr int64_t kKeysAtOnce = 16;  // of a map that is collected: a cache line of float

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How the work is cut: blocks of queries times slots of heads. It must not depend on the number of threads,
// because the maps of the slots are summed separately.
struct Grid {
  explicit Grid(const HeadScore& p)
      : p(p),
        blocks(ceil_div(p.queries, kQueries)),
        slots(std::max<int64_t>(1, std::min(p.heads, kPartials / std::max<int64_t>(1, blocks)))),
        width(std::min(kQueries, ceil_div(p.queries, kWidth) * kWidth)) {}

  Block block(int64_t index, int64_t slot) const {
    const int64_t first = index * kQueries, queries = std::min(kQueries, p.queries - first);
    return {first, queries, ceil_div(queries, kWidth) * kWidth, slot * p.heads / slots,
            (slot + 1) * p.heads / slots};
  }

  const HeadScore& p;
  int64_t blocks, slots, width;
};

// Uninitialised memory for arrays that each begin at a multiple of 64 bytes.
class Arena {
 public:
  Arena(int64_t arrays, int64_t bytes)
      : stride_(ceil_div(bytes, kAlignment) * kAlignment),
        data_(static_cast<std::byte*>(::operator new(arrays * stride_, std::align_val_t{kAlignment}))) {}
  Arena(const Arena&) = delete;
  ~Arena() { ::operator delete(data_, std::align_val_t{kAlignment}); }

  std::byte* operator[](int64_t array) const { return data_ + array * stride_; }

 private:
  int64_t stride_;
  std::byte* data_;
};

int thread_number() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// out[t, n] += sum over slots of partial[n, t], for `size` keys from n on.
template <class T>
void collect(const Grid& grid, const Arena& partials, int64_t index, int64_t n, int64_t size, void* out) {
  const Block block = grid.block(index, 0);
  const int64_t count = grid.p.visual_count;
  T sum[kKeysAtOnce * kQueries] = {};
  for (int64_t slot = 0; slot < grid.slots; ++slot) {
    const T* partial = reinterpret_cast<const T*>(partials[index * grid.slots + slot]) + n * block.width;
    for (int64_t i = 0; i < size * block.width; ++i) sum[i] += partial[i];
  }
  T* row = static_cast<T*>(out) + block.first * count + n;
  for (int64_t i = 0; i < block.queries; ++i)
    for (int64_t k = 0; k < size; ++k) row[i * count + k] += sum[k * block.width + i];
}

ScoreBlock kernel_of(Type type, InstructionSet instructions) {
  switch (instructions) {
    case InstructionSet::kAmx:
      return type == Type::kBFloat16 ? amx_kernel() : avx512_kernel(type);
    case InstructionSet::kAvx512Bf16:
      return type == Type::kBFloat16 ? avx512_bf16_kernel() : avx512_kernel(type);
    case InstructionSet::kAvx512:
      return avx512_kernel(type);
    case InstructionSet::kAvx2:
      return avx2_kernel(type);
    default:
      return portable_kernel(type);
  }
}

}  // namespace

bool available(InstructionSet instructions) {
  const CpuFeatures& f = cpu_features();
  const bool avx512 = f.avx512f && f.avx512bw && f.avx512vl && f.avx512dq && f.fma;
  switch (instructions) {
    case InstructionSet::kAmx:
      return avx512 && f.amx_tile && f.amx_bf16 && amx_kernel();
    case InstructionSet::kAvx512Bf16:
      return avx512 && f.avx512bf16 && avx512_bf16_kernel();
    case InstructionSet::kAvx512:
      return avx512;
    case InstructionSet::kAvx2:
      return f.avx2 && f.fma;
    default:
      return true;
  }
}

void head_score(const HeadScore& p, InstructionSet instructions, int threads) {
  const Grid grid(p);
  const int64_t element = p.type == Type::kFloat64 ? sizeof(double) : sizeof(float);
  const int64_t tasks = grid.blocks * grid.slots, map = p.visual_count * grid.width * element;
  const Arena filtered(tasks, map), unfiltered(tasks, map), gradients(threads, map);
  const int64_t operands = p.query ? 2 : 1;  // of a product: u and V, q and k
  const int64_t dim = ceil_div(p.dim, kWidth) * kWidth;  // pairs of 16 bits are filled up to 32 of them
  const Arena queries(threads * operands, grid.width * dim * element);
  const Arena rows(threads * operands, kTile * dim * element);
  const ScoreBlock score = kernel_of(p.type, instructions);
  const auto collected = p.type == Type::kFloat64 ? collect<double> : collect<float>;
  const int64_t pieces = ceil_div(p.visual_count, kKeysAtOnce);

#pragma omp parallel num_threads(threads)
  {
    const int64_t mine = thread_number();
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task)
      score(p, grid.block(task / grid.slots, task % grid.slots),
            {queries[mine], queries[mine + (operands - 1) * threads], rows[mine],
             rows[mine + (operands - 1) * threads], gradients[mine], filtered[task], unfiltered[task]});
#pragma omp for schedule(static)
    for (int64_t piece = 0; piece < grid.blocks * pieces; ++piece) {
      const int64_t n = piece % pieces * kKeysAtOnce, size = std::min(kKeysAtOnce, p.visual_count - n);
      collected(grid, filtered, piece / pieces, n, size, p.token_map);
      collected(grid, unfiltered, piece / pieces, n, size, p.unfiltered_map);
    }
  }
}

}  // namespace dexar
