#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace dexar {

/// Names what a position holds: everything its keys and values depend on, beside the positions before it.
using Key = uint64_t;

using SequenceId = int64_t;

/// Consecutive blocks.
struct Run {
  int64_t first, blocks;
};

/// Blocks that hold the first `tokens` of some keys, in order.
struct Match {
  std::vector<int64_t> blocks;
  int64_t tokens;
};

/// Consecutive slots to be copied.
struct Copy {
  int64_t from, to, count;
};

/// One block of slots. Sealed: all its keys are known; findable through the index. Tail: some are; findable
/// as a child of the block before it. Held: has a holder. Cached: findable and not held. Free: neither.
struct Block {
  int32_t holders = 0;   // sequences that lie in it, and copies still to be made from it
  int32_t written = 0;   // leading slots that some holder may read
  int32_t keyed = 0;     // leading slots whose keys are known
  bool indexed = false;  // in the prefix index
  bool pending = false;  // the copies into it may not have been made: not findable
  int64_t next = -1;     // the block behind it in its bucket of the index
  uint64_t hash = 0;     // of a sealed block: chained over all keys from the start of the sequence to its end
  uint64_t parent = 0;   // content of the block before it, 0 for the first
  uint64_t content = 0;  // the same number for blocks sealed with the same keys behind the same parent
  uint64_t released = 0;  // when its last holder let go
};

/// The blocks of a pool: who holds them, which are cached under which keys, where a run of them is free.
/// Nothing here allocates after construction but `match`, so nothing else can fail half-way.
class BlockTable {
 public:
  BlockTable(int64_t blocks, int64_t block_size, uint64_t hash_mask);

  int64_t size() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t block_size() const { return block_size_; }
  int64_t blocks_of(int64_t slots) const { return (slots + block_size_ - 1) / block_size_; }
  Block& operator[](int64_t block) { return blocks_[block]; }
  const Block& operator[](int64_t block) const { return blocks_[block]; }
  Key key(int64_t slot) const { return keys_[slot]; }

  /// The longest known prefix of the keys, at most `most` tokens: whole blocks, and the start of another.
  Match match(const Key* keys, int64_t most) const;
  /// First of `count` consecutive blocks without holders, or -1. Takes free ones if there are any, else the run
  /// whose most recently used block was used longest ago.
  int64_t find_run(int64_t count);
  bool unheld(int64_t first, int64_t end) const;  // blocks [first, end) exist and have no holder
  bool cached(int64_t block) const { return blocks_[block].holders == 0 && findable(blocks_[block]); }
  bool any_cached(int64_t first, int64_t end) const;
  /// Whether going on where this prefix lies, in the blocks up to `end`, would evict any known key.
  bool any_lost(const Match& prefix, int64_t end) const;

  void take(int64_t first, int64_t count);  // evicts what is cached there; one holder, nothing written
  void share(int64_t block) { ++blocks_[block].holders; }
  void unshare(int64_t block) { --blocks_[block].holders; }
  void release(int64_t block);  // unshare, and if no holder is left it becomes the most recently used
  /// Makes a held block writable from `offset` on: what was known of the slots behind it no longer holds.
  void rewrite(int64_t block, int64_t offset);
  /// Names the next slot of a block. When it is the last, the block is indexed, unless its content already
  /// is. `previous` is the block before it, -1 for a first.
  void name(int64_t block, int64_t previous, Key key);
  /// What is known of `from` will hold for `to`, too, once its first `written` slots have been copied.
  void describe_copy(int64_t from, int64_t to, int64_t written, int64_t keyed);
  /// The copy has been made. If `from` is about to be free, it passes on its place in the index.
  void copied(int64_t from, int64_t to);
  /// Throws std::logic_error unless the index is sound and every block has this many holders.
  void audit(const std::vector<int32_t>& holders) const;

  int64_t evictions = 0;

 private:
  bool tail(const Block& b) const { return b.keyed > 0 && b.keyed < block_size_ && !b.pending; }
  bool findable(const Block& b) const { return b.indexed || tail(b); }
  int64_t find(uint64_t hash, uint64_t parent, const Key* keys) const;
  std::pair<int64_t, int64_t> find_start(uint64_t parent, const Key* keys, int64_t most) const;
  uint64_t chain(uint64_t hash, const Key* keys) const;
  int64_t& bucket(uint64_t hash) { return buckets_[hash % buckets_.size()]; }
  void seal(int64_t block, int64_t previous);
  void insert(int64_t block);  // into the index
  void forget(int64_t block);  // out of it

  std::vector<Block> blocks_;
  std::vector<Key> keys_;         // by slot
  std::vector<int64_t> buckets_;  // heads of the chains of indexed blocks
  std::vector<int64_t> window_;   // scratch of find_run
  int64_t block_size_;
  uint64_t hash_mask_;
  uint64_t clock_ = 0;
  uint64_t contents_ = 0;
};

}  // namespace dexar
