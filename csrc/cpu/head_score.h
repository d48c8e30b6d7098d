#pragma once

#include <cstdint>

namespace dexar {

/// Element types of u and V. Sums, scores and maps are double for kFloat64 and float for all others.
enum class Type { kFloat32, kFloat64, kBFloat16, kFloat16 };

/// The code paths of head_score, slowest first. The last two multiply pairs of bfloat16, by VDPBF16PS and TDPBF16PS,
/// for which subnormal numbers are 0; other types take kAvx512 under these two.
enum class InstructionSet { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };

/// One layer's head scores and maps for T queries (METHOD.md sections 2 and 3):
///
///   G[t,h,j] = relu(<u[t,h], V[k(h),j]>)       0 where query t may not attend to key j
///   S_img[t,h] = max_{j visual} G    S_txt[t,h] = max_{j text} G    w = relu(S_img - S_txt)
///   E[t,n] += sum_h w[t,h] G[t,h,n]   U[t,n] += sum_h G[t,h,n]      n over the visual keys
///
/// With a query, G is multiplied by the attention probability, recomputed where it is needed (Attn x Grad):
///
///   G[t,h,j] = A[t,h,j] relu(<u[t,h], V[k(h),j]>)    A[t,h,j] = exp(scale <q[t,h], k[k(h),j]> - L[t,h])
///
/// NaN in G reaches every result it enters. Strides are in elements and may be anything, 0 included.
/// Outputs are dense and hold the sum type (double for kFloat64, else float). Scores are written in full; E and U
/// are added to what is there, so that one buffer of each takes the layers one after the other.
struct HeadScore {
  Type type;
  int64_t queries, heads, kv_heads, keys, dim;  // T, H, H_kv, S, D; H is a multiple of H_kv

  const void* u;  // [T, H, D]
  int64_t u_stride[3];
  const void* value;  // [H_kv, S, D]
  int64_t value_stride[3];

  const void* query;  // [T, H, D] as the model's attention took them; nullptr: G is not multiplied by A
  int64_t query_stride[3];
  const void* key;  // [H_kv, S, D]
  int64_t key_stride[3];
  const void* log_sum_exp;  // [T, H] L, dense, of the sum type
  double scale;

  const int32_t* visual;  // [N] positions; keys listed in neither are ignored
  int64_t visual_count;
  const int32_t* text;  // [M]
  int64_t text_count;
  const int32_t* first;  // [T] query t attends to keys first[t] <= j <= last[t] ...
  const int32_t* last;
  const uint8_t* mask;  // ... for which mask[t * mask_stride + j] is not 0; nullptr: to all of them
  int64_t mask_stride;

  void* visual_score;    // [T, H] S_img
  void* text_score;      // [T, H] S_txt
  int64_t* text_winner;  // [T, H] position of the first text key with G = S_txt > 0; -1 where there is none
  void* smallest;        // [T, H] min of G over the visual keys that t attends to, infinity over none
  void* token_map;       // [T, N] E is added to this
  void* unfiltered_map;  // [T, N] and U to this
};

/// Whether this CPU, its operating system and this build have a path.
bool available(InstructionSet instructions);

/// Computes all outputs on `threads` threads. The result depends on the shape and the instruction set, never
/// on the number of threads. V is read once for every 64 queries, E and U are read and written once. G is never
/// in memory for more than 64 queries of one head: besides the results there are at most
/// threads * 64 (N + 2 D) + 2 max(T, 512) N elements and, with a query, threads * 128 D more, with D rounded up to a
/// multiple of 16.
void head_score(const HeadScore& problem, InstructionSet instructions, int threads);

}  // namespace dexar
