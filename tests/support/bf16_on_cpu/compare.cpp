// Whether VDPBF16PS and its emulation agree: to the last bit, and NaN in being one.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>

namespace dexar {
bool spoiled_pairs = false, spoiled_tiles = false;
}

void in_software(float* sum, const int32_t* queries, const int32_t* keys);
void by_the_cpu(float* sum, const int32_t* queries, const int32_t* keys);

namespace {

std::mt19937 draw(1);

// Random bits of numbers; those of `keep` come from `from`.
void fill(void* out, uint32_t keep, uint32_t from) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = (uint32_t(draw()) & ~keep) | (from & keep);
    std::memcpy(static_cast<char*>(out) + 4 * i, &bits, sizeof(bits));
  }
}

bool same(const float* a, const float* b) {
  for (int i = 0; i < 16; ++i)
    if (std::memcmp(a + i, b + i, sizeof(float)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  return true;
}

// Exponents of sums and of pairs: any, about 1, and about the smallest, where sums and products are subnormal.
constexpr uint32_t kKinds[3][4] = {{0, 0, 0, 0},
                                   {0x7F000000, 0x3F000000, 0x7F007F00, 0x3F003F00},
                                   {0x7C000000, 0x00000000, 0x7F807F80, 0x1F801F80}};

}  // namespace

int main() {
  for (const auto& kind : kKinds)
    for (int i = 0; i < 100000; ++i) {
      float sum[16], copy[16];
      int32_t queries[16], keys[16];
      fill(sum, kind[0], kind[1]), fill(queries, kind[2], kind[3]), fill(keys, kind[2], kind[3]);
      std::memcpy(copy, sum, sizeof(sum));
      by_the_cpu(sum, queries, keys), in_software(copy, queries, keys);
      if (!same(sum, copy)) return std::puts("they differ"), 1;
    }
}
