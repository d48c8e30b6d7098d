#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "cpu/features.h"
#include "cpu/threads.h"
#include "head_score_binding.h"
#include "kv_cache.h"
#include "tail_binding.h"

namespace py = pybind11;

namespace {

py::dict cpu_features() {
  const dexar::CpuFeatures& f = dexar::cpu_features();
  using py::literals::operator""_a;
  return py::dict("sse42"_a = f.sse42, "avx2"_a = f.avx2, "fma"_a = f.fma, "f16c"_a = f.f16c,
                  "avx512f"_a = f.avx512f, "avx512bw"_a = f.avx512bw, "avx512dq"_a = f.avx512dq,
                  "avx512vl"_a = f.avx512vl, "avx512vnni"_a = f.avx512vnni, "avx512bf16"_a = f.avx512bf16,
                  "amx_tile"_a = f.amx_tile, "amx_int8"_a = f.amx_int8, "amx_bf16"_a = f.amx_bf16,
                  "neon"_a = f.neon);
}

// Names of positions: uint64, contiguous, no conversion.
using Keys = py::array_t<uint64_t, py::array::c_style>;

py::list as_tuples(const std::vector<dexar::Copy>& copies) {
  py::list list;
  for (const dexar::Copy& copy : copies) list.append(py::make_tuple(copy.from, copy.to, copy.count));
  return list;
}

py::tuple as_tuple(const dexar::KvCache::Placement& p) {
  return py::make_tuple(p.id, p.start, p.length, as_tuples(p.copies));
}

// A sequence that closes when Python drops it: an interrupt may come between any two steps of Python.
class Row {
 public:
  Row(std::shared_ptr<dexar::KvCache> books, dexar::SequenceId id) : books_(std::move(books)), id_(id) {}
  Row(const Row&) = delete;
  ~Row() { books_->close(id_); }

  static py::tuple open(std::shared_ptr<dexar::KvCache> books, const Keys& keys, int64_t reserve) {
    const auto placed = books->open(keys.data(), keys.size(), reserve);
    auto row = std::make_unique<Row>(std::move(books), placed.id);
    return py::make_tuple(std::move(row), placed.start, placed.length, as_tuples(placed.copies));
  }
  py::tuple extend(int64_t count) {
    const auto placed = books_->extend(id_, count);
    return py::make_tuple(placed.start, placed.length, as_tuples(placed.copies));
  }
  void commit(const Keys& keys) { books_->commit(id_, keys.data(), keys.size()); }
  void truncate(int64_t length) { books_->truncate(id_, length); }
  int64_t committed() const { return books_->span(id_).committed; }
  std::unique_ptr<Row> fork() const { return std::make_unique<Row>(books_, books_->fork(id_)); }

 private:
  const std::shared_ptr<dexar::KvCache> books_;
  const dexar::SequenceId id_;
};

py::dict as_dict(const dexar::KvCache::Stats& s) {
  using py::literals::operator""_a;
  return py::dict("held"_a = s.held, "cached"_a = s.cached, "free"_a = s.free, "sequences"_a = s.sequences,
                  "evictions"_a = s.evictions, "moves"_a = s.moves, "moved_slots"_a = s.moved_slots,
                  "reused_slots"_a = s.reused_slots);
}

void bind_kv_cache(py::module_& m) {
  using dexar::KvCache;
  using dexar::SequenceId;
  using py::literals::operator""_a;
  const py::object base = py::module_::import("dexar_fast.errors").attr("CacheError");
  py::register_exception<dexar::UnknownSequence>(m, "UnknownSequence", base);
  py::register_exception<dexar::ClosedSequence>(m, "ClosedSequence", base);
  py::register_exception<dexar::BudgetExhausted>(m, "BudgetExhausted", base);
  py::register_exception<dexar::InvalidRange>(m, "InvalidRange", base);
  py::register_exception<dexar::KeyMismatch>(m, "KeyMismatch", base);

  py::class_<KvCache, std::shared_ptr<KvCache>>(m, "KvCache", "csrc/kv_cache.h")
      .def(py::init<int64_t, int64_t, uint64_t>(), "blocks"_a, "block_size"_a, "hash_mask"_a = ~uint64_t{0})
      .def(
          "open",
          [](KvCache& cache, const Keys& keys, int64_t reserve) {
            return as_tuple(cache.open(keys.data(), keys.size(), reserve));
          },
          py::arg("keys").noconvert(), "reserve"_a = 0)
      .def(
          "extend",
          [](KvCache& cache, SequenceId id, int64_t count) { return as_tuple(cache.extend(id, count)); },
          "id"_a, "count"_a)
      .def(
          "commit",
          [](KvCache& cache, SequenceId id, const Keys& keys) { cache.commit(id, keys.data(), keys.size()); },
          "id"_a, py::arg("keys").noconvert())
      .def("row", &Row::open, py::arg("keys").noconvert(), "reserve"_a = 0)
      .def("fork", &KvCache::fork, "id"_a)
      .def("truncate", &KvCache::truncate, "id"_a, "length"_a)
      .def("close", &KvCache::close, "id"_a)
      .def("clear", &KvCache::clear)
      .def(
          "span",
          [](KvCache& cache, SequenceId id) {
            const KvCache::Span span = cache.span(id);
            return py::make_tuple(span.start, span.length, span.committed);
          },
          "id"_a)
      .def("stats", [](const KvCache& cache) { return as_dict(cache.stats()); })
      .def("audit", &KvCache::audit);

  py::class_<Row>(m, "Row", "A sequence of a KvCache; closed when it is garbage")
      .def("extend", &Row::extend, "count"_a)
      .def("commit", &Row::commit, py::arg("keys").noconvert())
      .def("truncate", &Row::truncate, "length"_a)
      .def("committed", &Row::committed)
      .def("fork", &Row::fork);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ side of dexar_fast. The headers under csrc/ are its documentation.";
  m.def("cpu_features", &cpu_features, "csrc/cpu/features.h: cpu_features, as a dict of name to bool");
  m.def("physical_cores", &dexar::physical_cores, "csrc/cpu/features.h: physical_cores");
  m.def("rest_threads", &dexar::rest_threads, "csrc/cpu/threads.h: rest_threads");
  bind_kv_cache(m);
  bind_head_score(m);
  bind_tail(m);
}
