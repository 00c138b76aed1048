// The forward pass of attention on tensor cores (Dao 2023, arXiv 2307.08691): a block has a tile of queries of one head, goes
// through the keys in tiles of 64 and keeps, for each query, the sum of exp(score) v and of exp(score) relative to the largest score
// so far.
#include "attention.cuh"

enum { FORWARD_KEYS = 64 };

// M is how many times 16 queries a warp has: each piece of k and v that it reads from shared memory serves M products.
template <int D, int M>
MEAP_DEVICE void attention_tensor(const AttentionArgs &a) {
    MEAP_DYN_SHARED(bf16, shared);
    const int TILE = 64 * M, KEYS = FORWARD_KEYS;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    // The blocks with the most keys come first, so that the last to run are short.
    const int h = blockIdx.x % a.heads, b = blockIdx.x / a.heads, first = (gridDim.y - 1 - blockIdx.y) * TILE;
    const int kv = h / (a.heads / a.kv_heads), row = first + warp * 16 * M, end = min(first + TILE, a.seq);
    const bf16 *q = (const bf16 *)a.q + (long long)b * a.seq * a.q_stride + h * D;
    const long long kv_rows = (long long)b * a.seq * a.kv_stride + kv * D;
    const bf16 *k = (const bf16 *)a.k + kv_rows, *v = (const bf16 *)a.v + kv_rows;
    bf16 *qs = shared, *ks = qs + TILE * D, *vs = ks + 2 * KEYS * D; // k and v: two stages each
    const Span span = span_of(a.spans, b, a.seq, first, TILE);
    const int begin = span.least / KEYS * KEYS;

    fetch<D, TILE>(qs, q, a.q_stride, first, a.seq);
    fetch<D, KEYS>(ks, k, a.kv_stride, begin, a.seq);
    fetch<D, KEYS>(vs, v, a.kv_stride, begin, a.seq);
    copy_commit();

    int from[M][2];
    float o[M][D / 8][4], top[M][2], sum[M][2];
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = row + 16 * m + g + 8 * i;
            from[m][i] = r < a.seq ? a.starts[(long long)b * a.seq + r] : 0;
            top[m][i] = -MEAP_INFINITY, sum[m][i] = 0.0f;
        }
    }
    clear<M, D / 8>(o);
    u32 qa[M][D / 16][4];
    const float scale2 = a.scale * MEAP_LOG2E;
    int stage = 0;
    for (int key = begin; key < end; key += KEYS, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); // the tile is there, and nobody reads the other stage any more
        if (key == begin) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int d = 0; d < D / 16; d++) load_a<D>(qa[m][d], qs, warp * 16 * M + 16 * m, d);
        }
        if (key + KEYS < end) {
            fetch<D, KEYS>(ks + (stage ^ 1) * KEYS * D, k, a.kv_stride, key + KEYS, a.seq);
            fetch<D, KEYS>(vs + (stage ^ 1) * KEYS * D, v, a.kv_stride, key + KEYS, a.seq);
            copy_commit();
        }
        if (key > row + 16 * M - 1) continue; // all of it lies behind this warp's queries
        bf16 *kt = ks + stage * KEYS * D, *vt = vs + stage * KEYS * D;
        float s[M][KEYS / 8][4];
        clear<M, KEYS / 8>(s);
#pragma unroll
        for (int d = 0; d < D / 16; d++)
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                u32 kb[4];
                load_b<D>(kb, kt, 16 * n, d);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma(s[m][2 * n], qa[m][d], kb[0], kb[1]);
                    mma(s[m][2 * n + 1], qa[m][d], kb[2], kb[3]);
                }
            }
        if (key + KEYS - 1 > row || key < span.greatest) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int c = key + 8 * n + 2 * t + (i & 1), r = row + 16 * m + g + 8 * (i >> 1);
                        if (c > r || c < from[m][i >> 1]) s[m][n][i] = -MEAP_INFINITY;
                    }
        }
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float best = top[m][i];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) best = fmaxf(best, fmaxf(s[m][n][2 * i], s[m][n][2 * i + 1]));
                best = quad_max(best);
                // Before its first visible key a query's best is minus infinity, whose difference to itself is no number.
                const float base = best == -MEAP_INFINITY ? 0.0f : best * scale2, old = exp2_fast(top[m][i] * scale2 - base);
                top[m][i] = best;
                float more = 0.0f;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int j = 2 * i; j < 2 * i + 2; j++) {
                        s[m][n][j] = exp2_fast(s[m][n][j] * scale2 - base);
                        more += s[m][n][j];
                    }
                sum[m][i] = sum[m][i] * old + more;
#pragma unroll
                for (int n = 0; n < D / 8; n++) o[m][n][2 * i] *= old, o[m][n][2 * i + 1] *= old;
            }
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            u32 p[M][4];
#pragma unroll
            for (int m = 0; m < M; m++) left(p[m], s[m][2 * j], s[m][2 * j + 1]);
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                u32 vb[4];
                load_b_trans<D>(vb, vt, 16 * n, j);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma(o[m][2 * n], p[m], vb[0], vb[1]);
                    mma(o[m][2 * n + 1], p[m], vb[2], vb[3]);
                }
            }
        }
    }
    bf16 *out = (bf16 *)a.out + (long long)b * a.seq * a.q_stride + h * D;
#pragma unroll
    for (int m = 0; m < M; m++) {
        float share[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float all = quad_sum(sum[m][i]);
            const int r = row + 16 * m + g + 8 * i;
            share[i] = 1.0f / all;
            if (t == 0 && r < a.seq) a.lse[((long long)b * a.heads + h) * a.seq + r] = top[m][i] * a.scale + logf(all);
        }
        store_rows<D>(out, a.q_stride, row + 16 * m, a.seq, o[m], share[0], share[1]);
    }
}

extern "C" __global__ void __launch_bounds__(MEAP_TENSOR_THREADS, 2) meap_attention_bf16_64(const AttentionArgs a) { attention_tensor<64, 2>(a); }
extern "C" __global__ void __launch_bounds__(MEAP_TENSOR_THREADS, 2) meap_attention_bf16_128(const AttentionArgs a) { attention_tensor<128, 1>(a); }
