// Attention on tensor cores.
#include "ptx.cuh"

extern "C" __global__ void meap_attention_bf16_64(const AttentionArgs) {}
extern "C" __global__ void meap_attention_bf16_128(const AttentionArgs) {}
extern "C" __global__ void meap_attention_grad_q_bf16_64(const AttentionGradArgs) {}
extern "C" __global__ void meap_attention_grad_q_bf16_128(const AttentionGradArgs) {}
extern "C" __global__ void meap_attention_grad_kv_bf16_64(const AttentionGradArgs) {}
extern "C" __global__ void meap_attention_grad_kv_bf16_128(const AttentionGradArgs) {}
extern "C" __global__ void meap_cached_attention_bf16_64(const CachedAttentionArgs) {}
extern "C" __global__ void meap_cached_attention_bf16_128(const CachedAttentionArgs) {}
extern "C" __global__ void meap_cached_attention_merge_bf16(const CachedAttentionArgs) {}
