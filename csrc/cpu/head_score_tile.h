// The kernel of head_score, compiled once for each instruction set: the including file sets kVectorBytes and
// kAccumulators. Queries lie in the lanes of vectors, so that keys, at any stride, are read where they are
// and broadcast, and maxima over keys are vertical. Includes nothing of the standard library: an inline
// function of it, compiled here for a newer CPU, could be the copy that the linker keeps for all.

#include "cpu/head_score_kernel.h"
#include "cpu/simd.h"

namespace dexar {
namespace {

// The score of a set of keys for a block of queries, updated key by key.
template <class T>
struct Scores {
  alignas(64) T largest[kQueries];
  alignas(64) T smallest[kQueries];
  alignas(64) typename Simd<T>::Lane winner[kQueries];
};

// product[k][v] = <rows[k], vector v of u [D, kVectors]>, summed over d in ascending order; fetches `next`
// meanwhile. A function of its own, so that its sums and pointers have all registers.
template <class T, class In, int kVectors, int kKeys>
__attribute__((noinline)) void multiply(const T* u, const T* const* rows, const In* const* next, int64_t dim,
                                        typename Simd<T>::Vec (&product)[kKeys][kVectors]) {
  using Vec = typename Simd<T>::Vec;
  constexpr int64_t kLine = 64 / sizeof(In);
  Vec sum[kKeys][kVectors] = {};
  const T* row[kKeys];
  for (int k = 0; k < kKeys; ++k) row[k] = rows[k];
  for (int64_t line = 0; line < dim; line += kLine) {
    const int64_t end = dim - line < kLine ? dim : line + kLine;
    for (int k = 0; k < kKeys; ++k) __builtin_prefetch(next[k] + line);
    for (int64_t d = line; d < end; ++d) {
      const Vec* query = reinterpret_cast<const Vec*>(u) + d * kVectors;
#pragma GCC unroll 8
      for (int k = 0; k < kKeys; ++k) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[k][v] += (row[k][d] - Vec{}) * query[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kKeys; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) product[k][v] = sum[k][v];
  }
}

template <class In, class T, bool kAttended>
class BlockScorer {
  using Vec = typename Simd<T>::Vec;
  using Int = typename Simd<T>::Int;
  using Lane = typename Simd<T>::Lane;
  static constexpr int64_t kLanes = kVectorBytes / sizeof(T);

 public:
  BlockScorer(const HeadScore& problem, const Block& block, const Buffers& buffers)
      : p_(problem),
        b_(block),
        u_(static_cast<T*>(buffers.u)),
        query_(static_cast<T*>(buffers.query)),
        value_rows_(static_cast<T*>(buffers.value_rows)),
        key_rows_(static_cast<T*>(buffers.key_rows)),
        gradients_(static_cast<T*>(buffers.gradients)),
        filtered_(static_cast<T*>(buffers.filtered)),
        unfiltered_(static_cast<T*>(buffers.unfiltered)) {
    for (int64_t i = 0; i < b_.width; ++i) {
      const int64_t t = b_.first + (i < b_.queries ? i : 0);
      first_[i] = p_.first[t];
      last_[i] = p_.last[t];
      if (first_[i] > all_from_) all_from_ = first_[i];
      if (last_[i] < all_to_) all_to_ = last_[i];
    }
  }

  void run() {
    for (int64_t i = 0; i < p_.visual_count * b_.width; ++i) filtered_[i] = unfiltered_[i] = 0;
    for (int64_t head = b_.first_head; head < b_.last_head; ++head) {
      pack(p_.u, p_.u_stride, head, u_);
      if (kAttended) pack_attention(head);
      score<false>(head, p_.text, p_.text_count, text_);
      score<true>(head, p_.visual, p_.visual_count, visual_);
      write_scores(head);
      aggregate();
    }
  }

 private:
  // Vectors of one register block: as many as its accumulators allow, or one.
  static constexpr int64_t kWide = kAccumulators / 6;
  // Keys fetched before they are read: enough to hide the memory, few enough for the L1 cache.
  static constexpr int64_t kAhead = 12;
  static constexpr int64_t keys_at_once(int64_t vectors) { return vectors == 1 ? 8 : 6; }

  // How many of the queries from lane i on one register block takes.
  int64_t lanes_from(int64_t i) const { return b_.width - i >= kWide * kLanes ? kWide * kLanes : kLanes; }

  // The queries of one head, a register block at a time as [D, lanes]; lanes past the last query are 0.
  void pack(const void* rows, const int64_t* stride, int64_t head, T* out) const {
    const In* row = static_cast<const In*>(rows) + head * stride[1];
    for (int64_t start = 0, lanes; start < b_.width; start += lanes) {
      lanes = lanes_from(start);
      for (int64_t d = 0; d < p_.dim; ++d)
        for (int64_t i = start; i < start + lanes; ++i)
          *out++ = i < b_.queries ? T(widen(row[(b_.first + i) * stride[0] + d * stride[2]])) : T(0);
    }
  }

  void pack_attention(int64_t head) {
    pack(p_.query, p_.query_stride, head, query_);
    const T* rows = static_cast<const T*>(p_.log_sum_exp) + head;
    for (int64_t i = 0; i < b_.width; ++i)
      log_sum_exp_[i] = i < b_.queries ? rows[(b_.first + i) * p_.heads] : T(0);
  }

  template <bool kVisual>
  void score(int64_t head, const int32_t* positions, int64_t count, Scores<T>& scores) {
    const int64_t kv_head = head / (p_.heads / p_.kv_heads);
    for (int64_t i = 0; i < b_.width; ++i) {
      scores.largest[i] = 0;
      scores.smallest[i] = T(__builtin_inf());
      scores.winner[i] = -1;
    }
    for (int64_t key = 0; key < count; key += kTile) {
      Tile tile{key, count - key < kTile ? count - key : kTile, positions + key, {}, {}};
      tile.value = rows_of(p_.value, p_.value_stride, kv_head, value_rows_, positions, key, count);
      if (kAttended) tile.key_rows = rows_of(p_.key, p_.key_stride, kv_head, key_rows_, positions, key, count);
      for (int64_t start = 0, lanes; start < b_.width; start += lanes) {
        lanes = lanes_from(start);
        if (lanes == kLanes)
          score_tile<kVisual, 1>(tile, start, scores);
        else
          score_tile<kVisual, kWide>(tile, start, scores);
      }
    }
  }

  // V or k of the keys of a tile as T, and of those kAhead behind them.
  struct Rows {
    const T* here[kTile];
    const In* next[kTile];
  };

  // Keys that are scored together. Behind the last one come copies of it, so that tiles are whole.
  struct Tile {
    int64_t key, size;  // the first one's place in its set, and how many
    const int32_t* positions;
    Rows value, key_rows;
  };

  Rows rows_of(const void* data, const int64_t* stride, int64_t kv_head, T* copies, const int32_t* positions,
               int64_t key, int64_t count) const {
    const In* head = static_cast<const In*>(data) + kv_head * stride[0];
    Rows rows;
    for (int64_t k = 0; k < kTile; ++k) {
      const int64_t here = key + k < count ? key + k : count - 1;
      const int64_t next = here + kAhead < count ? here + kAhead : count - 1;
      rows.here[k] = row_as(head + positions[here] * stride[1], stride[2], copies + k * p_.dim);
      rows.next[k] = head + positions[next] * stride[1];
    }
    return rows;
  }

  const T* row_as(const T* row, int64_t step, T* copy) const {
    return step == 1 ? row : converted(row, step, copy);
  }

  template <class Other>
  const T* row_as(const Other* row, int64_t step, T* copy) const {
    return converted(row, step, copy);
  }

  const T* converted(const In* row, int64_t step, T* copy) const {
    if (step == 1)
      for (int64_t d = 0; d < p_.dim; ++d) copy[d] = widen(row[d]);
    else
      for (int64_t d = 0; d < p_.dim; ++d) copy[d] = widen(row[d * step]);
    return copy;
  }

  // The queries from lane `start` on; register blocks before it hold `start` lanes of D.
  template <bool kVisual, int kVectors>
  void score_tile(const Tile& tile, int64_t start, Scores<T>& scores) {
    constexpr int kKeys = keys_at_once(kVectors);
    const int64_t at_start = start * p_.dim;
    for (int64_t k = 0; k < tile.size; k += kKeys) {
      Vec product[kKeys][kVectors], logit[kKeys][kVectors];
      multiply<T, In, kVectors, kKeys>(u_ + at_start, tile.value.here + k, tile.value.next + k, p_.dim, product);
      if (kAttended)
        multiply<T, In, kVectors, kKeys>(query_ + at_start, tile.key_rows.here + k, tile.key_rows.next + k, p_.dim,
                                         logit);
      const int64_t keys = tile.size - k < kKeys ? tile.size - k : kKeys;
      for (int64_t i = 0; i < keys; ++i) {
        const int32_t position = tile.positions[k + i];
        const bool hidden = p_.mask || position < all_from_ || position > all_to_;
        for (int64_t v = 0; v < kVectors; ++v) {
          const int64_t at = start + v * kLanes;
          const Int seen = hidden ? attends(position, at) : Int{} - 1;
          Vec g = product[i][v] <= 0 ? Vec{} : product[i][v];  // NaN stays
          if (kAttended) g *= exponential<T>(logit[i][v] * T(p_.scale) - vector(log_sum_exp_ + at));
          take<kVisual>(seen ? g : Vec{}, seen, position, tile.key + k + i, at, scores);
        }
      }
    }
  }

  // Updates the scores of the queries from lane `at` on with their G of one key.
  template <bool kVisual>
  void take(Vec g, Int seen, int32_t position, int64_t key, int64_t at, Scores<T>& scores) {
    Vec& largest = vector(scores.largest + at);
    const Int better = (g > largest) | (g != g);
    largest = better ? g : largest;
    if (kVisual) {
      vector(gradients_ + key * b_.width + at) = g;
      Vec& smallest = vector(scores.smallest + at);
      smallest = seen & ((g < smallest) | (g != g)) ? g : smallest;
    } else {
      Int& winner = *reinterpret_cast<Int*>(scores.winner + at);
      winner = better ? Int{} + position : winner;
    }
  }

  Int attends(int32_t position, int64_t at) const {
    const Int first = *reinterpret_cast<const Int*>(first_ + at);
    const Int last = *reinterpret_cast<const Int*>(last_ + at);
    const Int here = Int{} + position;
    Int seen = (first <= here) & (here <= last);
    if (p_.mask)
      for (int64_t i = 0; i < kLanes && at + i < b_.queries; ++i)
        if (!p_.mask[(b_.first + at + i) * p_.mask_stride + position]) seen[i] = 0;
    return seen;
  }

  void write_scores(int64_t head) {
    for (int64_t i = 0; i < b_.queries; ++i) {
      const int64_t out = (b_.first + i) * p_.heads + head;
      static_cast<T*>(p_.visual_score)[out] = visual_.largest[i];
      static_cast<T*>(p_.smallest)[out] = visual_.smallest[i];
      static_cast<T*>(p_.text_score)[out] = text_.largest[i];
      p_.text_winner[out] = text_.largest[i] > 0 ? text_.winner[i] : -1;
    }
  }

  // E += w G and U += G, with w = relu(S_img - S_txt).
  void aggregate() {
    for (int64_t at = 0; at < b_.width; at += kLanes) {
      const Vec difference = vector(visual_.largest + at) - vector(text_.largest + at);
      vector(weight_ + at) = difference <= 0 ? Vec{} : difference;
    }
    for (int64_t n = 0; n < p_.visual_count; ++n)
      for (int64_t at = 0; at < b_.width; at += kLanes) {
        const int64_t i = n * b_.width + at;
        const Vec g = vector(gradients_ + i);
        vector(filtered_ + i) += vector(weight_ + at) * g;
        vector(unfiltered_ + i) += g;
      }
  }

  const HeadScore& p_;
  const Block& b_;
  T *u_, *query_, *value_rows_, *key_rows_, *gradients_, *filtered_, *unfiltered_;
  alignas(64) Lane first_[kQueries];
  alignas(64) Lane last_[kQueries];
  int64_t all_from_ = 0, all_to_ = INT64_MAX;  // all queries of the block attend to the keys between
  Scores<T> visual_, text_;
  alignas(64) T weight_[kQueries];       // w of the head
  alignas(64) T log_sum_exp_[kQueries];  // L of the head
};

template <class In, class T>
void score_block(const HeadScore& problem, const Block& block, const Buffers& buffers) {
  if (problem.query)
    BlockScorer<In, T, true>(problem, block, buffers).run();
  else
    BlockScorer<In, T, false>(problem, block, buffers).run();
}

ScoreBlock kernel_of(Type type) {
  switch (type) {
    case Type::kFloat32:
      return score_block<float, float>;
    case Type::kFloat64:
      return score_block<double, double>;
    case Type::kBFloat16:
      return score_block<BFloat16, float>;
    default:
      return score_block<Float16, float>;
  }
}

}  // namespace
}  // namespace dexar
