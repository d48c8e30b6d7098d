#include "kv_sequence.h"

#include <algorithm>
#include <utility>

namespace dexar {

bool Sequence::can_grow(const BlockTable& table, int64_t count) const {
  if (count == 0) return true;
  if (held == 0) return false;
  const int64_t size = table.block_size(), needed = table.blocks_of(length + count);
  for (int64_t i = length / size; i < std::min(held, needed); ++i) {
    const Block& b = table[first + i];
    if (b.holders > 1 && b.written != std::max<int64_t>(0, length - i * size)) return false;
  }
  return table.unheld(first + held, first + std::max(held, needed));
}

void Sequence::grow(BlockTable& table, int64_t count) {
  if (count == 0) return;
  const int64_t size = table.block_size(), touched = length / size, needed = table.blocks_of(length + count);
  for (int64_t i = touched; i < std::min(held, needed); ++i)
    table.rewrite(first + i, std::max<int64_t>(0, length - i * size));
  if (needed > held) {
    table.take(first + held, needed - held);
    held = needed;
  }
  length += count;
  for (int64_t i = touched; i < needed; ++i)
    table[first + i].written = static_cast<int32_t>(std::min(size, length - i * size));
}

void Sequence::move_to(BlockTable& table, Run run, std::vector<int64_t> pieces) {
  const int64_t size = table.block_size(), count = static_cast<int64_t>(pieces.size());
  table.take(run.first, run.blocks);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t written = std::min(size, length - i * size);
    const int64_t keyed = std::clamp<int64_t>(committed - i * size, 0, written);
    table.describe_copy(pieces[i], run.first + i, written, keyed);
  }
  first = run.first;
  held = run.blocks;
  sources = std::move(pieces);
}

void Sequence::settle(BlockTable& table) {
  const int64_t count = static_cast<int64_t>(sources.size());
  for (int64_t i = 0; i < count; ++i) table.copied(sources[i], first + i);
  for (int64_t i = count - 1; i >= 0; --i) table.release(sources[i]);
  sources.clear();
}

bool Sequence::agrees(const BlockTable& table, const Key* keys, int64_t count) const {
  const int64_t size = table.block_size();
  for (int64_t i = committed; i < committed + count; ++i) {
    const bool known = i % size < table[first + i / size].keyed;
    if (known && table.key(first * size + i) != keys[i - committed]) return false;
  }
  return true;
}

void Sequence::commit(BlockTable& table, const Key* keys, int64_t count) {
  const int64_t size = table.block_size();
  for (const int64_t end = committed + count; committed < end; ++committed, ++keys) {
    const int64_t block = first + committed / size;
    if (committed % size < table[block].keyed) continue;  // a fork has named it
    table.name(block, committed < size ? -1 : block - 1, *keys);
  }
}

void Sequence::truncate(BlockTable& table, int64_t new_length) {
  length = new_length;
  committed = std::min(committed, length);
  shrink(table, std::max(table.blocks_of(length), reserved));
  const int64_t offset = length % table.block_size(), last = first + length / table.block_size();
  if (offset > 0 && table[last].holders == 1 && !table[last].indexed) table.rewrite(last, offset);
}

void Sequence::drop(BlockTable& table) {
  for (const int64_t block : sources) table.release(block);
  shrink(table, 0);
}

void Sequence::shrink(BlockTable& table, int64_t keep) {
  while (held > keep) table.release(first + --held);
}

}  // namespace dexar
