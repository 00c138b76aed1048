// The backward pass of attention on tensor cores, in two kernels that both compute the probabilities again: one sums over keys for dq,
// one over queries for dk and dv. That costs two products more than one kernel would, but none of them adds to memory that
// other blocks add to, so the sums have an order.
#include "attention.cuh"

enum { TILE_KEYS = 64, TILE_QUERIES = 64 };

// A block has 64 M queries of one head. Keys come in tiles of 64, of which HALF at a time are worked on.
template <int D, int M, int HALF>
MEAP_DEVICE void attention_grad_q_tensor(const AttentionGradArgs &a) {
    MEAP_DYN_SHARED(bf16, shared);
    const int TILE = 64 * M, KEYS = TILE_KEYS;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int h = blockIdx.x % a.heads, b = blockIdx.x / a.heads, first = (gridDim.y - 1 - blockIdx.y) * TILE;
    const int kv = h / (a.heads / a.kv_heads), row = first + warp * 16 * M, end = min(first + TILE, a.seq);
    const long long q_rows = (long long)b * a.seq * a.q_stride + h * D, kv_rows = (long long)b * a.seq * a.kv_stride + kv * D;
    const bf16 *k = (const bf16 *)a.k + kv_rows, *v = (const bf16 *)a.v + kv_rows;
    bf16 *qs = shared, *dos = qs + TILE * D, *ks = dos + TILE * D, *vs = ks + 2 * KEYS * D;
    const Span span = span_of(a.spans, b, a.seq, first, TILE);
    const int begin = span.least / KEYS * KEYS;

    fetch<D, TILE>(qs, (const bf16 *)a.q + q_rows, a.q_stride, first, a.seq);
    fetch<D, TILE>(dos, (const bf16 *)a.dout + q_rows, a.q_stride, first, a.seq);
    fetch<D, KEYS>(ks, k, a.kv_stride, begin, a.seq);
    fetch<D, KEYS>(vs, v, a.kv_stride, begin, a.seq);
    copy_commit();

    int from[M][2];
    float lse2[M][2], delta[M][2], dq[M][D / 8][4];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = row + 16 * m + g + 8 * i;
            const long long at = ((long long)b * a.heads + h) * a.seq + r;
            from[m][i] = r < a.seq ? a.starts[(long long)b * a.seq + r] : 0;
            lse2[m][i] = r < a.seq ? a.lse[at] * MEAP_LOG2E : 0.0f, delta[m][i] = r < a.seq ? a.delta[at] : 0.0f;
        }
    clear<M, D / 8>(dq);
    u32 qa[M][D / 16][4], doa[M][D / 16][4];
    const float scale2 = a.scale * MEAP_LOG2E;
    int stage = 0;
    for (int key = begin; key < end; key += KEYS, stage ^= 1) {
        copy_wait<0>();
        __syncthreads();
        if (key == begin) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int d = 0; d < D / 16; d++) {
                    load_a<D>(qa[m][d], qs, warp * 16 * M + 16 * m, d);
                    load_a<D>(doa[m][d], dos, warp * 16 * M + 16 * m, d);
                }
        }
        if (key + KEYS < end) {
            fetch<D, KEYS>(ks + (stage ^ 1) * KEYS * D, k, a.kv_stride, key + KEYS, a.seq);
            fetch<D, KEYS>(vs + (stage ^ 1) * KEYS * D, v, a.kv_stride, key + KEYS, a.seq);
            copy_commit();
        }
#pragma unroll 1
        for (int half = 0; half < KEYS; half += HALF) {
            if (key + half > row + 16 * M - 1) break;
            bf16 *kt = ks + (stage * KEYS + half) * D, *vt = vs + (stage * KEYS + half) * D;
            float s[M][HALF / 8][4], dp[M][HALF / 8][4];
            clear<M, HALF / 8>(s);
            clear<M, HALF / 8>(dp);
#pragma unroll
            for (int d = 0; d < D / 16; d++)
#pragma unroll
                for (int n = 0; n < HALF / 16; n++) {
                    u32 kb[4], vb[4];
                    load_b<D>(kb, kt, 16 * n, d);
                    load_b<D>(vb, vt, 16 * n, d);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma(s[m][2 * n], qa[m][d], kb[0], kb[1]);
                        mma(s[m][2 * n + 1], qa[m][d], kb[2], kb[3]);
                        mma(dp[m][2 * n], doa[m][d], vb[0], vb[1]);
                        mma(dp[m][2 * n + 1], doa[m][d], vb[2], vb[3]);
                    }
                }
            const bool masked = key + half + HALF - 1 > row || key + half < span.greatest;
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int n = 0; n < HALF / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float p = exp2_fast(s[m][n][i] * scale2 - lse2[m][i >> 1]);
                        const int c = key + half + 8 * n + 2 * t + (i & 1), r = row + 16 * m + g + 8 * (i >> 1);
                        if (masked && (c > r || c < from[m][i >> 1])) p = 0.0f;
                        s[m][n][i] = p * (dp[m][n][i] - delta[m][i >> 1]);
                    }
#pragma unroll
            for (int j = 0; j < HALF / 16; j++) {
                u32 ds[M][4];
#pragma unroll
                for (int m = 0; m < M; m++) left(ds[m], s[m][2 * j], s[m][2 * j + 1]);
#pragma unroll
                for (int n = 0; n < D / 16; n++) {
                    u32 kb[4];
                    load_b_trans<D>(kb, kt, 16 * n, j);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma(dq[m][2 * n], ds[m], kb[0], kb[1]);
                        mma(dq[m][2 * n + 1], ds[m], kb[2], kb[3]);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < M; m++) store_rows<D>((bf16 *)a.dq + q_rows, a.q_stride, row + 16 * m, a.seq, dq[m], a.scale, a.scale);
}

// A block has 64 M keys of one kv head and goes through the query heads that read it, and through their queries, in order. The products are
// those of the transposed matrices, keys by queries, so that probabilities and their gradients are left operands as they are.
template <int D, int M, int HALF>
MEAP_DEVICE void attention_grad_kv_tensor(const AttentionGradArgs &a) {
    MEAP_DYN_SHARED(bf16, shared);
    const int TILE = 64 * M, QUERIES = TILE_QUERIES;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int kv = blockIdx.x % a.kv_heads, b = blockIdx.x / a.kv_heads, first = blockIdx.y * TILE, group = a.heads / a.kv_heads;
    const int row = first + warp * 16 * M, spans = (a.seq + MEAP_SPAN - 1) / MEAP_SPAN;
    const long long kv_rows = (long long)b * a.seq * a.kv_stride + kv * D;
    bf16 *ks = shared, *vs = ks + TILE * D, *qs = vs + TILE * D, *dos = qs + 2 * QUERIES * D; // q and dout: two stages each
    float *lses = (float *)(dos + 2 * QUERIES * D), *deltas = lses + 2 * QUERIES;
    const int *span = a.spans + (long long)b * spans * 2, *starts = a.starts + (long long)b * a.seq;

    // fetch_queries starts copying one tile of queries of head h.
    auto fetch_queries = [&](int stage, int h, int query) {
        const long long q_rows = (long long)b * a.seq * a.q_stride + h * D, scalars = ((long long)b * a.heads + h) * a.seq;
        fetch<D, QUERIES>(qs + stage * QUERIES * D, (const bf16 *)a.q + q_rows, a.q_stride, query, a.seq);
        fetch<D, QUERIES>(dos + stage * QUERIES * D, (const bf16 *)a.dout + q_rows, a.q_stride, query, a.seq);
        const int i = threadIdx.x % QUERIES;
        const bool valid = query + i < a.seq;
        if ((int)threadIdx.x < QUERIES) copy4(lses + stage * QUERIES + i, a.lse + scalars + query + i, valid);
        else copy4(deltas + stage * QUERIES + i, a.delta + scalars + query + i, valid);
        copy_commit();
    };
    // The next tile of which some query may see some of the keys, in h and query.
    auto advance = [&](int &h, int &query) {
        do {
            query += QUERIES;
            if (query >= a.seq) query = first, h++;
        } while (h < (kv + 1) * group && span[query / MEAP_SPAN * 2] >= first + TILE);
    };

    fetch<D, TILE>(ks, (const bf16 *)a.k + kv_rows, a.kv_stride, first, a.seq);
    fetch<D, TILE>(vs, (const bf16 *)a.v + kv_rows, a.kv_stride, first, a.seq);
    fetch_queries(0, kv * group, first);

    float dk[M][D / 8][4], dv[M][D / 8][4];
    clear<M, D / 8>(dk);
    clear<M, D / 8>(dv);
    const float scale2 = a.scale * MEAP_LOG2E;
    int stage = 0, h = kv * group, query = first;
    while (h < (kv + 1) * group) {
        copy_wait<0>();
        __syncthreads();
        int next_h = h, next_query = query;
        advance(next_h, next_query);
        if (next_h < (kv + 1) * group) fetch_queries(stage ^ 1, next_h, next_query);
        const bool begins = span[query / MEAP_SPAN * 2 + 1] > row; // some query begins behind this warp's first key
#pragma unroll 1
        for (int half = 0; half < QUERIES; half += HALF) {
            if (query + half + HALF - 1 < row) continue; // these queries come before this warp's keys
            bf16 *qt = qs + (stage * QUERIES + half) * D, *dot = dos + (stage * QUERIES + half) * D;
            float s[M][HALF / 8][4], dp[M][HALF / 8][4];
            clear<M, HALF / 8>(s);
            clear<M, HALF / 8>(dp);
#pragma unroll
            for (int d = 0; d < D / 16; d++) {
                u32 ka[M][4], va[M][4];
#pragma unroll
                for (int m = 0; m < M; m++) {
                    load_a<D>(ka[m], ks, warp * 16 * M + 16 * m, d);
                    load_a<D>(va[m], vs, warp * 16 * M + 16 * m, d);
                }
#pragma unroll
                for (int n = 0; n < HALF / 16; n++) {
                    u32 qb[4], dob[4];
                    load_b<D>(qb, qt, 16 * n, d);
                    load_b<D>(dob, dot, 16 * n, d);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma(s[m][2 * n], ka[m], qb[0], qb[1]);
                        mma(s[m][2 * n + 1], ka[m], qb[2], qb[3]);
                        mma(dp[m][2 * n], va[m], dob[0], dob[1]);
                        mma(dp[m][2 * n + 1], va[m], dob[2], dob[3]);
                    }
                }
            }
            const bool masked = query + half < row + 16 * M - 1 || begins;
#pragma unroll
            for (int n = 0; n < HALF / 8; n++) {
                const int c = half + 8 * n + 2 * t;
                const float2 lse = *(const float2 *)(lses + stage * QUERIES + c), delta = *(const float2 *)(deltas + stage * QUERIES + c);
                const float lse2[2] = {lse.x * MEAP_LOG2E, lse.y * MEAP_LOG2E}, deltas2[2] = {delta.x, delta.y};
                int from[2] = {0, 0};
                if (begins) {
#pragma unroll
                    for (int i = 0; i < 2; i++) from[i] = query + c + i < a.seq ? starts[query + c + i] : 0;
                }
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float p = exp2_fast(s[m][n][i] * scale2 - lse2[i & 1]);
                        const int key = row + 16 * m + g + 8 * (i >> 1);
                        if (masked && (key > query + c + (i & 1) || key < from[i & 1])) p = 0.0f;
                        s[m][n][i] = p;
                        dp[m][n][i] = p * (dp[m][n][i] - deltas2[i & 1]);
                    }
            }
#pragma unroll
            for (int j = 0; j < HALF / 16; j++) {
                u32 p[M][4], ds[M][4];
#pragma unroll
                for (int m = 0; m < M; m++) {
                    left(p[m], s[m][2 * j], s[m][2 * j + 1]);
                    left(ds[m], dp[m][2 * j], dp[m][2 * j + 1]);
                }
#pragma unroll
                for (int n = 0; n < D / 16; n++) {
                    u32 dob[4], qb[4];
                    load_b_trans<D>(dob, dot, 16 * n, j);
                    load_b_trans<D>(qb, qt, 16 * n, j);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma(dv[m][2 * n], p[m], dob[0], dob[1]);
                        mma(dv[m][2 * n + 1], p[m], dob[2], dob[3]);
                        mma(dk[m][2 * n], ds[m], qb[0], qb[1]);
                        mma(dk[m][2 * n + 1], ds[m], qb[2], qb[3]);
                    }
                }
            }
        }
        stage ^= 1, h = next_h, query = next_query;
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        store_rows<D>((bf16 *)a.dk + kv_rows, a.kv_stride, row + 16 * m, a.seq, dk[m], a.scale, a.scale);
        store_rows<D>((bf16 *)a.dv + kv_rows, a.kv_stride, row + 16 * m, a.seq, dv[m], 1.0f, 1.0f);
    }
}

extern "C" __global__ void __launch_bounds__(MEAP_TENSOR_THREADS, 2) meap_attention_grad_q_bf16_64(const AttentionGradArgs a) {
    attention_grad_q_tensor<64, 2, 32>(a);
}
extern "C" __global__ void __launch_bounds__(MEAP_TENSOR_THREADS, 2) meap_attention_grad_q_bf16_128(const AttentionGradArgs a) {
    attention_grad_q_tensor<128, 1, 32>(a);
}
extern "C" __global__ void __launch_bounds__(MEAP_TENSOR_THREADS, 2) meap_attention_grad_kv_bf16_64(const AttentionGradArgs a) {
    attention_grad_kv_tensor<64, 2, 32>(a);
}
extern "C" __global__ void __launch_bounds__(MEAP_TENSOR_THREADS, 2) meap_attention_grad_kv_bf16_128(const AttentionGradArgs a) {
    attention_grad_kv_tensor<128, 1, 32>(a);
}
