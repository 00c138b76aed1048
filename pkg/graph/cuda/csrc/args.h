// The arguments and the launch geometry of every CUDA kernel. Go mirrors these structs (pointers, then 8-byte, then 4-byte
// fields: no padding but at the end), and so does the emulator; this file is plain C.
//
// A kernel takes one struct by value. "T" below is the storage type in the kernel's suffix: float, or bfloat16 as 16-bit
// integers; T pointers are void *. Sums are fp32 (fp64 where said). Rows are packed unless there is a stride; strides count
// elements. Pointers may have any alignment their type allows, except where 16 bytes are asked for; 16-byte aligned pointers
// and widths that are multiples of 8 run vectorised. No result depends on the grid of an element-wise kernel, nor on the
// alignment; outputs may be the inputs where "in place" is said.
#ifndef MEAP_ARGS_H
#define MEAP_ARGS_H

// ---- Element-wise. grid: any, best min(ceil(n / 2048), 16 * processors); block 256.
#define MEAP_BLOCK 256

// cast_f32_bf16 (nearest, ties to even), cast_bf16_f32: y [n] = x [n].
typedef struct {
    const void *x;
    void *y;
    long long n;
} CastArgs;

// add_f32, add_bf16: z [n] = x + y, all T; in place.
typedef struct {
    const void *x, *y;
    void *z;
    long long n;
} AddArgs;

// accumulate_f32, accumulate_bf16: acc [n] fp32 += g [n] T.
typedef struct {
    float *acc;
    const void *g;
    long long n;
} AccumulateArgs;

// swiglu_f32, swiglu_bf16: y [n] = silu(gate) * up, all T; in place.
typedef struct {
    const void *gate, *up;
    void *y;
    long long n;
} SwiGLUArgs;

// swiglu_grad_f32, swiglu_grad_bf16: gate, up, dy -> dgate, dup and, unless null, y as swiglu gives it, all T [n]; in place.
typedef struct {
    const void *gate, *up, *dy;
    void *dgate, *dup, *y;
    long long n;
} SwiGLUGradArgs;

// bias_f32, bias_f32_bf16: y [n, width] = x [n, width] fp32 + bias [width] fp32; without x (null) the bias alone. y is of the last
// type in the name; bias_f32 in place.
typedef struct {
    const float *bias, *x;
    void *y;
    long long n;
    int width;
} BiasArgs;

// rope_f32, rope_bf16: x [n, width] T, cos and sin [positions, half] fp32, pos [n] -> y [n, width] T; width is a multiple of
// 2 * half; in place.
typedef struct {
    const void *x;
    const float *cos, *sin;
    const int *pos;
    void *y;
    long long n;
    int width, half, inverse;
} RoPEArgs;

// embedding_f32 (fp32 table -> fp32), embedding_bf16 (bf16 -> bf16), embedding_f32_bf16 (fp32 -> bf16): table [vocab, dim],
// ids [n] -> y [n, dim]. An id outside of the table gives a row of NaN, so that the loss says so. The count for the grid is
// n * dim.
typedef struct {
    const void *table;
    const int *ids;
    void *y;
    long long n;
    int vocab, dim;
} EmbeddingArgs;

// weighted_sum_grad_f32: y [n] = scale [] * dy [].
typedef struct {
    const float *scale, *dy;
    float *y;
    long long n;
} WeightedSumGradArgs;

// adamw_f32: as graph.AdamW; p16, if not null, receives the new p [n] in bf16. beta1c and beta2c are 1 - beta, taken in fp64 by
// the host.
typedef struct {
    float *p, *g, *m, *v;
    void *p16;
    const float *report, *hyper;
    long long n;
    float beta1, beta2, beta1c, beta2c, epsilon, decay, clip;
} AdamWArgs;

// ---- Row-wise and reductions.

// rmsnorm_f32, rmsnorm_bf16: x [n, dim] T, w [dim] fp32 -> y [n, dim] T, rstd [n] fp32. One warp per row: grid
// ceil(n / 4), block 128. In place.
typedef struct {
    const void *x;
    const float *w;
    void *y;
    float *rstd;
    long long n;
    int dim;
    float eps;
} RMSNormArgs;

// rmsnorm_grad_f32, rmsnorm_grad_bf16: x, dy [n, dim] T, w [dim], rstd [n] -> dx [n, dim] T and partial
// [ceil(n / rows), dim] fp32, dw's sums over `rows` rows each, which reduce_rows_f32 adds up. grid ceil(n / rows), block
// 32 * min(8, ceil(dim / 256)), dynamic shared memory 4 * dim bytes. rows: best ceil(n / 1056), but at least 8. dx may be dy. more [n, dim]
// T, unless null, is added to dx, and may be it. y [n, dim] T, unless null, becomes what rmsnorm gives.
typedef struct {
    const void *x;
    const float *w, *rstd;
    const void *dy, *more;
    void *dx, *y;
    float *partial;
    long long n;
    int dim, rows;
} RMSNormGradArgs;

// column_sum_f32, column_sum_bf16: dy [n, width] T -> partial [ceil(n / rows), width] fp32, as above. grid
// (ceil(width / 256), ceil(n / rows)), block 256. rows: best 256, or more so that ceil(n / rows) <= 65535.
typedef struct {
    const void *dy;
    float *partial;
    long long n;
    int width, rows;
} ColumnSumArgs;

// reduce_rows_f32: out [width] = the sum of partial [rows, width] over rows, added to out if acc. grid ceil(width / 32),
// block 256.
typedef struct {
    const float *partial;
    float *out;
    int rows, width, acc;
} ReduceRowsArgs;

// weighted_sum_f32: y [] = scale [] * sum of x [n], in fp64. grid 1, block 1024.
typedef struct {
    const float *x, *scale;
    float *y;
    long long n;
} WeightedSumArgs;

// The norm of many tensors in two launches. grads [count] are device pointers, sizes [count] their elements, first [count+1]
// each one's first block: first[0] = 0, first[i+1] = first[i] + ceil(sizes[i] / MEAP_NORM_CHUNK). partial [first[count]].
// grad_norm_partial_f32: grid first[count], block 256. grad_norm_total_f32: -> norm [], squares [count]; grid 1, block 1024.
#define MEAP_NORM_CHUNK 16384
typedef struct {
    const float *const *grads;
    const long long *sizes;
    const int *first;
    double *partial, *total; // total [count]: scratch, each tensor's sum of squares
    float *norm, *squares;
    int count;
} GradNormArgs;

// step_report_f32: as graph.StepReport. grid 1, block 32.
typedef struct {
    float *loss;
    const float *norm;
    float *halted, *report;
} StepReportArgs;

// cross_entropy_f32: logits [n, vocab] fp32, labels [n] -> nll [n] fp32; 0 where the label is negative. An id at or above vocab gives
// NaN.
// cross_entropy_grad_f32, and cross_entropy_grad_f32_bf16 (bf16 dlogits): also dnll [n] fp32 -> dlogits [n, vocab] =
// (softmax - one-hot) * dnll; dlogits may be logits where both are fp32.
// grid n, block 512, dynamic shared memory 4 * more bytes, for logits of a row behind the first MEAP_LOGITS_HELD; more is 2048 or a multiple.
#define MEAP_LOGITS_HELD 16384
typedef struct {
    const float *logits;
    const int *labels;
    const float *dnll;
    float *nll;
    void *dlogits;
    long long n;
    long long logits_stride, dlogits_stride;
    int vocab, more;
} CrossEntropyArgs;

// ---- Gradient of the embedding: tokens are sorted by id, stably, then each id's rows are summed in the order of tokens.
// A pass sorts by the digit of MEAP_SORT_BITS bits at shift; passes at shift 0, MEAP_SORT_BITS, ... until vocab-1 has no bits
// left (at least one), keys and tokens going back and forth between two pairs of buffers. In the first pass keys_in are the
// ids and tokens_in is null (0, 1, 2 ...). blocks = ceil(n / MEAP_SORT_TILE); counts [2^MEAP_SORT_BITS, blocks].
// Three launches a pass: sort_count (grid blocks, block 256), sort_scan (grid 1, block 1024), sort_scatter (grid blocks, block
// 256).
#define MEAP_SORT_BITS 8
#define MEAP_SORT_TILE 1024
typedef struct {
    const int *keys_in, *tokens_in;
    int *keys_out, *tokens_out, *counts;
    int n, shift, blocks;
} SortArgs;

// embedding_grad_f32, embedding_grad_bf16: dy [*, dim] T, ids [n] sorted, tokens [n] -> added to dtable [vocab, dim] fp32 (zero
// it before where it is not to be added to). Ids outside of the table are left out.
// grid ceil(n / MEAP_FEW_PLACES) ceil(dim / 256) + ceil(n / 8), block 256.
#define MEAP_FEW_PLACES 32
typedef struct {
    const void *dy;
    const int *ids, *tokens;
    float *dtable;
    int n, vocab, dim;
} EmbeddingGradArgs;

// ---- Attention. Rows of q, out, dout, dq have the stride q_stride (>= heads * head_dim), those of k, v, dk, dv kv_stride.
// lse and delta are [batch, heads, seq] fp32. scale is 1 / sqrt(head_dim).
//
// Four families of kernels, by suffix:
//   _bf16_64, _bf16_128   tensor cores; head_dim as named; all T pointers aligned to 16 bytes, strides multiples of 8
//   _bf16_64_sm90         the same, for compute capability 9.0 alone
//   _f32, _bf16           any head_dim <= 128, any alignment
//   _f32_wide, _bf16_wide any head_dim <= 256
// Query (or key) tiles: MEAP_TILE_*; blocks and dynamic shared memory: MEAP_*_THREADS, MEAP_*_SHARED, where tile is 32, or 16 for
// _wide, and d is head_dim.

// attention_spans: starts [batch * seq] -> spans [batch, ceil(seq / 64), 2], the least and the greatest start in each 64
// queries. Before attention and before attention_grad. grid (ceil(seq / 64), batch), block 64.
#define MEAP_SPAN 64
typedef struct {
    const int *starts;
    int *spans;
    int batch, seq;
} AttentionSpansArgs;

// attention_*: grid (heads * batch, ceil(seq / tile)), tile MEAP_FORWARD_TILE_64, _128, or 32 and 16.
typedef struct {
    const void *q, *k, *v;
    const int *starts, *spans;
    void *out;
    float *lse;
    long long q_stride, kv_stride;
    int batch, seq, heads, kv_heads, head_dim;
    float scale;
} AttentionArgs;

// attention_delta_f32, attention_delta_bf16: delta [batch, heads, seq] = sum of out * dout over each head; q_stride for both.
// grid (heads * batch, ceil(seq / MEAP_DELTA_TILE)), block 256.
#define MEAP_DELTA_TILE 128
typedef struct {
    const void *out, *dout;
    float *delta;
    long long q_stride;
    int batch, seq, heads, head_dim;
} AttentionDeltaArgs;

// attention_grad_q_*: -> dq; grid (heads * batch, ceil(seq / tile)), tile MEAP_GRAD_Q_TILE_64, _128, or 32 and 16.
// attention_grad_kv_*: -> dk, dv; grid (kv_heads * batch, ceil(seq / tile)), tile MEAP_GRAD_KV_TILE_64, _128, or 32 and 16.
typedef struct {
    const void *q, *k, *v, *dout;
    const float *lse, *delta;
    const int *starts, *spans;
    void *dq, *dk, *dv;
    long long q_stride, kv_stride;
    int batch, seq, heads, kv_heads, head_dim;
    float scale;
} AttentionGradArgs;

// cache_write_f32, cache_write_bf16: rows k, v [batch * seq, width] T -> kcache, vcache [batch, capacity, width] T at
// past[b] + i. Rows beyond the capacity are not written. Element-wise, the count being batch * seq * width.
typedef struct {
    const void *k, *v;
    const int *past;
    void *kcache, *vcache;
    int batch, seq, capacity, width;
} CacheWriteArgs;

// cached_attention_*, after cache_write: q [batch * seq, heads * head_dim] T, caches [batch, capacity, kv_heads * head_dim] T
// -> out, all packed. Query i of sequence b sees the keys 0..past[b]+i.
//   _f32, _bf16, and _wide: grid (heads * batch, ceil(seq / tile)), block and shared memory as attention.
//   _bf16_64, _bf16_128: rows = seq * heads / kv_heads query rows share a kv head. splits = 1: grid
//     (kv_heads * batch, ceil(rows / 64), 1). splits = ceil(keys / 64), keys being at least the largest past + seq: grid
//     (kv_heads * batch, ceil(rows / 64), splits), each block one piece of 64 keys, its results to partial [splits, batch,
//     kv_heads, rows, head_dim + 2] fp32, which cached_attention_merge_bf16 (grid batch * kv_heads * rows, block 64) puts
//     together. Both give the same bits. Splits pay where the blocks of splits = 1 do not fill the processors.
//     block 128, dynamic shared memory MEAP_CACHED_SHARED(d).
typedef struct {
    const void *q, *kcache, *vcache;
    const int *past;
    void *out;
    float *partial;
    int batch, seq, heads, kv_heads, head_dim, capacity, splits;
    float scale;
} CachedAttentionArgs;

#define MEAP_FORWARD_TILE_64 128
#define MEAP_FORWARD_TILE_128 64
#define MEAP_GRAD_Q_TILE_64 128
#define MEAP_GRAD_Q_TILE_128 64
#define MEAP_GRAD_KV_TILE_64 128
#define MEAP_GRAD_KV_TILE_128 64
#define MEAP_FORWARD_TILE_SM90 192
#define MEAP_GRAD_Q_TILE_SM90 128
#define MEAP_GRAD_KV_TILE_SM90 128
#define MEAP_TENSOR_THREADS 128
#define MEAP_SM90_THREADS(tile) (2 * (tile) + 128)
#define MEAP_GENERAL_THREADS 256
// Dynamic shared memory in bytes: of the tensor-core kernels (d = 64 or 128) ...
#define MEAP_FORWARD_SHARED(d) ((d) == 64 ? 49152 : 81920)
#define MEAP_GRAD_Q_SHARED(d) ((d) == 64 ? 65536 : 98304)
#define MEAP_GRAD_KV_SHARED(d) ((d) == 64 ? 66560 : 99328)
#define MEAP_CACHED_SHARED(d) ((d) == 64 ? 40960 : 81920)
#define MEAP_FORWARD_SHARED_SM90 131200
#define MEAP_GRAD_Q_SHARED_SM90 131200
#define MEAP_GRAD_KV_SHARED_SM90 135296
// ... and of the general ones, forward (and cached), grad_q and grad_kv.
#define MEAP_GENERAL_FORWARD_SHARED(tile, d) (4 * (tile) * (3 * ((d) + 1) + (tile) + 1))
#define MEAP_GENERAL_GRAD_SHARED(tile, d) (4 * (tile) * (4 * ((d) + 1) + 2 * ((tile) + 1)))

// ---- Products that cuBLASLt has no algorithm for.

// product_f32, product_bf16, product_bf16_f32: d [m, n] = a b, plus c [m, n] unless that is null, summed in fp32; a and b of the first type
// in the name, c and d, which are packed, of the last; c may be d. Element (i, p) of a is at a_row * i + a_column * p, element (p, j) of b at b_row * p + b_column * j.
// grid (ceil(n / MEAP_PRODUCT_TILE), ceil(m / MEAP_PRODUCT_TILE)), block MEAP_BLOCK.
#define MEAP_PRODUCT_TILE 64
typedef struct {
    const void *a, *b, *c;
    void *d;
    long long a_row, a_column, b_row, b_column;
    int m, n, k;
} ProductArgs;

// Every kernel: X(name without meap_, its arguments).
#define MEAP_KERNELS(X) \
    X(cast_f32_bf16, CastArgs) \
    X(cast_bf16_f32, CastArgs) \
    X(add_f32, AddArgs) \
    X(add_bf16, AddArgs) \
    X(accumulate_f32, AccumulateArgs) \
    X(accumulate_bf16, AccumulateArgs) \
    X(swiglu_f32, SwiGLUArgs) \
    X(swiglu_bf16, SwiGLUArgs) \
    X(swiglu_grad_f32, SwiGLUGradArgs) \
    X(swiglu_grad_bf16, SwiGLUGradArgs) \
    X(bias_f32, BiasArgs) \
    X(bias_f32_bf16, BiasArgs) \
    X(rope_f32, RoPEArgs) \
    X(rope_bf16, RoPEArgs) \
    X(embedding_f32, EmbeddingArgs) \
    X(embedding_bf16, EmbeddingArgs) \
    X(embedding_f32_bf16, EmbeddingArgs) \
    X(weighted_sum_grad_f32, WeightedSumGradArgs) \
    X(adamw_f32, AdamWArgs) \
    X(rmsnorm_f32, RMSNormArgs) \
    X(rmsnorm_bf16, RMSNormArgs) \
    X(rmsnorm_grad_f32, RMSNormGradArgs) \
    X(rmsnorm_grad_bf16, RMSNormGradArgs) \
    X(column_sum_f32, ColumnSumArgs) \
    X(column_sum_bf16, ColumnSumArgs) \
    X(reduce_rows_f32, ReduceRowsArgs) \
    X(weighted_sum_f32, WeightedSumArgs) \
    X(grad_norm_partial_f32, GradNormArgs) \
    X(grad_norm_total_f32, GradNormArgs) \
    X(step_report_f32, StepReportArgs) \
    X(cross_entropy_f32, CrossEntropyArgs) \
    X(cross_entropy_grad_f32, CrossEntropyArgs) \
    X(cross_entropy_grad_f32_bf16, CrossEntropyArgs) \
    X(sort_count, SortArgs) \
    X(sort_scan, SortArgs) \
    X(sort_scatter, SortArgs) \
    X(embedding_grad_f32, EmbeddingGradArgs) \
    X(embedding_grad_bf16, EmbeddingGradArgs) \
    X(attention_spans, AttentionSpansArgs) \
    X(attention_bf16_64, AttentionArgs) \
    X(attention_bf16_128, AttentionArgs) \
    X(attention_bf16_64_sm90, AttentionArgs) \
    X(attention_f32, AttentionArgs) \
    X(attention_bf16, AttentionArgs) \
    X(attention_f32_wide, AttentionArgs) \
    X(attention_bf16_wide, AttentionArgs) \
    X(attention_delta_f32, AttentionDeltaArgs) \
    X(attention_delta_bf16, AttentionDeltaArgs) \
    X(attention_grad_q_bf16_64, AttentionGradArgs) \
    X(attention_grad_q_bf16_128, AttentionGradArgs) \
    X(attention_grad_q_bf16_64_sm90, AttentionGradArgs) \
    X(attention_grad_q_f32, AttentionGradArgs) \
    X(attention_grad_q_bf16, AttentionGradArgs) \
    X(attention_grad_q_f32_wide, AttentionGradArgs) \
    X(attention_grad_q_bf16_wide, AttentionGradArgs) \
    X(attention_grad_kv_bf16_64, AttentionGradArgs) \
    X(attention_grad_kv_bf16_128, AttentionGradArgs) \
    X(attention_grad_kv_bf16_64_sm90, AttentionGradArgs) \
    X(attention_grad_kv_f32, AttentionGradArgs) \
    X(attention_grad_kv_bf16, AttentionGradArgs) \
    X(attention_grad_kv_f32_wide, AttentionGradArgs) \
    X(attention_grad_kv_bf16_wide, AttentionGradArgs) \
    X(cache_write_f32, CacheWriteArgs) \
    X(cache_write_bf16, CacheWriteArgs) \
    X(cached_attention_bf16_64, CachedAttentionArgs) \
    X(cached_attention_bf16_128, CachedAttentionArgs) \
    X(cached_attention_merge_bf16, CachedAttentionArgs) \
    X(cached_attention_f32, CachedAttentionArgs) \
    X(cached_attention_bf16, CachedAttentionArgs) \
    X(cached_attention_f32_wide, CachedAttentionArgs) \
    X(cached_attention_bf16_wide, CachedAttentionArgs) \
    X(product_f32, ProductArgs) \
    X(product_bf16, ProductArgs) \
    X(product_bf16_f32, ProductArgs)

#endif
