// Attention for every type, head size and alignment, in fp32 arithmetic: the plain counterpart of the tensor-core kernels. Tiles of
// TILE queries by TILE keys; each of 16 x 16 threads has the scores of TILE/16 queries and keys, 16 apart, and of the results
// those queries' columns x, x + 16, ... A key that a query does not see changes nothing of its state, so a query's result
// depends neither on its neighbours nor on where its tile begins.
#include "ptx.cuh"

// Tile is where a tile of rows is in shared memory: rows padded by one element against bank conflicts.
MEAP_DEVICE int at(int row, int column, int d) { return row * (d + 1) + column; }

// load_tile copies rows first.. of x (stride elements apart), and zeros from row `limit` on.
template <typename T, int TILE>
MEAP_DEVICE void load_tile(float *tile, const T *x, long long stride, int first, int limit, int d) {
    for (int row = threadIdx.x / 16; row < TILE; row += MEAP_GENERAL_THREADS / 16) {
        const T *p = x + (first + row) * stride;
        const bool valid = first + row < limit;
        for (int column = threadIdx.x % 16; column < d; column += 16) tile[at(row, column, d)] = valid ? to_float(p[column]) : 0.0f;
    }
}

// products gives each thread its scores: dot products of the rows of a and b.
template <int N>
MEAP_DEVICE void products(float s[N][N], const float *a, const float *b, int d) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) s[i][j] = 0.0f;
    for (int c = 0; c < d; c++) {
        float p[N], q[N];
#pragma unroll
        for (int i = 0; i < N; i++) p[i] = a[at(y + 16 * i, c, d)], q[i] = b[at(x + 16 * i, c, d)];
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int j = 0; j < N; j++) s[i][j] = fmaf(p[i], q[j], s[i][j]);
    }
}

// add_product adds p b to what a thread holds: p [TILE, TILE] with rows TILE + 1 apart, b a tile of rows.
template <int N, int COLUMNS>
MEAP_DEVICE void add_product(float o[N][COLUMNS], const float *p, const float *b, int d) {
    const int x = threadIdx.x % 16, y = threadIdx.x / 16, tile = 16 * N;
    for (int k = 0; k < tile; k++) {
        float f[N];
#pragma unroll
        for (int i = 0; i < N; i++) f[i] = p[at(y + 16 * i, k, tile)];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            if (x + 16 * c >= d) break;
            const float v = b[at(k, x + 16 * c, d)];
#pragma unroll
            for (int i = 0; i < N; i++) o[i][c] = fmaf(f[i], v, o[i][c]);
        }
    }
}

// half_sum and half_max combine the values of the 16 threads that share a row.
MEAP_DEVICE float half_sum(float x) {
    for (int d = 8; d > 0; d >>= 1) x += __shfl_xor_sync(MEAP_ALL_LANES, x, d);
    return x;
}
MEAP_DEVICE float half_max(float x) {
    for (int d = 8; d > 0; d >>= 1) x = fmaxf(x, __shfl_xor_sync(MEAP_ALL_LANES, x, d));
    return x;
}

// least_start is a bound on what the queries from `first` to the next multiple of 64 see.
MEAP_DEVICE int least_start(const int *spans, int b, int seq, int first) {
    return spans[((long long)b * ((seq + MEAP_SPAN - 1) / MEAP_SPAN) + first / MEAP_SPAN) * 2];
}

// attend is the forward pass of one tile of queries q over keys and values, the first row of which is key `origin`. Query i of the
// tile sees the keys from[i]..to[i]. It returns in o the unscaled sums, and the largest score and sum of exponentials.
template <typename T, int TILE, int COLUMNS>
MEAP_DEVICE void attend(float o[TILE / 16][COLUMNS], float top[TILE / 16], float sum[TILE / 16], float *shared, const T *q, long long q_stride,
                        int first, int q_limit, const T *k, const T *v, long long kv_stride, int key_begin, int key_limit,
                        const int from[TILE / 16], const int to[TILE / 16], int d, float scale) {
    const int N = TILE / 16, x = threadIdx.x % 16, y = threadIdx.x / 16;
    float *qs = shared, *ks = qs + TILE * (d + 1), *vs = ks + TILE * (d + 1), *ps = vs + TILE * (d + 1);
    load_tile<T, TILE>(qs, q, q_stride, first, q_limit, d);
#pragma unroll
    for (int i = 0; i < N; i++) {
        top[i] = -MEAP_INFINITY, sum[i] = 0.0f;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) o[i][c] = 0.0f;
    }
    for (int key = key_begin; key < key_limit; key += TILE) {
        __syncthreads();
        load_tile<T, TILE>(ks, k, kv_stride, key, key_limit, d);
        load_tile<T, TILE>(vs, v, kv_stride, key, key_limit, d);
        __syncthreads();
        float s[N][N];
        products<N>(s, qs, ks, d);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float best = top[i], more = 0.0f;
#pragma unroll
            for (int j = 0; j < N; j++) {
                const int kj = key + x + 16 * j;
                s[i][j] = kj >= from[i] && kj <= to[i] ? s[i][j] * scale : -MEAP_INFINITY;
                best = fmaxf(best, s[i][j]);
            }
            best = half_max(best);
            // Before its first visible key a query's best is minus infinity, whose difference to itself is no number.
            const float base = best == -MEAP_INFINITY ? 0.0f : best, old = expf(top[i] - base);
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float p = expf(s[i][j] - base);
                more += p;
                ps[at(y + 16 * i, x + 16 * j, TILE)] = p;
            }
            sum[i] = fmaf(sum[i], old, half_sum(more));
            top[i] = best;
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) o[i][c] *= old;
        }
        __syncwarp(); // a row of probabilities is written and read by the same half of a warp
        add_product<N, COLUMNS>(o, ps, vs, d);
    }
}

template <typename T, int TILE, int COLUMNS>
MEAP_DEVICE void attention(const AttentionArgs &a) {
    MEAP_DYN_SHARED(float, shared);
    const int N = TILE / 16, x = threadIdx.x % 16, y = threadIdx.x / 16, d = a.head_dim;
    const int h = blockIdx.x % a.heads, b = blockIdx.x / a.heads, first = (gridDim.y - 1 - blockIdx.y) * TILE;
    const int kv = h / (a.heads / a.kv_heads);
    const T *q = (const T *)a.q + (long long)b * a.seq * a.q_stride + h * d;
    const long long rows = (long long)b * a.seq * a.kv_stride + kv * d;
    int from[N], to[N];
    for (int i = 0; i < N; i++) to[i] = first + y + 16 * i, from[i] = to[i] < a.seq ? a.starts[(long long)b * a.seq + to[i]] : to[i];
    float o[N][COLUMNS], top[N], sum[N];
    const int begin = least_start(a.spans, b, a.seq, first) / TILE * TILE;
    attend<T, TILE, COLUMNS>(o, top, sum, shared, q, a.q_stride, first, a.seq, (const T *)a.k + rows, (const T *)a.v + rows, a.kv_stride, begin,
                             min(first + TILE, a.seq), from, to, d, a.scale);
    T *out = (T *)a.out + (long long)b * a.seq * a.q_stride + h * d;
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (to[i] >= a.seq) continue;
        const float share = 1.0f / sum[i];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            if (x + 16 * c < d) from_float(out + to[i] * a.q_stride + x + 16 * c, o[i][c] * share);
        if (x == 0) a.lse[((long long)b * a.heads + h) * a.seq + to[i]] = top[i] + logf(sum[i]);
    }
}

template <typename T, int TILE, int COLUMNS>
MEAP_DEVICE void cached_attention(const CachedAttentionArgs &a) {
    MEAP_DYN_SHARED(float, shared);
    const int N = TILE / 16, x = threadIdx.x % 16, y = threadIdx.x / 16, d = a.head_dim;
    const int h = blockIdx.x % a.heads, b = blockIdx.x / a.heads, first = (gridDim.y - 1 - blockIdx.y) * TILE;
    const int kv = h / (a.heads / a.kv_heads), past = a.past[b];
    const long long q_stride = (long long)a.heads * d, kv_stride = (long long)a.kv_heads * d;
    const T *q = (const T *)a.q + b * a.seq * q_stride + h * d;
    const long long rows = (long long)b * a.capacity * kv_stride + kv * d;
    int from[N], to[N];
    for (int i = 0; i < N; i++) from[i] = 0, to[i] = past + first + y + 16 * i;
    float o[N][COLUMNS], top[N], sum[N];
    attend<T, TILE, COLUMNS>(o, top, sum, shared, q, q_stride, first, a.seq, (const T *)a.kcache + rows, (const T *)a.vcache + rows, kv_stride, 0,
                             min(past + min(first + TILE, a.seq), a.capacity), from, to, d, a.scale);
    T *out = (T *)a.out + b * a.seq * q_stride + h * d;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int row = first + y + 16 * i;
        if (row >= a.seq) continue;
        const float share = 1.0f / sum[i];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            if (x + 16 * c < d) from_float(out + row * q_stride + x + 16 * c, o[i][c] * share);
    }
}

// store_tile writes what the threads hold, times scale, to the rows below limit.
template <typename T, int N, int COLUMNS>
MEAP_DEVICE void store_tile(T *y, const float o[N][COLUMNS], long long stride, int first, int limit, int d, float scale) {
    const int x = threadIdx.x % 16, row = first + threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (row + 16 * i >= limit) continue;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            if (x + 16 * c < d) from_float(y + (row + 16 * i) * stride + x + 16 * c, o[i][c] * scale);
    }
}

template <typename T, int TILE, int COLUMNS>
MEAP_DEVICE void attention_grad_q(const AttentionGradArgs &a) {
    MEAP_DYN_SHARED(float, shared);
    const int N = TILE / 16, x = threadIdx.x % 16, y = threadIdx.x / 16, d = a.head_dim;
    const int h = blockIdx.x % a.heads, b = blockIdx.x / a.heads, first = (gridDim.y - 1 - blockIdx.y) * TILE;
    const int kv = h / (a.heads / a.kv_heads), end = min(first + TILE, a.seq);
    float *qs = shared, *dos = qs + TILE * (d + 1), *ks = dos + TILE * (d + 1), *vs = ks + TILE * (d + 1), *dss = vs + TILE * (d + 1);
    const long long q_rows = (long long)b * a.seq * a.q_stride + h * d, kv_rows = (long long)b * a.seq * a.kv_stride + kv * d;
    load_tile<T, TILE>(qs, (const T *)a.q + q_rows, a.q_stride, first, a.seq, d);
    load_tile<T, TILE>(dos, (const T *)a.dout + q_rows, a.q_stride, first, a.seq, d);
    int from[N];
    float lse[N], delta[N], dq[N][COLUMNS];
    for (int i = 0; i < N; i++) {
        const int row = first + y + 16 * i;
        const long long at = ((long long)b * a.heads + h) * a.seq + row;
        from[i] = row < a.seq ? a.starts[(long long)b * a.seq + row] : row;
        lse[i] = row < a.seq ? a.lse[at] : 0.0f, delta[i] = row < a.seq ? a.delta[at] : 0.0f;
        for (int c = 0; c < COLUMNS; c++) dq[i][c] = 0.0f;
    }
    for (int key = least_start(a.spans, b, a.seq, first) / TILE * TILE; key < end; key += TILE) {
        __syncthreads();
        load_tile<T, TILE>(ks, (const T *)a.k + kv_rows, a.kv_stride, key, end, d);
        load_tile<T, TILE>(vs, (const T *)a.v + kv_rows, a.kv_stride, key, end, d);
        __syncthreads();
        float s[N][N], dp[N][N];
        products<N>(s, qs, ks, d);
        products<N>(dp, dos, vs, d);
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int j = 0; j < N; j++) {
                const int kj = key + x + 16 * j;
                const float p = kj >= from[i] && kj <= first + y + 16 * i ? expf(s[i][j] * a.scale - lse[i]) : 0.0f;
                dss[at(y + 16 * i, x + 16 * j, TILE)] = p * (dp[i][j] - delta[i]);
            }
        __syncwarp();
        add_product<N, COLUMNS>(dq, dss, ks, d);
    }
    store_tile<T, N, COLUMNS>((T *)a.dq + q_rows, dq, a.q_stride, first, a.seq, d, a.scale);
}

// A block has a tile of keys of one kv head and goes through the query heads that read it, and their queries, in order.
template <typename T, int TILE, int COLUMNS>
MEAP_DEVICE void attention_grad_kv(const AttentionGradArgs &a) {
    MEAP_DYN_SHARED(float, shared);
    const int N = TILE / 16, x = threadIdx.x % 16, y = threadIdx.x / 16, d = a.head_dim;
    const int kv = blockIdx.x % a.kv_heads, b = blockIdx.x / a.kv_heads, first = blockIdx.y * TILE, group = a.heads / a.kv_heads;
    float *qs = shared, *dos = qs + TILE * (d + 1), *ks = dos + TILE * (d + 1), *vs = ks + TILE * (d + 1), *ps = vs + TILE * (d + 1),
          *dss = ps + TILE * (TILE + 1);
    const long long kv_rows = (long long)b * a.seq * a.kv_stride + kv * d;
    load_tile<T, TILE>(ks, (const T *)a.k + kv_rows, a.kv_stride, first, a.seq, d);
    load_tile<T, TILE>(vs, (const T *)a.v + kv_rows, a.kv_stride, first, a.seq, d);
    float dk[N][COLUMNS], dv[N][COLUMNS];
    for (int i = 0; i < N; i++)
        for (int c = 0; c < COLUMNS; c++) dk[i][c] = 0.0f, dv[i][c] = 0.0f;
    for (int h = kv * group; h < (kv + 1) * group; h++) {
        const long long q_rows = (long long)b * a.seq * a.q_stride + h * d, scalars = ((long long)b * a.heads + h) * a.seq;
        for (int query = first; query < a.seq; query += TILE) {
            if (least_start(a.spans, b, a.seq, query) >= first + TILE) continue;
            __syncthreads();
            load_tile<T, TILE>(qs, (const T *)a.q + q_rows, a.q_stride, query, a.seq, d);
            load_tile<T, TILE>(dos, (const T *)a.dout + q_rows, a.q_stride, query, a.seq, d);
            __syncthreads();
            float s[N][N], dp[N][N];
            products<N>(s, ks, qs, d);
            products<N>(dp, vs, dos, d);
#pragma unroll
            for (int j = 0; j < N; j++) {
                const int qj = query + x + 16 * j;
                const bool valid = qj < a.seq;
                const int from = valid ? a.starts[(long long)b * a.seq + qj] : 0;
                const float lse = valid ? a.lse[scalars + qj] : 0.0f, delta = valid ? a.delta[scalars + qj] : 0.0f;
#pragma unroll
                for (int i = 0; i < N; i++) {
                    const int key = first + y + 16 * i;
                    const float p = valid && key >= from && key <= qj ? expf(s[i][j] * a.scale - lse) : 0.0f;
                    ps[at(y + 16 * i, x + 16 * j, TILE)] = p;
                    dss[at(y + 16 * i, x + 16 * j, TILE)] = p * (dp[i][j] - delta);
                }
            }
            __syncwarp();
            add_product<N, COLUMNS>(dv, ps, dos, d);
            add_product<N, COLUMNS>(dk, dss, qs, d);
        }
    }
    store_tile<T, N, COLUMNS>((T *)a.dk + kv_rows, dk, a.kv_stride, first, a.seq, d, a.scale);
    store_tile<T, N, COLUMNS>((T *)a.dv + kv_rows, dv, a.kv_stride, first, a.seq, d, 1.0f);
}

// delta is what the softmax's derivative subtracts: eight lanes for each row of a head, each with several rows, whose loads are under way
// together.
template <typename T>
MEAP_DEVICE void attention_delta(const AttentionDeltaArgs &a) {
    MEAP_SHARED(float, sums, MEAP_DELTA_TILE);
    const int V = Vec<T>::width, N = MEAP_DELTA_TILE / 32, lane = threadIdx.x % 8, first = blockIdx.y * MEAP_DELTA_TILE;
    const int h = blockIdx.x % a.heads, b = blockIdx.x / a.heads;
    const long long at = (long long)b * a.seq * a.q_stride + h * a.head_dim;
    const T *out = (const T *)a.out + at, *dout = (const T *)a.dout + at;
    const bool whole = a.head_dim % V == 0 && a.q_stride % V == 0 && aligned16(a.out) && aligned16(a.dout);
    float sum[N];
#pragma unroll
    for (int k = 0; k < N; k++) sum[k] = 0.0f;
    for (int c = lane * V; c < a.head_dim; c += 8 * V) {
        uint4 p[N], q[N];
#pragma unroll
        for (int k = 0; k < N; k++) {
            const int i = first + 32 * k + threadIdx.x / 8;
            p[k] = q[k] = make_uint4(0, 0, 0, 0);
            if (i < a.seq) p[k] = load16(out + i * a.q_stride, c, a.head_dim, whole), q[k] = load16(dout + i * a.q_stride, c, a.head_dim, whole);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            float x[V], y[V];
            unpack(out, p[k], x);
            unpack(dout, q[k], y);
#pragma unroll
            for (int j = 0; j < V; j++) sum[k] += x[j] * y[j];
        }
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
        for (int d = 4; d > 0; d >>= 1) sum[k] += __shfl_xor_sync(MEAP_ALL_LANES, sum[k], d);
        if (lane == 0) sums[32 * k + threadIdx.x / 8] = sum[k];
    }
    __syncthreads();
    const int i = first + threadIdx.x;
    if (threadIdx.x < MEAP_DELTA_TILE && i < a.seq) a.delta[((long long)b * a.heads + h) * a.seq + i] = sums[threadIdx.x];
}
MEAP_BOTH(attention_delta, AttentionDeltaArgs, 256)

extern "C" __global__ void __launch_bounds__(64) meap_attention_spans(const AttentionSpansArgs a) {
    MEAP_SHARED(int, ends, 4);
    const int i = blockIdx.x * MEAP_SPAN + threadIdx.x, warp = threadIdx.x / 32;
    // Rows behind the end repeat the last one.
    int low = a.starts[(long long)blockIdx.y * a.seq + min(i, a.seq - 1)], high = low;
    for (int d = 16; d > 0; d >>= 1) {
        low = min(low, __shfl_xor_sync(MEAP_ALL_LANES, low, d));
        high = max(high, __shfl_xor_sync(MEAP_ALL_LANES, high, d));
    }
    if (threadIdx.x % 32 == 0) ends[warp * 2] = low, ends[warp * 2 + 1] = high;
    __syncthreads();
    if (threadIdx.x != 0) return;
    int *span = a.spans + ((long long)blockIdx.y * gridDim.x + blockIdx.x) * 2;
    span[0] = min(ends[0], ends[2]), span[1] = max(ends[1], ends[3]);
}

// The general kernels: tiles of 32 for head sizes up to 128, of 16 up to 256.
#define MEAP_GENERAL(name, Args)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) meap_##name##_f32(const Args a) { name<float, 32, 8>(a); }         \
    extern "C" __global__ void __launch_bounds__(256) meap_##name##_bf16(const Args a) { name<bf16, 32, 8>(a); }         \
    extern "C" __global__ void __launch_bounds__(256) meap_##name##_f32_wide(const Args a) { name<float, 16, 16>(a); } \
    extern "C" __global__ void __launch_bounds__(256) meap_##name##_bf16_wide(const Args a) { name<bf16, 16, 16>(a); }

MEAP_GENERAL(attention, AttentionArgs)
MEAP_GENERAL(cached_attention, CachedAttentionArgs)
MEAP_GENERAL(attention_grad_q, AttentionGradArgs)
MEAP_GENERAL(attention_grad_kv, AttentionGradArgs)
