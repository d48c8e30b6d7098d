#pragma once

namespace dexar {

/// The instruction sets a kernel may use here: the CPU has them and the operating system saves their
/// registers. All are false on a CPU without detection here; the portable path needs none of them.
struct CpuFeatures {
  bool sse42 = false;
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512dq = false;
  bool avx512vl = false;
  bool avx512vnni = false;
  bool avx512bf16 = false;
  bool amx_tile = false;
  bool amx_int8 = false;
  bool amx_bf16 = false;
  bool neon = false;
};

/// Detected once per process. On Linux the first call asks the kernel for the AMX tile registers (arch_prctl).
/// That holds for every thread started later; if it is refused, amx_* are false.
const CpuFeatures& cpu_features();

/// Cores this process may run on (its affinity mask where the system has one), hyper-threads of one core
/// counted once: the number of threads at which dense arithmetic stops gaining. At least 1.
int physical_cores();

}  // namespace dexar
