#pragma once

namespace dexar {

/// Lets the OpenMP workers of the calling thread go; its next parallel region makes new ones. While two threads of
/// a process have workers, there are more of them than cores, and libgomp puts them to sleep between regions.
void rest_threads();

}  // namespace dexar
