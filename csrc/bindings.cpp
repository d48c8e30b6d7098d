#include <pybind11/pybind11.h>

#include "cpu/features.h"

namespace py = pybind11;

namespace {

py::dict cpu_features() {
  const dexar::CpuFeatures& f = dexar::cpu_features();
  using py::literals::operator""_a;
  return py::dict("sse42"_a = f.sse42, "avx2"_a = f.avx2, "fma"_a = f.fma, "f16c"_a = f.f16c,
                  "avx512f"_a = f.avx512f, "avx512bw"_a = f.avx512bw, "avx512vl"_a = f.avx512vl,
                  "avx512vnni"_a = f.avx512vnni, "avx512bf16"_a = f.avx512bf16, "amx_tile"_a = f.amx_tile,
                  "amx_int8"_a = f.amx_int8, "amx_bf16"_a = f.amx_bf16, "neon"_a = f.neon);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ side of dexar_fast. The headers under csrc/ are its documentation.";
  m.def("cpu_features", &cpu_features, "csrc/cpu/features.h: cpu_features, as a dict of name to bool");
  m.def("physical_cores", &dexar::physical_cores, "csrc/cpu/features.h: physical_cores");
}
