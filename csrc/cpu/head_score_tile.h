// How head_score scores a block of queries, compiled once for each instruction set: the including file sets
// kVectorBytes and kAccumulators, and chooses a product (head_score_lanes.h). Queries lie in the lanes of vectors,
// so that maxima over keys are vertical. Includes nothing of the standard library: the linker might keep the copy
// of an inline function that is compiled here, for a newer CPU, for all.
#pragma once

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

// Vectors of one register block of queries from lane i of `width` on: kWide, or one where there are fewer left.
template <class T, int64_t kWide>
int64_t vectors_from(int64_t width, int64_t i) {
  return width - i >= kWide * int64_t{kVectorBytes / sizeof(T)} ? kWide : 1;
}

// Scores a block with a product of queries and keys, which has
//   Sum                     the type of its sums
//   kKeys                   keys that it reads at a time
//   kWide, keys_at_once     vectors of queries that one call of multiply takes, if not one, and keys
//   pack(head)              takes the queries of a head
//   read(kv_head, positions, key, count)
//                           takes the keys from `key` of `count` on; behind the last one come copies of it
//   multiply(start, k, product)
//                           product[i][v] = <key k + i of those read, vector v of the queries from `start` on>
template <class Product, bool kAttended>
class BlockScorer {
  using T = typename Product::Sum;
  using Vec = typename Simd<T>::Vec;
  using Int = typename Simd<T>::Int;
  using Lane = typename Simd<T>::Lane;
  static constexpr int64_t kLanes = kVectorBytes / sizeof(T);

 public:
  BlockScorer(const HeadScore& problem, const Block& block, const Buffers& buffers)
      : p_(problem),
        b_(block),
        gradient_({p_.u, p_.u_stride}, {p_.value, p_.value_stride}, p_.dim, block, buffers.u, buffers.value_rows),
        logit_({p_.query, p_.query_stride}, {p_.key, p_.key_stride}, p_.dim, block, buffers.query,
               buffers.key_rows),
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
    for (int64_t head = b_.first_head; head < b_.last_head; ++head) {
      gradient_.pack(head);
      if (kAttended) pack_attention(head);
      score<false>(head, p_.text, p_.text_count, text_);
      score<true>(head, p_.visual, p_.visual_count, visual_);
      write_scores(head);
      if (head == b_.first_head)
        aggregate<true>();
      else
        aggregate<false>();
    }
  }

 private:
  void pack_attention(int64_t head) {
    logit_.pack(head);
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
    for (int64_t key = 0; key < count; key += Product::kKeys) {
      const Tile tile{key, count - key < Product::kKeys ? count - key : Product::kKeys, positions + key};
      gradient_.read(kv_head, positions, key, count);
      if (kAttended) logit_.read(kv_head, positions, key, count);
      for (int64_t start = 0, vectors; start < b_.width; start += vectors * kLanes) {
        vectors = vectors_from<T, Product::kWide>(b_.width, start);
        if (vectors == 1)
          score_tile<kVisual, 1>(tile, start, scores);
        else
          score_tile<kVisual, Product::kWide>(tile, start, scores);
      }
    }
  }

  // Keys that are scored together.
  struct Tile {
    int64_t key, size;  // the first one's place in its set, and how many
    const int32_t* positions;
  };

  // Updates the scores of the queries from lane `start` on.
  template <bool kVisual, int kVectors>
  void score_tile(const Tile& tile, int64_t start, Scores<T>& scores) {
    constexpr int kKeys = Product::keys_at_once(kVectors);
    for (int64_t k = 0; k < tile.size; k += kKeys) {
      Vec product[kKeys][kVectors], logit[kKeys][kVectors];
      gradient_.multiply(start, k, product);
      if (kAttended) logit_.multiply(start, k, logit);
      const int64_t keys = tile.size - k < kKeys ? tile.size - k : kKeys;
      for (int64_t v = 0; v < kVectors; ++v) {
        const int64_t at = start + v * kLanes;
        Vec largest = vector(scores.largest + at), smallest = vector(scores.smallest + at);
        Int winner = *reinterpret_cast<Int*>(scores.winner + at);
        for (int64_t i = 0; i < keys; ++i) {
          const int32_t position = tile.positions[k + i];
          const bool hidden = p_.mask || position < all_from_ || position > all_to_;
          const Int seen = hidden ? attends(position, at) : Int{} - 1;
          Vec g = product[i][v] <= 0 ? Vec{} : product[i][v];  // NaN stays
          if (kAttended) g *= exponential<T>(logit[i][v] * T(p_.scale) - vector(log_sum_exp_ + at));
          g = seen ? g : Vec{};
          const Int better = (g > largest) | (g != g);
          largest = better ? g : largest;
          if (kVisual) {
            vector(gradients_ + (tile.key + k + i) * b_.width + at) = g;
            smallest = seen & ((g < smallest) | (g != g)) ? g : smallest;
          } else {
            winner = better ? Int{} + position : winner;
          }
        }
        vector(scores.largest + at) = largest;
        vector(scores.smallest + at) = smallest;
        *reinterpret_cast<Int*>(scores.winner + at) = winner;
      }
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

  // E += w G and U += G, with w = relu(S_img - S_txt), onto the sums of the heads before, if there were any.
  template <bool kFirst>
  void aggregate() {
    for (int64_t at = 0; at < b_.width; at += kLanes) {
      const Vec difference = vector(visual_.largest + at) - vector(text_.largest + at);
      vector(weight_ + at) = difference <= 0 ? Vec{} : difference;
    }
    for (int64_t n = 0; n < p_.visual_count; ++n)
      for (int64_t at = 0; at < b_.width; at += kLanes) {
        const int64_t i = n * b_.width + at;
        const Vec g = vector(gradients_ + i);
        vector(filtered_ + i) = (kFirst ? Vec{} : vector(filtered_ + i)) + vector(weight_ + at) * g;
        vector(unfiltered_ + i) = (kFirst ? Vec{} : vector(unfiltered_ + i)) + g;
      }
  }

  const HeadScore& p_;
  const Block& b_;
  Product gradient_, logit_;  // <u, V> and, where there is a query, <q, k>
  T *gradients_, *filtered_, *unfiltered_;
  alignas(64) Lane first_[kQueries];
  alignas(64) Lane last_[kQueries];
  int64_t all_from_ = 0, all_to_ = INT64_MAX;  // all queries of the block attend to the keys between
  Scores<T> visual_, text_;
  alignas(64) T weight_[kQueries];       // w of the head
  alignas(64) T log_sum_exp_[kQueries];  // L of the head
};

template <class Product>
void score_block(const HeadScore& problem, const Block& block, const Buffers& buffers) {
  if (problem.query)
    BlockScorer<Product, true>(problem, block, buffers).run();
  else
    BlockScorer<Product, false>(problem, block, buffers).run();
}

}  // namespace
}  // namespace dexar
