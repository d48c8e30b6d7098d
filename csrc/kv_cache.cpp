#include "kv_cache.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

namespace dexar {
namespace {

using Lock = std::lock_guard<std::mutex>;

void check(bool valid, const char* what) {
  if (!valid) throw InvalidRange(what);
}

bool consecutive(const std::vector<int64_t>& blocks) {
  return blocks.back() - blocks.front() + 1 == static_cast<int64_t>(blocks.size()) &&
         std::is_sorted(blocks.begin(), blocks.end());
}

// Neighbouring blocks make one copy; the last block is copied as far as it is written.
std::vector<Copy> copies_of(const std::vector<int64_t>& pieces, int64_t run, int64_t length, int64_t size) {
  std::vector<Copy> copies;
  int64_t done = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int64_t count = std::min(size, length - done);
    if (i == 0 || pieces[i] != pieces[i - 1] + 1) copies.push_back({pieces[i] * size, run * size + done, 0});
    copies.back().count += count;
    done += count;
  }
  return copies;
}

}  // namespace

KvCache::KvCache(int64_t blocks, int64_t block_size, uint64_t hash_mask)
    : table_((check(blocks > 0 && block_size > 0, "a pool has at least one block of one slot"), blocks),
             block_size, hash_mask) {}

KvCache::Placement KvCache::open(const Key* keys, int64_t count, int64_t reserve) {
  check(count >= 0 && reserve >= 0, "a sequence cannot be opened for a negative number of tokens");
  const Lock lock(mutex_);
  const int64_t size = table_.block_size(), blocks = table_.blocks_of(std::max(count, reserve));
  Match prefix = table_.match(keys, std::max<int64_t>(count - 1, 0));
  Run run = place(prefix, blocks);
  if (run.first < 0 && prefix.tokens > 0) {  // the prefix itself is in the way
    prefix = {{}, 0};
    run = place(prefix, blocks);
  }
  if (run.first < 0) refuse(blocks);
  const bool in_place = prefix.tokens > 0 && run.first == prefix.blocks.front();
  std::vector<Copy> copies;
  if (!in_place) copies = copies_of(prefix.blocks, run.first, prefix.tokens, size);
  Sequence& s = sequences_[next_id_];  // the last allocation: nothing fails from here on
  s.reserved = blocks;
  s.length = s.committed = prefix.tokens;
  for (const int64_t block : prefix.blocks) table_.share(block);
  if (in_place) {
    s.first = run.first;
    s.held = blocks;
    table_.take(prefix.blocks.back() + 1, run.first + blocks - prefix.blocks.back() - 1);
  } else {
    s.move_to(table_, run, std::move(prefix.blocks));
  }
  reused_slots_ += s.length;
  return {next_id_++, s.first * size, s.length, std::move(copies)};
}

KvCache::Placement KvCache::extend(SequenceId id, int64_t count) {
  check(count >= 0, "a sequence cannot be extended by a negative number of tokens");
  const Lock lock(mutex_);
  Sequence& s = settled(id);
  const int64_t size = table_.block_size();
  std::vector<Copy> copies;
  if (!s.can_grow(table_, count)) {
    std::vector<int64_t> pieces(table_.blocks_of(s.length));
    std::iota(pieces.begin(), pieces.end(), s.first);
    const int64_t needed = table_.blocks_of(s.length + count);
    const Run run = find_run(std::max(2 * needed, s.reserved), needed);
    if (run.first < 0) refuse(needed);
    copies = copies_of(pieces, run.first, s.length, size);
    s.shrink(table_, static_cast<int64_t>(pieces.size()));
    moves_ += s.length > 0;
    moved_slots_ += s.length;
    s.move_to(table_, run, std::move(pieces));
  }
  s.grow(table_, count);
  return {id, s.first * size, s.length, std::move(copies)};
}

void KvCache::commit(SequenceId id, const Key* keys, int64_t count) {
  const Lock lock(mutex_);
  Sequence& s = settled(id);
  check(count >= 0 && s.committed + count <= s.length, "only tokens that it holds can be committed");
  if (!s.agrees(table_, keys, count)) throw KeyMismatch("a fork has committed other keys for the same slots");
  s.commit(table_, keys, count);
}

SequenceId KvCache::fork(SequenceId id) {
  const Lock lock(mutex_);
  const Sequence& parent = settled(id);
  Sequence& child = sequences_[next_id_];
  child.first = parent.first;
  child.held = table_.blocks_of(parent.length);
  child.length = parent.length;
  child.committed = parent.committed;
  for (int64_t i = 0; i < child.held; ++i) table_.share(child.first + i);
  return next_id_++;
}

void KvCache::truncate(SequenceId id, int64_t length) {
  const Lock lock(mutex_);
  Sequence& s = settled(id);
  check(length >= 0 && length <= s.length, "a sequence can only be truncated to a length that it has");
  s.truncate(table_, length);
}

void KvCache::close(SequenceId id) {
  const Lock lock(mutex_);
  known(id).drop(table_);
  sequences_.erase(id);
}

void KvCache::clear() {
  const Lock lock(mutex_);
  for (int64_t block = 0; block < table_.size(); ++block) {
    if (table_[block].holders == 0) table_.rewrite(block, 0);
  }
}

KvCache::Span KvCache::span(SequenceId id) {
  const Lock lock(mutex_);
  const Sequence& s = known(id);
  return {s.first * table_.block_size(), s.length, s.committed};
}

KvCache::Stats KvCache::stats() const {
  const Lock lock(mutex_);
  int64_t held = 0, cached = 0;
  for (int64_t block = 0; block < table_.size(); ++block) {
    held += table_[block].holders > 0;
    cached += table_.cached(block);
  }
  const int64_t sequences = static_cast<int64_t>(sequences_.size()), free = table_.size() - held - cached;
  return {held, cached, free, sequences, table_.evictions, moves_, moved_slots_, reused_slots_};
}

Sequence& KvCache::known(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found != sequences_.end()) return found->second;
  if (id > 0 && id < next_id_) throw ClosedSequence("sequence " + std::to_string(id) + " was closed");
  throw UnknownSequence("there never was a sequence " + std::to_string(id));
}

Sequence& KvCache::settled(SequenceId id) {
  Sequence& s = known(id);
  s.settle(table_);
  return s;
}

// Where a sequence that begins with this prefix may lie. Evicting what others left behind the prefix, such as
// another answer to the same prompt, costs more than a copy of the prefix.
Run KvCache::place(const Match& prefix, int64_t blocks) {
  const bool whole = prefix.tokens > 0 && consecutive(prefix.blocks);
  const Run here{whole ? prefix.blocks.front() : 0, blocks};
  const int64_t end = here.first + blocks, written = here.first + prefix.tokens / table_.block_size();
  const bool can_stay = whole && table_.unheld(written, end);
  if (can_stay && !table_.any_lost(prefix, end)) return here;
  for (const int64_t block : prefix.blocks) table_.share(block);
  const Run run = find_run(blocks, blocks);
  for (const int64_t block : prefix.blocks) table_.unshare(block);
  const bool evicts = run.first < 0 || table_.any_cached(run.first, run.first + blocks);
  return can_stay && evicts ? here : run;
}

Run KvCache::find_run(int64_t wanted, int64_t needed) {
  for (const int64_t blocks : {wanted, needed}) {
    const int64_t first = table_.find_run(blocks);
    if (first >= 0) return {first, blocks};
  }
  for (auto& [id, s] : sequences_) s.shrink(table_, std::max(table_.blocks_of(s.length), s.reserved));
  return {table_.find_run(needed), needed};
}

void KvCache::refuse(int64_t blocks) const {
  int64_t unheld = 0, row = 0, longest = 0;
  for (int64_t block = 0; block < table_.size(); ++block) {
    const bool free = table_[block].holders == 0;
    unheld += free;
    row = free ? row + 1 : 0;
    longest = std::max(longest, row);
  }
  throw BudgetExhausted("no run of " + std::to_string(blocks) + " blocks is to be had: of the pool's " +
                        std::to_string(table_.size()) + ", " + std::to_string(unheld) + " have no holder, " +
                        std::to_string(longest) +
                        " of them in a row. Close sequences or make the pool larger");
}

}  // namespace dexar
