// What the tensor-core attention kernels share: tiles of bf16 rows in shared memory, and products of them.
//
// A block has four warps. A tile's rows are D elements; their 16-byte pieces are permuted within the row by the row's number, so
// that the eight rows that ldmatrix reads at once lie in different banks. With g = lane / 4 and t = lane % 4, a lane holds of a
// 16x8 tile of results the rows g, g + 8 and the columns 2t, 2t + 1; see mma.
#ifndef MEAP_ATTENTION_CUH
#define MEAP_ATTENTION_CUH

#include "ptx.cuh"

#define MEAP_LOG2E 1.4426950408889634f
#define MEAP_LN2 0.6931471805599453f

template <int D>
MEAP_DEVICE bf16 *piece(bf16 *tile, int row, int index) {
    return tile + row * D + ((index ^ (row & 7)) << 3);
}

// fetch starts copying rows first.. of x, `stride` elements apart, to a tile; zeros from row `limit` on.
template <int D, int ROWS>
MEAP_DEVICE void fetch(bf16 *tile, const bf16 *x, long long stride, int first, int limit) {
#pragma unroll
    for (int i = 0; i < ROWS * D / 8; i += MEAP_TENSOR_THREADS) {
        const int row = (i + threadIdx.x) / (D / 8), index = (i + threadIdx.x) % (D / 8);
        copy16(piece<D>(tile, row, index), x + (first + row) * stride + index * 8, first + row < limit);
    }
}

// load_a loads rows row.. and columns 16 k.. as the left operand of mma.
template <int D>
MEAP_DEVICE void load_a(u32 a[4], bf16 *tile, int row, int k) {
    const int lane = threadIdx.x % 32;
    ldmatrix4(a, piece<D>(tile, row + lane % 16, 2 * k + lane / 16));
}

// load_b loads rows row.. to row + 15 and columns 16 k.. as the right operands of two mma, whose results' columns are the rows:
// b[0], b[1] for the first eight.
template <int D>
MEAP_DEVICE void load_b(u32 b[4], bf16 *tile, int row, int k) {
    const int lane = threadIdx.x % 32;
    ldmatrix4(b, piece<D>(tile, row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
}

// load_b_trans loads rows 16 k.. and columns column.. to column + 15 as the right operands of two mma, whose results' columns are
// the columns.
template <int D>
MEAP_DEVICE void load_b_trans(u32 b[4], bf16 *tile, int column, int k) {
    const int lane = threadIdx.x % 32;
    ldmatrix4_trans(b, piece<D>(tile, 16 * k + lane % 16, column / 8 + lane / 16));
}

// left packs the results of two neighbouring 16x8 tiles as the left operand of a product over their columns.
MEAP_DEVICE void left(u32 a[4], const float x[4], const float y[4]) {
    a[0] = pack2(x[0], x[1]), a[1] = pack2(x[2], x[3]), a[2] = pack2(y[0], y[1]), a[3] = pack2(y[2], y[3]);
}

template <int ROWS, int COLUMNS>
MEAP_DEVICE void clear(float x[ROWS][COLUMNS][4]) {
#pragma unroll
    for (int m = 0; m < ROWS; m++)
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) x[m][n][i] = 0.0f;
}

// The four lanes that share a row.
MEAP_DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(MEAP_ALL_LANES, x, 1);
    return x + __shfl_xor_sync(MEAP_ALL_LANES, x, 2);
}
MEAP_DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(MEAP_ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(MEAP_ALL_LANES, x, 2));
}

// Span is the least and the greatest first key of a tile's queries.
struct Span {
    int least, greatest;
};

MEAP_DEVICE Span span_of(const int *spans, int b, int seq, int first, int queries) {
    const int per_row = (seq + MEAP_SPAN - 1) / MEAP_SPAN, end = min(per_row, (first + queries + MEAP_SPAN - 1) / MEAP_SPAN);
    spans += (long long)b * per_row * 2;
    Span s = {spans[first / MEAP_SPAN * 2], spans[first / MEAP_SPAN * 2 + 1]};
    for (int i = first / MEAP_SPAN + 1; i < end; i++) s.least = min(s.least, spans[2 * i]), s.greatest = max(s.greatest, spans[2 * i + 1]);
    return s;
}

// store_rows writes a warp's 16 rows of results, row.., times the scales of a lane's two rows, below limit.
template <int D>
MEAP_DEVICE void store_rows(bf16 *y, long long stride, int row, int limit, const float o[D / 8][4], float scale, float scale8) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    bf16 *p = y + (row + g) * stride + 2 * t;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        if (row + g < limit) *(u32 *)(p + 8 * n) = pack2(o[n][0] * scale, o[n][1] * scale);
        if (row + g + 8 < limit) *(u32 *)(p + 8 * stride + 8 * n) = pack2(o[n][2] * scale8, o[n][3] * scale8);
    }
}

#endif
