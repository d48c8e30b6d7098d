// Copies of slots in a pool of keys and values, in CUDA C++ because Triton cannot do this in one launch: a Triton kernel
// takes its tensors as arguments of fixed number and type, so that every layer costs a launch, and every copy another.
// A move of one short sequence through 80 layers is then 80 launches for a few microseconds of traffic. Here the
// addresses of all tensors are one argument, a table in the kernel's parameters, which may take 32,764 bytes
// (CUDA C++ Programming Guide, __global__ function parameters): no memory is allocated and nothing is transferred ahead.

#include "cuda/kv_copy.h"

#include <algorithm>
#include <cuda_runtime.h>

namespace {

constexpr int kTensors = 256, kCopies = 64;  // in one launch
constexpr int kThreads = 256, kUnits = 4;    // kUnits loads a thread are under way at once

struct Table {
  DexarSlots tensors[kTensors];
  DexarSlotCopy copies[kCopies];
  int64_t chunks;  // blocks a head
};
static_assert(sizeof(Table) <= 32764, "a kernel takes no more parameters");

// The largest power of two, up to 16, that every slot begins at a multiple of.
__host__ __device__ int64_t unit_of(int64_t slot_bytes) {
  const int64_t unit = slot_bytes & -slot_bytes;
  return unit < 16 ? unit : 16;
}

template <class Unit>
__device__ void move(const char* from, char* to, int64_t bytes, int64_t chunk) {
  const Unit* source = reinterpret_cast<const Unit*>(from);
  Unit* target = reinterpret_cast<Unit*>(to);
  const int64_t units = bytes / static_cast<int64_t>(sizeof(Unit));
  const int64_t first = chunk * kThreads * kUnits + threadIdx.x;
  Unit held[kUnits];
#pragma unroll
  for (int i = 0; i < kUnits; ++i) {
    if (first + i * kThreads < units) held[i] = source[first + i * kThreads];
  }
#pragma unroll
  for (int i = 0; i < kUnits; ++i) {
    if (first + i * kThreads < units) target[first + i * kThreads] = held[i];
  }
}

// Block (head and chunk, tensor, copy).
__global__ void __launch_bounds__(kThreads) kv_copy_kernel(const __grid_constant__ Table table) {
  const DexarSlots& tensor = table.tensors[blockIdx.y];
  const DexarSlotCopy& copy = table.copies[blockIdx.z];
  const int64_t head = blockIdx.x / table.chunks, chunk = blockIdx.x % table.chunks;
  if (head >= tensor.heads) return;
  char* slots = tensor.data + head * tensor.slots * tensor.slot_bytes;
  const char* from = slots + copy.from * tensor.slot_bytes;
  char* to = slots + copy.to * tensor.slot_bytes;
  const int64_t bytes = copy.count * tensor.slot_bytes;
  switch (unit_of(tensor.slot_bytes)) {
    case 16: return move<uint4>(from, to, bytes, chunk);
    case 8: return move<uint2>(from, to, bytes, chunk);
    case 4: return move<uint32_t>(from, to, bytes, chunk);
    case 2: return move<uint16_t>(from, to, bytes, chunk);
    default: return move<uint8_t>(from, to, bytes, chunk);
  }
}

cudaError_t launch(const DexarSlots* tensors, int64_t tensor_count, const DexarSlotCopy* copies,
                   int64_t copy_count, cudaStream_t stream) {
  Table table;
  std::copy_n(tensors, tensor_count, table.tensors);
  std::copy_n(copies, copy_count, table.copies);
  int64_t heads = 0, units = 0, slots = 0;
  for (int64_t i = 0; i < copy_count; ++i) slots = std::max(slots, copies[i].count);
  for (int64_t i = 0; i < tensor_count; ++i) {
    heads = std::max(heads, tensors[i].heads);
    units = std::max(units, slots * (tensors[i].slot_bytes / unit_of(tensors[i].slot_bytes)));
  }
  table.chunks = (units + kThreads * kUnits - 1) / (kThreads * kUnits);
  const dim3 grid(static_cast<unsigned>(heads * table.chunks), static_cast<unsigned>(tensor_count),
                  static_cast<unsigned>(copy_count));
  void* arguments[] = {&table};
  return cudaLaunchKernel(kv_copy_kernel, grid, dim3(kThreads), arguments, 0, stream);
}

const char* message(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

}  // namespace

const char* dexar_cuda_obstacle() {
  cudaFuncAttributes attributes;
  return message(cudaFuncGetAttributes(&attributes, kv_copy_kernel));
}

const char* dexar_kv_copy(const DexarSlots* tensors, int64_t tensor_count, const DexarSlotCopy* copies,
                          int64_t copy_count, int device, void* stream) {
  cudaError_t error = cudaSetDevice(device);
  for (int64_t t = 0; t < tensor_count; t += kTensors) {
    for (int64_t c = 0; c < copy_count && error == cudaSuccess; c += kCopies) {
      error = launch(tensors + t, std::min<int64_t>(kTensors, tensor_count - t), copies + c,
                     std::min<int64_t>(kCopies, copy_count - c), static_cast<cudaStream_t>(stream));
    }
  }
  return message(error);
}
