// Random operations on one KvCache, held against what every slot must contain. Built by
// tests/kvcache/test_kv_cache.py with sanitizers:  kv_cache_stress THREADS OPERATIONS SEED
//
// A slot's content is chained over all keys up to it, as keys and values depend on everything before them: a
// slot taken from the wrong place, or overwritten by another sequence, cannot pass. Threads share the pool
// and the prefixes.

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kv_cache.h"

namespace {

using dexar::Key;
using dexar::KvCache;

constexpr int64_t kBlocks = 96, kBlockSize = 4;
constexpr uint64_t kWeakHash = 7;  // three bits: most hits collide

struct Expected {
  dexar::SequenceId id;
  int64_t start;
  std::vector<Key> keys;
  std::vector<uint64_t> contents;
  size_t committed;
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

uint64_t content(const Expected& s, Key key) {
  return (s.contents.empty() ? 1 : s.contents.back()) * 6364136223846793005u + key + 1;
}

class Writer {
 public:
  Writer(KvCache& cache, std::vector<uint64_t>& slots, uint64_t seed)
      : cache_(cache), slots_(slots), random_(seed) {}

  void run(int operations) {
    for (int i = 0; i < operations; ++i) {
      try {
        step();
      } catch (const dexar::BudgetExhausted&) {
        ++refused_;
        if (!sequences_.empty()) close(pick());
      }
      for (const Expected& s : sequences_) verify(s);
      if (i % 100 == 0) cache_.audit();
    }
    while (!sequences_.empty()) close(0);
  }

  int refused() const { return refused_; }

 private:
  int64_t below(int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(random_); }
  size_t pick() { return static_cast<size_t>(below(static_cast<int64_t>(sequences_.size()))); }
  Key key() { return below(8) == 0; }  // mostly the same: prefixes repeat

  void step() {
    const int64_t kind = below(20);
    const bool full = sequences_.size() >= 6;
    if (sequences_.empty() || (kind < 3 && !full)) return open();
    Expected& s = sequences_[pick()];
    if (kind < 10) return extend(s, 1 + below(below(8) == 0 ? 40 : 3));
    if (kind < 14) return commit(s, below(static_cast<int64_t>(s.keys.size() - s.committed) + 1));
    if (kind < 16) return truncate(s, below(static_cast<int64_t>(s.keys.size()) + 1));
    if (kind < 18 && !full) return fork(s);
    close(pick());
  }

  void open() {
    std::vector<Key> keys(static_cast<size_t>(below(60)));
    for (Key& k : keys) k = key();
    const int64_t count = static_cast<int64_t>(keys.size());
    const auto placed = cache_.open(keys.data(), count, below(2) * below(80));
    require(placed.length < std::max<int64_t>(count, 1), "the last prompt token was reused");
    if (below(16) == 0) return cache_.close(placed.id);  // the copies are never made
    make(placed);
    Expected s{placed.id, placed.start, {}, {}, static_cast<size_t>(placed.length)};
    for (int64_t i = 0; i < placed.length; ++i) {
      s.contents.push_back(content(s, keys[i]));
      s.keys.push_back(keys[i]);
    }
    verify(s);
    sequences_.push_back(s);
  }

  void extend(Expected& s, int64_t count) {
    const auto placed = cache_.extend(s.id, count);
    s.start = placed.start;
    make(placed);
    for (int64_t i = 0; i < count; ++i) {
      const Key k = key();
      s.contents.push_back(content(s, k));
      s.keys.push_back(k);
      slots_[static_cast<size_t>(s.start) + s.keys.size() - 1] = s.contents.back();
    }
    require(placed.length == static_cast<int64_t>(s.keys.size()), "another length");
  }

  void commit(Expected& s, int64_t count) {
    cache_.commit(s.id, s.keys.data() + s.committed, count);
    s.committed += static_cast<size_t>(count);
  }

  void truncate(Expected& s, int64_t length) {
    cache_.truncate(s.id, length);
    s.keys.resize(static_cast<size_t>(length));
    s.contents.resize(static_cast<size_t>(length));
    s.committed = std::min(s.committed, s.keys.size());
  }

  void fork(const Expected& parent) {
    Expected child = parent;
    child.id = cache_.fork(parent.id);
    sequences_.push_back(child);
  }

  void close(size_t i) {
    cache_.close(sequences_[i].id);
    std::swap(sequences_[i], sequences_.back());
    sequences_.pop_back();
  }

  void make(const KvCache::Placement& placed) {
    for (const dexar::Copy& copy : placed.copies) {
      for (int64_t i = 0; i < copy.count; ++i) slots_[copy.to + i] = slots_[copy.from + i];
    }
  }

  void verify(const Expected& s) const {
    for (size_t i = 0; i < s.contents.size(); ++i)
      require(slots_[static_cast<size_t>(s.start) + i] == s.contents[i], "a slot holds another content");
  }

  KvCache& cache_;
  std::vector<uint64_t>& slots_;
  std::mt19937_64 random_;
  std::vector<Expected> sequences_;
  int refused_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  require(argc == 4, "usage: kv_cache_stress THREADS OPERATIONS SEED");
  const int threads = std::atoi(argv[1]), operations = std::atoi(argv[2]);
  const uint64_t seed = std::strtoull(argv[3], nullptr, 10);

  KvCache cache(kBlocks, kBlockSize, kWeakHash);
  std::vector<uint64_t> slots(kBlocks * kBlockSize);
  std::vector<Writer> writers;
  for (int i = 0; i < threads; ++i)
    writers.emplace_back(cache, slots, seed * 1000 + static_cast<uint64_t>(i));
  std::vector<std::thread> running;
  for (Writer& writer : writers) running.emplace_back([&writer, operations] { writer.run(operations); });
  for (std::thread& thread : running) thread.join();

  cache.audit();
  cache.clear();
  const KvCache::Stats stats = cache.stats();
  require(stats.held == 0 && stats.sequences == 0 && stats.free == kBlocks, "blocks leaked");
  require(stats.moves > 0 && stats.evictions > 0 && stats.reused_slots > 0, "the stress met too little");
  int refused = 0;
  for (const Writer& writer : writers) refused += writer.refused();
  std::printf("moves %ld evictions %ld reused %ld refused %d\n", long(stats.moves), long(stats.evictions),
              long(stats.reused_slots), refused);
  return 0;
}
