// Matrix products of shapes for which cuBLASLt has no algorithm: any sizes, any strides, on the ordinary cores.
#include "ptx.cuh"

enum { PRODUCT_DEPTH = 16, PRODUCT_ROW = MEAP_PRODUCT_TILE + 1 };

// fetch_tile copies MEAP_PRODUCT_TILE rows of PRODUCT_DEPTH elements to shared memory, element p of row r to tile[p][r], zeros where
// there are none. Neighbouring threads take neighbouring addresses, whichever way the matrix lies.
template <typename T>
MEAP_DEVICE void fetch_tile(float *tile, const T *x, long long row, long long column, int first, int rows, int at, int depth) {
    for (int i = threadIdx.x; i < MEAP_PRODUCT_TILE * PRODUCT_DEPTH; i += MEAP_BLOCK) {
        const int r = column == 1 ? i / PRODUCT_DEPTH : i % MEAP_PRODUCT_TILE, p = column == 1 ? i % PRODUCT_DEPTH : i / MEAP_PRODUCT_TILE;
        const bool valid = first + r < rows && at + p < depth;
        tile[p * PRODUCT_ROW + r] = valid ? to_float(x[(first + r) * row + (at + p) * column]) : 0.0f;
    }
}

// A block computes a tile of d, a thread every 16th row and column of it. Each element sums along k in order.
template <typename T, typename D>
MEAP_DEVICE void product_tile(const ProductArgs &a) {
    MEAP_SHARED(float, as, PRODUCT_DEPTH * PRODUCT_ROW);
    MEAP_SHARED(float, bs, PRODUCT_DEPTH * PRODUCT_ROW);
    const int each = MEAP_PRODUCT_TILE / 16, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const int row = blockIdx.y * MEAP_PRODUCT_TILE, column = blockIdx.x * MEAP_PRODUCT_TILE;
    float sum[each][each];
#pragma unroll
    for (int i = 0; i < each; i++)
#pragma unroll
        for (int j = 0; j < each; j++) sum[i][j] = 0.0f;
    for (int at = 0; at < a.k; at += PRODUCT_DEPTH) {
        fetch_tile(as, (const T *)a.a, a.a_row, a.a_column, row, a.m, at, a.k);
        fetch_tile(bs, (const T *)a.b, a.b_column, a.b_row, column, a.n, at, a.k);
        __syncthreads();
#pragma unroll 4
        for (int p = 0; p < PRODUCT_DEPTH; p++) {
            float x[each], y[each];
#pragma unroll
            for (int i = 0; i < each; i++) x[i] = as[p * PRODUCT_ROW + ty + 16 * i], y[i] = bs[p * PRODUCT_ROW + tx + 16 * i];
#pragma unroll
            for (int i = 0; i < each; i++)
#pragma unroll
                for (int j = 0; j < each; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < each; i++)
#pragma unroll
        for (int j = 0; j < each; j++) {
            const int r = row + ty + 16 * i, c = column + tx + 16 * j;
            if (r >= a.m || c >= a.n) continue;
            const long long at = (long long)r * a.n + c;
            from_float((D *)a.d + at, a.c ? to_float(((const D *)a.c)[at]) + sum[i][j] : sum[i][j]);
        }
}

template <typename T>
MEAP_DEVICE void product(const ProductArgs &a) { product_tile<T, T>(a); }
MEAP_BOTH(product, ProductArgs, MEAP_BLOCK)

extern "C" __global__ void __launch_bounds__(MEAP_BLOCK) meap_product_bf16_f32(const ProductArgs a) { product_tile<bf16, float>(a); }
