#include "cpu/features.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#if defined(__x86_64__) || defined(_M_X64)
#define DEXAR_X86_64 1
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dexar {
namespace {

#if defined(DEXAR_X86_64)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero for a leaf that this CPU lacks: __cpuid_count alone would return another leaf's bits.
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
#if defined(_MSC_VER)
  int out[4];
  __cpuid(out, 0);
  if (leaf > static_cast<uint32_t>(out[0])) return r;
  __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
  r = {uint32_t(out[0]), uint32_t(out[1]), uint32_t(out[2]), uint32_t(out[3])};
#else
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
  return r;
}

bool bit(uint64_t word, int n) { return (word >> n) & 1u; }

// XCR0: which register files the operating system saves at a context switch.
uint64_t saved_state(const Registers& leaf1) {
  if (!bit(leaf1.ecx, 27)) return 0;  // OSXSAVE
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
#endif
}

// Linux hands out the 8 KiB of tile registers only to processes that ask (Documentation/arch/x86/xstate.rst).
bool tiles_granted() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return true;
#endif
}

// Bits: Intel SDM volume 2A, CPUID, leaves 1 and 7; volume 1, section 13.3, for XCR0.
CpuFeatures detect() {
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);
  const uint64_t saved = saved_state(one);
  const bool ymm = (saved & 0x06) == 0x06;
  const bool zmm = (saved & 0xE6) == 0xE6;
  const bool tiles = (saved & 0x60000) == 0x60000 && bit(seven.edx, 24) && tiles_granted();

  CpuFeatures f;
  f.sse42 = bit(one.ecx, 20);
  f.avx2 = ymm && bit(seven.ebx, 5);
  f.fma = ymm && bit(one.ecx, 12);
  f.f16c = ymm && bit(one.ecx, 29);
  f.avx512f = zmm && bit(seven.ebx, 16);
  f.avx512bw = zmm && bit(seven.ebx, 30);
  f.avx512dq = zmm && bit(seven.ebx, 17);
  f.avx512vl = zmm && bit(seven.ebx, 31);
  f.avx512vnni = zmm && bit(seven.ecx, 11);
  f.avx512bf16 = zmm && bit(seven_one.eax, 5);
  f.amx_tile = tiles;
  f.amx_int8 = tiles && bit(seven.edx, 25);
  f.amx_bf16 = tiles && bit(seven.edx, 22);
  return f;
}

#elif defined(__aarch64__) || defined(_M_ARM64)

CpuFeatures detect() {
  CpuFeatures f;
  f.neon = true;  // part of the base architecture
  return f;
}

#else

CpuFeatures detect() { return {}; }

#endif

#if defined(__linux__)

// The hyper-threads that share a core with this CPU, as the kernel writes them ("0,64"); empty if it does not.
std::string siblings(int cpu) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
  std::string line;
  std::getline(file, line);
  return line;
}

int count_cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 0;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string core = siblings(cpu);
    cores.insert(core.empty() ? std::to_string(cpu) : core);
  }
  return static_cast<int>(cores.size());
}

#else

int count_cores() { return 0; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

int physical_cores() {
  const int counted = count_cores();
  return std::max(1, counted > 0 ? counted : static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace dexar
