// The embedding and its gradient. The gradient sorts the tokens by id, stably, by a radix sort without float atomics, and then
// each id's rows are added up by one block in an order that depends on nothing but the ids.
#include "ptx.cuh"

// F is the table's type; a vector is as wide as one of y.
template <typename F, typename T>
MEAP_DEVICE void embedding_rows(const EmbeddingArgs &a) {
    const int V = Vec<T>::width, pieces = (a.dim + V - 1) / V;
    const F *table = (const F *)a.table;
    T *y = (T *)a.y;
    const bool whole = a.dim % V == 0 && aligned16(table) && aligned16(y);
    const long long n = a.n * pieces;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
        const long long row = i / pieces;
        const int at = (int)(i % pieces) * V, id = a.ids[row];
        float f[V];
        if (id < 0 || id >= a.vocab) {
#pragma unroll
            for (int j = 0; j < V; j++) f[j] = MEAP_NAN;
        } else {
#pragma unroll
            for (int j = 0; j < V; j += Vec<F>::width) unpack(table, load16(table + (long long)id * a.dim, at + j, a.dim, whole), f + j);
        }
        store16(y + row * a.dim, at, a.dim, whole, pack(y, f));
    }
}

template <typename T>
MEAP_DEVICE void embedding(const EmbeddingArgs &a) { embedding_rows<T, T>(a); }
MEAP_BOTH(embedding, EmbeddingArgs, MEAP_BLOCK)

extern "C" __global__ void __launch_bounds__(MEAP_BLOCK) meap_embedding_f32_bf16(const EmbeddingArgs a) {
    embedding_rows<float, bf16>(a);
}

enum { DIGITS = 1 << MEAP_SORT_BITS };

MEAP_DEVICE int digit(const SortArgs &a, int key) { return (int)((u32)key >> a.shift & (DIGITS - 1)); }

// How often each digit occurs in the block's part of the keys.
extern "C" __global__ void __launch_bounds__(256) meap_sort_count(const SortArgs a) {
    MEAP_SHARED(int, count, DIGITS);
    for (int d = threadIdx.x; d < DIGITS; d += blockDim.x) count[d] = 0;
    __syncthreads();
    const int begin = blockIdx.x * MEAP_SORT_TILE, end = min(begin + MEAP_SORT_TILE, a.n);
    for (int i = begin + threadIdx.x; i < end; i += blockDim.x) atomicAdd(&count[digit(a, a.keys_in[i])], 1);
    __syncthreads();
    for (int d = threadIdx.x; d < DIGITS; d += blockDim.x) a.counts[d * a.blocks + blockIdx.x] = count[d];
}

// Counts become the places where each block puts its first key of each digit: sums over all that come before.
extern "C" __global__ void __launch_bounds__(1024) meap_sort_scan(const SortArgs a) {
    MEAP_SHARED(int, parts, 32);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n = DIGITS * a.blocks;
    int before = 0;
    for (int begin = 0; begin < n; begin += blockDim.x) {
        const int i = begin + threadIdx.x, own = i < n ? a.counts[i] : 0;
        int sum = own;
        for (int d = 1; d < 32; d *= 2) {
            const int left = __shfl_up_sync(MEAP_ALL_LANES, sum, d);
            if (lane >= d) sum += left;
        }
        if (lane == 31) parts[warp] = sum;
        __syncthreads();
        int all = 0;
        for (int w = 0; w < (int)blockDim.x / 32; w++) {
            if (w == warp) sum += all;
            all += parts[w];
        }
        if (i < n) a.counts[i] = before + sum - own;
        before += all;
        __syncthreads();
    }
}

// Keys keep their order: those of a warp by ballots, those of the block's warps by counting first.
extern "C" __global__ void __launch_bounds__(256) meap_sort_scatter(const SortArgs a) {
    MEAP_SHARED(int, places, 8 * DIGITS);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, share = MEAP_SORT_TILE / 8;
    const int begin = blockIdx.x * MEAP_SORT_TILE + warp * share;
    int *place = places + warp * DIGITS;
    for (int d = threadIdx.x; d < 8 * DIGITS; d += blockDim.x) places[d] = 0;
    __syncthreads();
    for (int i = begin + lane; i < begin + share && i < a.n; i += 32) atomicAdd(&place[digit(a, a.keys_in[i])], 1);
    __syncthreads();
    for (int d = threadIdx.x; d < DIGITS; d += blockDim.x) {
        int next = a.counts[d * a.blocks + blockIdx.x];
        for (int w = 0; w < 8; w++) {
            const int count = places[w * DIGITS + d];
            places[w * DIGITS + d] = next;
            next += count;
        }
    }
    __syncthreads();
    for (int step = 0; step < share; step += 32) {
        const int i = begin + step + lane;
        const bool valid = i < a.n;
        const int key = valid ? a.keys_in[i] : 0, d = digit(a, key);
        u32 same = __ballot_sync(MEAP_ALL_LANES, valid);
        for (int bit = 0; bit < MEAP_SORT_BITS; bit++) {
            const u32 set = __ballot_sync(MEAP_ALL_LANES, d >> bit & 1);
            same &= d >> bit & 1 ? set : ~set;
        }
        const int rank = __popc(same & ((1u << lane) - 1)), to = place[d] + rank;
        __syncwarp();
        if (valid) {
            a.keys_out[to] = key;
            a.tokens_out[to] = a.tokens_in == 0 ? i : a.tokens_in[i];
            if (rank == 0) place[d] += __popc(same);
        }
        __syncwarp();
    }
}

// The block of an id's first place adds up 256 columns of its rows: warp w those of places w, w + 8, ..., and then the warps' sums
// in order.
template <typename T>
MEAP_DEVICE void embedding_grad(const EmbeddingGradArgs &a) {
    MEAP_SHARED(float, parts, 8 * 256);
    const int begin = blockIdx.x, id = a.ids[begin];
    if ((begin > 0 && a.ids[begin - 1] == id) || id < 0 || id >= a.vocab) return;
    int end = begin + 1;
    if (end < a.n && a.ids[end] == id) {
        for (int high = a.n; end < high;) {
            const int middle = end + (high - end) / 2;
            if (a.ids[middle] == id) end = middle + 1;
            else high = middle;
        }
    }
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = blockIdx.y * 256 + lane * 8;
    const T *dy = (const T *)a.dy;
    const bool whole = a.dim % 8 == 0 && aligned16(dy);
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll 4
    for (int place = begin + warp; place < end; place += 8) {
        const T *row = dy + (long long)a.tokens[place] * a.dim;
        float f[8];
#pragma unroll
        for (int j = 0; j < 8; j += Vec<T>::width) unpack(row, load16(row, at + j, a.dim, whole), f + j);
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += f[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) parts[warp * 256 + lane * 8 + j] = sum[j];
    __syncthreads();
    const int c = blockIdx.y * 256 + threadIdx.x;
    if (c >= a.dim) return;
    float total = parts[threadIdx.x];
    for (int w = 1; w < min(8, end - begin); w++) total += parts[w * 256 + threadIdx.x];
    a.dtable[(long long)id * a.dim + c] += total;
}
MEAP_BOTH(embedding_grad, EmbeddingGradArgs, 256)
