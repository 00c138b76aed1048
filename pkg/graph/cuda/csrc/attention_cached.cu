// Attention over a cache on tensor cores, for bf16 caches. A row is one query head of one new token; the rows that share a kv head share
// its tiles. Keys come in pieces of 64 from the cache's beginning. Each piece is worked out by itself, and pieces are put together
// strictly in order, in registers or from memory: so a row's result has the same bits whether a prompt comes at once or in parts,
// and however many blocks share the keys.
#include "attention.cuh"

enum { PIECE = 64, ROWS = 64 };

// Merge puts one more piece to what is there: o = o * old + more * fresh. The products are never contracted otherwise.
struct Merge {
    float old, fresh;
};

// merge returns the factors for sums relative to the scores `top` and `piece` (in base 2), and updates top and sum.
MEAP_DEVICE Merge merge(float &top, float &sum, float piece, float piece_sum) {
    const float best = fmaxf(top, piece), base = best == -MEAP_INFINITY ? 0.0f : best;
    const Merge f = {exp2_fast(top - base), exp2_fast(piece - base)};
    sum = fmaf(sum, f.old, __fmul_rn(piece_sum, f.fresh));
    top = best;
    return f;
}

template <int D>
MEAP_DEVICE void cached_attention_tensor(const CachedAttentionArgs &a) {
    MEAP_DYN_SHARED(bf16, shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int kv = blockIdx.x % a.kv_heads, b = blockIdx.x / a.kv_heads, group = a.heads / a.kv_heads, rows = a.seq * group;
    const int first = blockIdx.y * ROWS, past = a.past[b], limit = min(past + a.seq, a.capacity);
    const long long kv_stride = (long long)a.kv_heads * D, kv_rows = (long long)b * a.capacity * kv_stride + kv * D;
    const bf16 *k = (const bf16 *)a.kcache + kv_rows, *v = (const bf16 *)a.vcache + kv_rows;
    bf16 *qs = shared, *ks = qs + ROWS * D, *vs = ks + 2 * PIECE * D;

    // Row r is head r % group of token r / group.
#pragma unroll
    for (int i = 0; i < ROWS * D / 8; i += MEAP_TENSOR_THREADS) {
        const int r = (i + threadIdx.x) / (D / 8), index = (i + threadIdx.x) % (D / 8), row = first + r;
        const bf16 *q = (const bf16 *)a.q + (((long long)b * a.seq + row / group) * a.heads + kv * group + row % group) * D;
        copy16(piece<D>(qs, r, index), q + index * 8, row < rows);
    }
    // The last key that any of this block's rows sees, and the pieces that are this block's.
    const int last = past + (min(first + ROWS, rows) - 1) / group;
    const int begin = a.splits > 1 ? blockIdx.z * PIECE : 0, end = a.splits > 1 ? min(begin + 1, last + 1) : last + 1;
    if (begin < end) {
        fetch<D, PIECE>(ks, k, kv_stride, begin, limit);
        fetch<D, PIECE>(vs, v, kv_stride, begin, limit);
    }
    copy_commit();
    int sees[2]; // the last key of a lane's two rows
    float o[1][D / 8][4], top[2], sum[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        sees[i] = past + min(first + warp * 16 + g + 8 * i, rows - 1) / group;
        top[i] = -MEAP_INFINITY, sum[i] = 0.0f;
    }
    clear<1, D / 8>(o);
    u32 qa[D / 16][4];
    const float scale2 = a.scale * MEAP_LOG2E;
    int stage = 0;
    for (int key = begin; key < end; key += PIECE, stage ^= 1) {
        copy_wait<0>();
        __syncthreads();
        if (key == begin) {
#pragma unroll
            for (int d = 0; d < D / 16; d++) load_a<D>(qa[d], qs, warp * 16, d);
        }
        if (key + PIECE < end) {
            fetch<D, PIECE>(ks + (stage ^ 1) * PIECE * D, k, kv_stride, key + PIECE, limit);
            fetch<D, PIECE>(vs + (stage ^ 1) * PIECE * D, v, kv_stride, key + PIECE, limit);
            copy_commit();
        }
        bf16 *kt = ks + stage * PIECE * D, *vt = vs + stage * PIECE * D;
        float s[1][PIECE / 8][4], best[2] = {-MEAP_INFINITY, -MEAP_INFINITY}, more[2] = {0.0f, 0.0f};
        clear<1, PIECE / 8>(s);
#pragma unroll
        for (int d = 0; d < D / 16; d++)
#pragma unroll
            for (int n = 0; n < PIECE / 16; n++) {
                u32 kb[4];
                load_b<D>(kb, kt, 16 * n, d);
                mma(s[0][2 * n], qa[d], kb[0], kb[1]);
                mma(s[0][2 * n + 1], qa[d], kb[2], kb[3]);
            }
#pragma unroll
        for (int n = 0; n < PIECE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[0][n][i] = key + 8 * n + 2 * t + (i & 1) <= sees[i >> 1] ? __fmul_rn(s[0][n][i], scale2) : -MEAP_INFINITY;
                best[i >> 1] = fmaxf(best[i >> 1], s[0][n][i]);
            }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            best[i] = quad_max(best[i]);
            const float base = best[i] == -MEAP_INFINITY ? 0.0f : best[i];
#pragma unroll
            for (int n = 0; n < PIECE / 8; n++)
#pragma unroll
                for (int j = 2 * i; j < 2 * i + 2; j++) {
                    s[0][n][j] = exp2_fast(__fadd_rn(s[0][n][j], -base));
                    more[i] = __fadd_rn(more[i], s[0][n][j]);
                }
            more[i] = quad_sum(more[i]);
        }
        float piece_o[1][D / 8][4];
        clear<1, D / 8>(piece_o);
#pragma unroll
        for (int j = 0; j < PIECE / 16; j++) {
            u32 p[4];
            left(p, s[0][2 * j], s[0][2 * j + 1]);
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                u32 vb[4];
                load_b_trans<D>(vb, vt, 16 * n, j);
                mma(piece_o[0][2 * n], p, vb[0], vb[1]);
                mma(piece_o[0][2 * n + 1], p, vb[2], vb[3]);
            }
        }
        if (a.splits > 1) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int row = first + warp * 16 + g + 8 * i;
                if (row >= rows) continue;
                float *partial = a.partial + (((long long)blockIdx.z * gridDim.x + blockIdx.x) * rows + row) * (D + 2);
#pragma unroll
                for (int n = 0; n < D / 8; n++)
                    *(float2 *)(partial + 8 * n + 2 * t) = make_float2(piece_o[0][n][2 * i], piece_o[0][n][2 * i + 1]);
                if (t == 0) partial[D] = best[i], partial[D + 1] = more[i];
            }
            continue;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const Merge f = merge(top[i], sum[i], best[i], more[i]);
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int j = 2 * i; j < 2 * i + 2; j++) o[0][n][j] = fmaf(o[0][n][j], f.old, __fmul_rn(piece_o[0][n][j], f.fresh));
        }
    }
    copy_wait<0>();
    if (a.splits > 1) return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = first + warp * 16 + g + 8 * i;
        if (row >= rows) continue;
        bf16 *out = (bf16 *)a.out + (((long long)b * a.seq + row / group) * a.heads + kv * group + row % group) * D;
        const float share = 1.0f / sum[i];
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *(u32 *)(out + 8 * n + 2 * t) = pack2(__fmul_rn(o[0][n][2 * i], share), __fmul_rn(o[0][n][2 * i + 1], share));
    }
}

extern "C" __global__ void __launch_bounds__(MEAP_TENSOR_THREADS, 2) meap_cached_attention_bf16_64(const CachedAttentionArgs a) {
    cached_attention_tensor<64>(a);
}
extern "C" __global__ void __launch_bounds__(MEAP_TENSOR_THREADS, 2) meap_cached_attention_bf16_128(const CachedAttentionArgs a) {
    cached_attention_tensor<128>(a);
}

// One block for each row, one thread for two columns.
extern "C" __global__ void __launch_bounds__(64) meap_cached_attention_merge_bf16(const CachedAttentionArgs a) {
    const int group = a.heads / a.kv_heads, rows = a.seq * group, row = blockIdx.x % rows, d = a.head_dim;
    const long long heads = (long long)a.batch * a.kv_heads, head = blockIdx.x / rows;
    const int b = (int)(head / a.kv_heads), kv = (int)(head % a.kv_heads), pieces = (a.past[b] + row / group) / PIECE + 1;
    float top = -MEAP_INFINITY, sum = 0.0f, o[2] = {0.0f, 0.0f};
    const int c = 2 * threadIdx.x;
    if (c >= d) return;
    for (int i = 0; i < pieces; i++) {
        const float *partial = a.partial + ((i * heads + head) * rows + row) * (d + 2);
        const Merge f = merge(top, sum, partial[d], partial[d + 1]);
        const float2 more = *(const float2 *)(partial + c);
        o[0] = fmaf(o[0], f.old, __fmul_rn(more.x, f.fresh));
        o[1] = fmaf(o[1], f.old, __fmul_rn(more.y, f.fresh));
    }
    bf16 *out = (bf16 *)a.out + (((long long)b * a.seq + row / group) * a.heads + kv * group + row % group) * d;
    const float share = 1.0f / sum;
    *(u32 *)(out + c) = pack2(__fmul_rn(o[0], share), __fmul_rn(o[1], share));
}
