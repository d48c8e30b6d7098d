#pragma once

#include <cstdint>

/// The C interface of dexar_fast/_cuda.*.so: no torch, no Python, loaded by dexar_fast/backends/cuda.py.

extern "C" {

/// Keys or values of one layer, dense [H_kv, slots, D]; data is aligned to 16 bytes.
struct DexarSlots {
  char* data;
  int64_t heads, slots;
  int64_t slot_bytes;  // of one head: D times the size of an element
};

/// Slots [from, from + count) become slots [to, to + count).
struct DexarSlotCopy {
  int64_t from, to, count;
};

/// Why nothing here can run on the current device; nullptr if it can.
const char* dexar_cuda_obstacle();

/// Makes the copies in every tensor, on a stream of the device: nothing waits for them here.
///
///   tensor[:, to : to + count] = tensor[:, from : from + count]
///
/// All at once, so no slot may be both a source and a target (KvCache never asks for that). Reads and writes
/// count * heads * slot_bytes a tensor and copy, once. Returns what went wrong, or nullptr.
const char* dexar_kv_copy(const DexarSlots* tensors, int64_t tensor_count, const DexarSlotCopy* copies,
                          int64_t copy_count, int device, void* stream);
}
