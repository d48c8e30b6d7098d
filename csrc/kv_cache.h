#pragma once

#include <mutex>
#include <unordered_map>

#include "kv_errors.h"
#include "kv_sequence.h"

namespace dexar {

/// Who holds which slots of one pool of cached keys and values. It never sees the tensors: the caller keeps
/// one [.., slots, ..] tensor a layer, and reads and writes where it is told.
///
/// - A sequence always lies in consecutive blocks: attention reads it in place as one strided view, nothing
///   is gathered per step. A call that would break this moves the sequence, once, to a run twice its length.
/// - Written slots never change while anyone else may read them. A fork shares all its blocks; whoever grows
///   first grows in place, behind the last slot that anyone wrote; the others move at their first write.
/// - `commit` names what positions hold. `open` finds them again: blocks full of named positions under a hash
///   chained over all keys before them, then the block behind them that begins alike, to the token. A hit is
///   verified key by key: a collision costs a look, never a wrong byte. The last prompt token is never
///   reused, because its logits are needed.
/// - A prefix found is attended in place if what lies right behind it is free: the first comer extends
///   it. Else, or if it lies in pieces, it is copied to a free run: far cheaper than computing it. If no run
///   is free, cached blocks behind it are evicted instead; if the prefix itself is in the way, it is evicted.
/// - A call that needs slots copied says so in `copies`. Make them before anything is written to the sequence
///   and before the next call on it: until then their sources stay held.
/// - Blocks that no one holds stay findable until they are needed. The run whose latest use is oldest is evicted
///   first; the end of a sequence goes before its start, which is where a search for it begins.
/// - The budget is the pool. Room kept for growth is taken back before anyone is refused. Held sequences split
///   the pool, because nothing moves under a reader: a call may be refused while enough blocks have no holder,
///   but not in a row. The exception says how many are.
/// - Any thread may call; each sequence has one writer. A call that throws (kv_errors.h) has changed nothing.
class KvCache {
 public:
  struct Placement {
    SequenceId id;
    int64_t start, length;  // the sequence is slots [start, start + length), until its next `extend`
    std::vector<Copy> copies;
  };
  struct Span {
    int64_t start, length, committed;
  };
  struct Stats {
    int64_t held, cached, free, sequences, evictions, moves, moved_slots, reused_slots;
  };

  /// `hash_mask` weakens the hash, so that tests meet collisions.
  KvCache(int64_t blocks, int64_t block_size, uint64_t hash_mask = ~uint64_t{0});

  /// A sequence of the longest known prefix of the keys, with room for `count` tokens, or `reserve` if more.
  Placement open(const Key* keys, int64_t count, int64_t reserve = 0);
  /// Appends `count` slots, to be written.
  Placement extend(SequenceId id, int64_t count);
  /// Names the `count` tokens behind those named before. They have been written.
  void commit(SequenceId id, const Key* keys, int64_t count);
  SequenceId fork(SequenceId id);
  void truncate(SequenceId id, int64_t length);
  void close(SequenceId id);
  void clear();  // forgets every prefix that no sequence holds

  Span span(SequenceId id);
  Stats stats() const;
  void audit() const;  // throws std::logic_error where the books do not balance

 private:
  Sequence& known(SequenceId id);
  Sequence& settled(SequenceId id);
  Run place(const Match& prefix, int64_t blocks);
  Run find_run(int64_t wanted, int64_t needed);
  [[noreturn]] void refuse(int64_t blocks) const;

  mutable std::mutex mutex_;
  BlockTable table_;
  std::unordered_map<SequenceId, Sequence> sequences_;
  SequenceId next_id_ = 1;
  int64_t moves_ = 0, moved_slots_ = 0, reused_slots_ = 0;
};

}  // namespace dexar
