// The product of head_score in vectors: queries lie in the lanes; keys, at any stride, are read in place and
// broadcast.
#pragma once

#include "cpu/head_score_tile.h"

namespace dexar {
namespace {

// Rows [heads, rows, D] of keys or [rows, heads, D] of queries at any strides.
struct Rows {
  const void* data;
  const int64_t* stride;  // three, in elements
};

// product[k][v] = <rows[k], vector v of u [elements, kVectors]>, summed in ascending order; prefetches `next`
// meanwhile. A function of its own, so that its sums and pointers have all registers.
template <class Feature, int kVectors, int kKeys>
__attribute__((noinline)) void multiply_rows(const typename Feature::Element* u,
                                             const typename Feature::Element* const* rows,
                                             const typename Feature::In* const* next, int64_t elements,
                                             typename Feature::Vec (&product)[kKeys][kVectors]) {
  constexpr int64_t kLine = 64 / sizeof(typename Feature::In) / Feature::kOfElement;
  typename Feature::Vec sum[kKeys][kVectors] = {};
  const typename Feature::Element* row[kKeys];
  for (int k = 0; k < kKeys; ++k) row[k] = rows[k];
  for (int64_t line = 0; line < elements; line += kLine) {
    const int64_t end = elements - line < kLine ? elements : line + kLine;
    for (int k = 0; k < kKeys; ++k) __builtin_prefetch(next[k] + line * Feature::kOfElement);
    for (int64_t d = line; d < end; ++d) {
      const auto* query = reinterpret_cast<const typename Feature::Lanes*>(u) + d * kVectors;
#pragma GCC unroll 8
      for (int k = 0; k < kKeys; ++k) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) Feature::accumulate(sum[k][v], row[k][d], query[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kKeys; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) product[k][v] = sum[k][v];
  }
}

// A product for BlockScorer. Feature says how a row of D numbers of type In is prepared for the multiplication:
//   Element, Lanes         what one lane takes at a time, and a vector of it
//   kOfElement, elements   numbers of the row in an element, and elements of a row
//   element, copy          the element of a row at an index, 0 past its end, and all of them
//   in_place               whether a row is already an array of elements
//   accumulate             sum += key * queries
template <class Feature, int64_t kKeysRead = kTile>
class LaneProduct {
 public:
  using Sum = typename Feature::Sum;
  using In = typename Feature::In;
  using Element = typename Feature::Element;
  using Vec = typename Feature::Vec;
  static constexpr int64_t kKeys = kKeysRead;
  static constexpr int64_t kWide = kAccumulators / 6;
  static constexpr int keys_at_once(int64_t vectors) { return vectors == 1 ? 8 : 6; }

  LaneProduct(const Rows& queries, const Rows& keys, int64_t dim, const Block& block, void* packed, void* copies)
      : elements_(Feature::elements(dim)),
        packed_(static_cast<Element*>(packed)),
        copies_(static_cast<Element*>(copies)),
        queries_(queries),
        keys_(keys),
        dim_(dim),
        block_(block) {}

  // A register block at a time as [elements, lanes]; lanes past the last query are 0.
  void pack(int64_t head) const {
    const In* rows = static_cast<const In*>(queries_.data) + head * queries_.stride[1];
    Element* out = packed_;
    for (int64_t start = 0, lanes; start < block_.width; start += lanes) {
      lanes = vectors_from<Sum, kWide>(block_.width, start) * kLanes;
      for (int64_t i = 0; i < lanes; ++i)
        for (int64_t e = 0; e < elements_; ++e)
          out[e * lanes + i] = start + i < block_.queries
                                   ? Feature::element(rows + (block_.first + start + i) * queries_.stride[0],
                                                      queries_.stride[2], e, dim_)
                                   : Element(0);
      out += elements_ * lanes;
    }
  }

  void read(int64_t kv_head, const int32_t* positions, int64_t key, int64_t count) {
    const In* head = static_cast<const In*>(keys_.data) + kv_head * keys_.stride[0];
    for (int64_t k = 0; k < kKeys; ++k) {
      const int64_t here = key + k < count ? key + k : count - 1;
      const int64_t next = here + kAhead < count ? here + kAhead : count - 1;
      here_[k] = row(head + positions[here] * keys_.stride[1], copies_ + k * elements_);
      next_[k] = head + positions[next] * keys_.stride[1];
    }
  }

  // Register blocks before the queries from `start` on hold `start` lanes.
  template <int kVectors, int kAtOnce>
  void multiply(int64_t start, int64_t k, Vec (&product)[kAtOnce][kVectors]) const {
    multiply_rows<Feature, kVectors, kAtOnce>(packed_ + start * elements_, here_ + k, next_ + k, elements_, product);
  }

 protected:
  static constexpr int64_t kLanes = kVectorBytes / sizeof(Sum);
  // Keys fetched before they are read: enough to hide the memory, few enough for the L1 cache.
  static constexpr int64_t kAhead = 12;

  const Element* row(const In* row, Element* copy) const {
    if (Feature::in_place(keys_.stride[2], dim_)) return reinterpret_cast<const Element*>(row);
    Feature::copy(row, keys_.stride[2], dim_, copy);
    return copy;
  }

  int64_t elements_;
  Element *packed_, *copies_;
  const Element* here_[kKeys];
  const In* next_[kKeys];

 private:
  Rows queries_, keys_;
  int64_t dim_;
  const Block& block_;
};

}  // namespace
}  // namespace dexar
