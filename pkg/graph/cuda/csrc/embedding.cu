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

// An id has few places (MEAP_FEW_PLACES at most) or many. A warp adds up the rows of one with few, in order.
template <typename T>
MEAP_DEVICE void embedding_grad_few(const EmbeddingGradArgs &a, int begin) {
    const int lane = threadIdx.x % 32;
    if (begin >= a.n) return;
    const int id = a.ids[begin];
    if ((begin > 0 && a.ids[begin - 1] == id) || id < 0 || id >= a.vocab) return;
    if (begin + MEAP_FEW_PLACES < a.n && a.ids[begin + MEAP_FEW_PLACES] == id) return;
    const bool mine = begin + lane < a.n && a.ids[begin + lane] == id;
    const int count = __popc(__ballot_sync(MEAP_ALL_LANES, mine)), token = mine ? a.tokens[begin + lane] : 0;
    const T *dy = (const T *)a.dy;
    float *to = a.dtable + (long long)id * a.dim;
    const bool whole = a.dim % 8 == 0 && aligned16(dy), whole_to = a.dim % 4 == 0 && aligned16(a.dtable);
    for (int first = 0; first < a.dim; first += 256) {
        const int at = first + 8 * lane;
        float sum[8], f[8];
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] = 0.0f;
#pragma unroll 4
        for (int k = 0; k < count; k++) {
            const T *row = dy + (long long)__shfl_sync(MEAP_ALL_LANES, token, k) * a.dim;
#pragma unroll
            for (int j = 0; j < 8; j += Vec<T>::width) unpack(row, load16(row, at + j, a.dim, whole), f + j);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += f[j];
        }
        load_floats<8>(to, at, a.dim, whole_to, f);
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += f[j];
#pragma unroll
        for (int j = 0; j < 8; j += 4) store16(to, at + j, a.dim, whole_to, pack(to, sum + j));
    }
}

// The end of the places from `low` on, if before is false, that hold id; the first of them that lie before `high`, if it is true.
MEAP_DEVICE int places_end(const EmbeddingGradArgs &a, int id, int low, int high, bool before) {
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if ((a.ids[middle] == id) != before) low = middle + 1;
        else high = middle;
    }
    return low;
}

// A block adds up 256 columns of the rows of an id with many places, of which the first that is a multiple of MEAP_FEW_PLACES is given: warp
// w those of places w, w + 8, ..., and then the warps' sums in order. [MASK] has so many that one after the other they would take longer
// than all else: 16 rows are read at a time.
template <typename T>
MEAP_DEVICE void embedding_grad_many(const EmbeddingGradArgs &a, int given, int columns) {
    MEAP_SHARED(float, parts, 8 * 256);
    const int id = a.ids[given];
    if (id < 0 || id >= a.vocab) return;
    const int begin = places_end(a, id, 0, given, true);
    if (given - begin >= MEAP_FEW_PLACES) return;
    const int end = places_end(a, id, given + 1, a.n, false);
    if (end - begin <= MEAP_FEW_PLACES) return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = columns + lane * 8, N = 16;
    const T *dy = (const T *)a.dy;
    const bool whole = a.dim % 8 == 0 && aligned16(dy);
    float sum[8], f[8];
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] = 0.0f;
    int place = begin + warp;
    for (; place + 8 * (N - 1) < end; place += 8 * N) {
        uint4 bits[N][8 / Vec<T>::width];
#pragma unroll
        for (int k = 0; k < N; k++) {
            const T *row = dy + (long long)a.tokens[place + 8 * k] * a.dim;
#pragma unroll
            for (int j = 0; j < 8; j += Vec<T>::width) bits[k][j / Vec<T>::width] = load16(row, at + j, a.dim, whole);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
#pragma unroll
            for (int j = 0; j < 8; j += Vec<T>::width) unpack(dy, bits[k][j / Vec<T>::width], f + j);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += f[j];
        }
    }
    for (; place < end; place += 8) {
        const T *row = dy + (long long)a.tokens[place] * a.dim;
#pragma unroll
        for (int j = 0; j < 8; j += Vec<T>::width) unpack(row, load16(row, at + j, a.dim, whole), f + j);
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += f[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) parts[warp * 256 + lane * 8 + j] = sum[j];
    __syncthreads();
    const int c = columns + threadIdx.x;
    if (c >= a.dim) return;
    float total = parts[threadIdx.x];
    for (int w = 1; w < 8; w++) total += parts[w * 256 + threadIdx.x];
    a.dtable[(long long)id * a.dim + c] += total;
}

// The blocks for many places come first, since they take longest.
template <typename T>
MEAP_DEVICE void embedding_grad(const EmbeddingGradArgs &a) {
    const int pieces = (a.dim + 255) / 256, many = (a.n + MEAP_FEW_PLACES - 1) / MEAP_FEW_PLACES * pieces, block = blockIdx.x;
    if (block < many) embedding_grad_many<T>(a, block / pieces * MEAP_FEW_PLACES, block % pieces * 256);
    else embedding_grad_few<T>(a, (block - many) * 8 + threadIdx.x / 32);
}
MEAP_BOTH(embedding_grad, EmbeddingGradArgs, 256)
