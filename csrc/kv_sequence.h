#pragma once

#include "kv_blocks.h"

namespace dexar {

/// One sequence over the table of blocks. Nothing here allocates, so nothing can fail half-way.
struct Sequence {
  int64_t first = 0;             // its first block
  int64_t held = 0;              // the consecutive blocks it holds
  int64_t reserved = 0;          // of them, those that it keeps when it is truncated
  int64_t length = 0;            // tokens
  int64_t committed = 0;         // of them, those whose keys are known
  std::vector<int64_t> sources;  // blocks held until the copies out of them are made

  /// Whether the next `count` slots can be written where the sequence lies.
  bool can_grow(const BlockTable& table, int64_t count) const;
  void grow(BlockTable& table, int64_t count);
  /// Goes on in a run that no one holds. Its tokens lie in `pieces`, which it holds until `settle`.
  void move_to(BlockTable& table, Run run, std::vector<int64_t> pieces);
  /// The copies have been made: lets go of their sources.
  void settle(BlockTable& table);
  /// Whether the keys are those of the positions behind the committed ones, as far as these are known.
  bool agrees(const BlockTable& table, const Key* keys, int64_t count) const;
  void commit(BlockTable& table, const Key* keys, int64_t count);
  void truncate(BlockTable& table, int64_t new_length);
  /// Lets go of all its blocks but the first `keep`, the last one first.
  void shrink(BlockTable& table, int64_t keep);
  /// Lets go of everything, whether the copies have been made or not.
  void drop(BlockTable& table);
};

}  // namespace dexar
