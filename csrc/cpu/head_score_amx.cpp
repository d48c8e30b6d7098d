#include "cpu/head_score_kernel.h"

// The assemblers of older compilers may lack the instructions.
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 11

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")

namespace {
constexpr int kVectorBytes = 64;
constexpr int kAccumulators = 24;
}  // namespace

#include "cpu/head_score_pairs.h"

namespace dexar {
namespace {

constexpr int64_t kTileRows = 16, kTilePairs = 16;  // every tile is whole: 64 bytes a row
constexpr int kKeyTile = 4, kFirstQueryTile = 5;    // behind the sums of at most four vectors of queries

// What LDTILECFG reads: tile i has rows[i] rows of row_bytes[i] bytes.
struct alignas(64) TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
constexpr TileShapes kShapes = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

class Tiles {
 public:
  Tiles() { configure_tiles(&kShapes); }
  Tiles(const Tiles&) = delete;
  ~Tiles() { release_tiles(); }
};

// A tile of sums has a key in each row and a query in each column, which is what BlockScorer takes.
class TileProduct : public LaneProduct<Pair<2 * kTilePairs>, kTileRows> {
 public:
  using LaneProduct::LaneProduct;
  static constexpr int keys_at_once(int64_t) { return kTileRows; }

  void read(int64_t kv_head, const int32_t* positions, int64_t key, int64_t count) {
    LaneProduct::read(kv_head, positions, key, count);
    stride_ = address(1) - address(0);
    if (!evenly_spaced()) gather();
  }

  template <int kVectors>
  void multiply(int64_t start, int64_t, Vec (&product)[kKeys][kVectors]) const {
    clear_sums<kVectors - 1>();
    for (int64_t pair = 0; pair < elements_; pair += kTilePairs) {
      for (int64_t k = 0; k < kKeys; ++k) __builtin_prefetch(next_[k] + 2 * pair);
      load_tile<kKeyTile>(here_[0] + pair, stride_);
      add_products<kVectors - 1, kVectors>(packed_ + start * elements_ + pair * kVectors * kLanes);
    }
    store_sums<kVectors - 1>(product);
  }

 private:
  int64_t address(int64_t k) const { return reinterpret_cast<int64_t>(here_[k]); }

  bool evenly_spaced() const {
    for (int64_t k = 2; k < kKeys; ++k)
      if (address(k) - address(k - 1) != stride_) return false;
    return true;
  }

  void gather() {
    for (int64_t k = 0; k < kKeys; ++k) {
      Element* copy = copies_ + k * elements_;
      __builtin_memcpy(copy, here_[k], elements_ * sizeof(Element));
      here_[k] = copy;
    }
    stride_ = elements_ * sizeof(Element);
  }

  template <int kVector>
  static void clear_sums() {
    clear_tile<kVector>();
    if constexpr (kVector > 0) clear_sums<kVector - 1>();
  }

  template <int kVector, int kVectors>
  static void add_products(const Element* queries) {
    constexpr int kQueryTile = kFirstQueryTile + kVector % 3;
    load_tile<kQueryTile>(queries + kVector * kLanes, kVectors * kVectorBytes);
    multiply_tiles<kVector, kKeyTile, kQueryTile>();
    if constexpr (kVector > 0) add_products<kVector - 1, kVectors>(queries);
  }

  template <int kVector, int kVectors>
  static void store_sums(Vec (&product)[kKeys][kVectors]) {
    store_tile<kVector>(&product[0][kVector], sizeof(product[0]));
    if constexpr (kVector > 0) store_sums<kVector - 1>(product);
  }

  int64_t stride_ = 0;  // bytes from key to key
};

void score_on_tiles(const HeadScore& problem, const Block& block, const Buffers& buffers) {
  const Tiles tiles;
  score_block<TileProduct>(problem, block, buffers);
}

}  // namespace

ScoreBlock amx_kernel() { return score_on_tiles; }
}  // namespace dexar

#else

namespace dexar {
ScoreBlock amx_kernel() { return nullptr; }
}  // namespace dexar

#endif
