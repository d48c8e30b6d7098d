#include "kv_blocks.h"

#include <algorithm>

namespace dexar {
namespace {

// The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

BlockTable::BlockTable(int64_t blocks, int64_t block_size, uint64_t hash_mask)
    : blocks_(blocks),
      keys_(blocks * block_size),
      buckets_(blocks, -1),
      window_(blocks),
      block_size_(block_size),
      hash_mask_(hash_mask) {}

uint64_t BlockTable::chain(uint64_t hash, const Key* keys) const {
  for (int64_t i = 0; i < block_size_; ++i) hash = mix(hash + 0x9e3779b97f4a7c15 + keys[i]);
  return hash & hash_mask_;
}

int64_t BlockTable::find(uint64_t hash, uint64_t parent, const Key* keys) const {
  int64_t block = buckets_[hash % buckets_.size()];
  while (block >= 0) {
    const Block& b = blocks_[block];
    const bool equal = b.hash == hash && b.parent == parent;
    if (equal && std::equal(keys, keys + block_size_, &keys_[block * block_size_])) return block;
    block = b.next;
  }
  return -1;
}

Match BlockTable::match(const Key* keys, int64_t most) const {
  Match found{{}, 0};
  uint64_t hash = 0, parent = 0;
  while (found.tokens + block_size_ <= most) {
    hash = chain(hash, keys + found.tokens);
    const int64_t block = find(hash, parent, keys + found.tokens);
    if (block < 0) break;
    parent = blocks_[block].content;
    found.blocks.push_back(block);
    found.tokens += block_size_;
  }
  const auto [block, count] = find_start(parent, keys + found.tokens, most - found.tokens);
  if (count > 0) found.blocks.push_back(block);
  found.tokens += count;
  return found;
}

// Of the blocks behind this parent, the one that begins with most of the keys, and how many.
std::pair<int64_t, int64_t> BlockTable::find_start(uint64_t parent, const Key* keys, int64_t most) const {
  std::pair<int64_t, int64_t> best{-1, 0};
  for (int64_t block = 0; block < size(); ++block) {
    const Block& b = blocks_[block];
    if (b.parent != parent || !findable(b)) continue;
    const Key* own = &keys_[block * block_size_];
    const int64_t count = std::mismatch(own, own + std::min<int64_t>(b.keyed, most), keys).first - own;
    if (count > best.second) best = {block, count};
  }
  return best;
}

// A sliding-window maximum: window_[head, tail) are the blocks of the window used after every later one.
int64_t BlockTable::find_run(int64_t count) {
  if (count == 0) return 0;
  const auto used = [&](int64_t block) { return findable(blocks_[block]) ? blocks_[block].released : 0; };
  int64_t best = -1, begin = 0, head = 0, tail = 0;
  uint64_t best_used = UINT64_MAX;
  for (int64_t i = 0; i < size() && best_used > 0; ++i) {
    if (blocks_[i].holders > 0) {
      begin = i + 1;
      head = tail = 0;
      continue;
    }
    while (tail > head && used(window_[tail - 1]) <= used(i)) --tail;
    window_[tail++] = i;
    if (window_[head] <= i - count) ++head;
    if (i - begin + 1 < count || used(window_[head]) >= best_used) continue;
    best = i - count + 1;
    best_used = used(window_[head]);
  }
  return best;
}

bool BlockTable::unheld(int64_t first, int64_t end) const {
  if (end > size()) return false;
  const auto free = [](const Block& b) { return b.holders == 0; };
  return std::all_of(blocks_.begin() + first, blocks_.begin() + end, free);
}

bool BlockTable::any_cached(int64_t first, int64_t end) const {
  while (first < end && !cached(first)) ++first;
  return first < end;
}

bool BlockTable::any_lost(const Match& prefix, int64_t end) const {
  const int64_t last = prefix.blocks.back(), offset = prefix.tokens % block_size_;
  return (offset > 0 && blocks_[last].keyed > offset) || any_cached(last + 1, end);
}

void BlockTable::take(int64_t first, int64_t count) {
  for (int64_t i = first; i < first + count; ++i) {
    evictions += cached(i);
    rewrite(i, 0);
    blocks_[i].holders = 1;
  }
}

void BlockTable::release(int64_t block) {
  Block& b = blocks_[block];
  if (--b.holders > 0) return;
  b.released = ++clock_;
  if (b.pending) rewrite(block, 0);
  b.pending = false;
}

void BlockTable::rewrite(int64_t block, int64_t offset) {
  forget(block);
  Block& b = blocks_[block];
  b.written = static_cast<int32_t>(offset);
  b.keyed = std::min(b.keyed, b.written);
}

void BlockTable::name(int64_t block, int64_t previous, Key key) {
  Block& b = blocks_[block];
  if (b.keyed == 0) b.parent = previous < 0 ? 0 : blocks_[previous].content;
  keys_[block * block_size_ + b.keyed] = key;
  if (++b.keyed == block_size_) seal(block, previous);
}

void BlockTable::seal(int64_t block, int64_t previous) {
  Block& b = blocks_[block];
  const Key* keys = &keys_[block * block_size_];
  b.hash = chain(previous < 0 ? 0 : blocks_[previous].hash, keys);
  const int64_t known = find(b.hash, b.parent, keys);
  b.content = known < 0 ? ++contents_ : blocks_[known].content;
  if (known < 0) insert(block);
}

void BlockTable::describe_copy(int64_t from, int64_t to, int64_t written, int64_t keyed) {
  const Block& source = blocks_[from];
  Block& copy = blocks_[to];
  copy.pending = true;
  copy.written = static_cast<int32_t>(written);
  copy.keyed = static_cast<int32_t>(keyed);
  copy.hash = source.hash;
  copy.parent = source.parent;
  copy.content = source.content;
  std::copy_n(&keys_[from * block_size_], keyed, &keys_[to * block_size_]);
}

void BlockTable::copied(int64_t from, int64_t to) {
  blocks_[to].pending = false;
  if (blocks_[from].holders > 1 || !blocks_[from].indexed || blocks_[to].keyed < block_size_) return;
  forget(from);
  insert(to);
}

void BlockTable::insert(int64_t block) {
  Block& b = blocks_[block];
  b.next = bucket(b.hash);
  bucket(b.hash) = block;
  b.indexed = true;
}

void BlockTable::forget(int64_t block) {
  Block& b = blocks_[block];
  if (!b.indexed) return;
  int64_t* link = &bucket(b.hash);
  while (*link != block) link = &blocks_[*link].next;
  *link = b.next;
  b.indexed = false;
}

}  // namespace dexar
