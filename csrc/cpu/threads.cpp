#include "cpu/threads.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace dexar {

// Of OpenMP 5.0: GCC has it since 9, without saying so in _OPENMP. Weak: the libgomp that is loaded may be older.
#if defined(_OPENMP) && (_OPENMP >= 201811 || (defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9))
#pragma weak omp_pause_resource_all

void rest_threads() {
  if (omp_pause_resource_all != nullptr) omp_pause_resource_all(omp_pause_soft);
}
#else
void rest_threads() {}
#endif

}  // namespace dexar
