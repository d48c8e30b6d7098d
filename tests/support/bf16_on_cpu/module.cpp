#include "head_score_binding.h"
#include "tail_binding.h"

namespace dexar {
extern bool spoiled_pairs, spoiled_tiles;
}

PYBIND11_MODULE(_C, m) {
  bind_head_score(m);
  bind_tail(m);
  m.def("spoil", [](bool pairs, bool tiles) { dexar::spoiled_pairs = pairs, dexar::spoiled_tiles = tiles; });
}
