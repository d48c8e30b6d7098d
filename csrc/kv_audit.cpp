#include <algorithm>
#include <stdexcept>

#include "kv_cache.h"

namespace dexar {
namespace {

void balance(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

}  // namespace

void BlockTable::audit(const std::vector<int32_t>& holders) const {
  std::vector<bool> reachable(blocks_.size());
  for (size_t i = 0; i < buckets_.size(); ++i) {
    for (int64_t block = buckets_[i]; block >= 0; block = blocks_[block].next) {
      balance(!reachable[block], "a block is twice in the index");
      balance(blocks_[block].hash % buckets_.size() == i, "a block is in another's bucket");
      reachable[block] = true;
    }
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& b = blocks_[i];
    balance(b.holders == holders[i], "a block has another number of holders than sequences hold it");
    balance(b.indexed == reachable[i], "a block is marked as indexed and is not, or the other way round");
    balance(!b.indexed || b.keyed == block_size_, "a block is indexed and not sealed");
    balance(b.keyed <= b.written && b.written <= block_size_, "a block has more keys than slots written");
  }
}

void KvCache::audit() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t size = table_.block_size();
  std::vector<int32_t> holders(table_.size());
  for (const auto& [id, s] : sequences_) {
    balance(s.committed <= s.length && s.length <= s.held * size, "a sequence is longer than its blocks");
    for (const int64_t block : s.sources) ++holders[block];
    for (int64_t i = 0; i < s.held; ++i) {
      ++holders[s.first + i];
      const Block& b = table_[s.first + i];
      balance(b.written >= std::clamp<int64_t>(s.length - i * size, 0, size), "a slot was never written");
      balance(b.keyed >= std::clamp<int64_t>(s.committed - i * size, 0, size), "a named slot has no key");
    }
  }
  table_.audit(holders);
}

}  // namespace dexar
