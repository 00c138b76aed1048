// RMSNorm and sums over rows. A sum over many rows is taken in two launches: each block writes the sum of its own rows, and
// reduce_rows adds those up in order.
#include "ptx.cuh"

// A warp normalises a row, which it keeps in registers up to `held` vectors a lane, so that the row is read once.
template <typename T>
MEAP_DEVICE void rmsnorm(const RMSNormArgs &a) {
    const int V = Vec<T>::width, held = 8, lane = threadIdx.x % 32;
    const long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= a.n) return;
    const T *x = (const T *)a.x + row * a.dim;
    T *y = (T *)a.y + row * a.dim;
    const bool whole = a.dim % V == 0 && aligned16(a.x) && aligned16(a.y) && aligned16(a.w);
    uint4 bits[held];
#pragma unroll
    for (int k = 0; k < held; k++) {
        bits[k] = make_uint4(0, 0, 0, 0);
        if ((k * 32 + lane) * V < a.dim) bits[k] = load16(x, (k * 32 + lane) * V, a.dim, whole);
    }
    float f[V], w[V], sum = 0.0f;
#pragma unroll
    for (int k = 0; k < held; k++) {
        unpack(x, bits[k], f);
#pragma unroll
        for (int j = 0; j < V; j++) sum += f[j] * f[j];
    }
    for (int at = (held * 32 + lane) * V; at < a.dim; at += 32 * V) {
        unpack(x, load16(x, at, a.dim, whole), f);
#pragma unroll
        for (int j = 0; j < V; j++) sum += f[j] * f[j];
    }
    const float rstd = 1.0f / sqrtf(warp_sum(sum) / a.dim + a.eps);
    if (lane == 0) a.rstd[row] = rstd;
#pragma unroll
    for (int k = 0; k < held; k++) {
        const int at = (k * 32 + lane) * V;
        if (at >= a.dim) break;
        unpack(x, bits[k], f);
        load_floats<V>(a.w, at, a.dim, whole, w);
#pragma unroll
        for (int j = 0; j < V; j++) f[j] = f[j] * rstd * w[j];
        store16(y, at, a.dim, whole, pack(y, f));
    }
    for (int at = (held * 32 + lane) * V; at < a.dim; at += 32 * V) {
        unpack(x, load16(x, at, a.dim, whole), f);
        load_floats<V>(a.w, at, a.dim, whole, w);
#pragma unroll
        for (int j = 0; j < V; j++) f[j] = f[j] * rstd * w[j];
        store16(y, at, a.dim, whole, pack(y, f));
    }
}
MEAP_BOTH(rmsnorm, RMSNormArgs, 128)

// rmsnorm_grad_vector finishes one vector of a row: x becomes dx, dy what RMSNorm gave, and dw gains the row's share.
template <int V>
MEAP_DEVICE void rmsnorm_grad_vector(float x[V], float dy[V], const float w[V], float dw[V], float rstd, float mean) {
#pragma unroll
    for (int j = 0; j < V; j++) {
        const float unit = x[j] * rstd;
        dw[j] += dy[j] * unit;
        x[j] = rstd * (dy[j] * w[j] - unit * mean);
        dy[j] = unit * w[j];
    }
}

// A block goes through `rows` rows, a thread always having the same columns. Of those, the first `held` vectors and their sums
// stay in registers; what lies behind is read again, its sums being in shared memory.
template <typename T>
MEAP_DEVICE void rmsnorm_grad(const RMSNormGradArgs &a) {
    MEAP_DYN_SHARED(float, dw_shared);
    MEAP_SHARED(float, parts, 16);
    const int V = Vec<T>::width, held = 8 / V, sweep = blockDim.x * V, first = threadIdx.x * V;
    const T *xs = (const T *)a.x, *dys = (const T *)a.dy, *mores = (const T *)a.more;
    T *dxs = (T *)a.dx, *ys = (T *)a.y;
    const bool whole = a.dim % V == 0 && aligned16(xs) && aligned16(dys) && aligned16(mores) && aligned16(dxs) && aligned16(ys) && aligned16(a.w) &&
                       aligned16(a.partial);
    float w[held][V], dw[held][V], x[V], dy[V];
#pragma unroll
    for (int k = 0; k < held; k++) {
        load_floats<V>(a.w, first + k * sweep, a.dim, whole, w[k]);
#pragma unroll
        for (int j = 0; j < V; j++) dw[k][j] = 0.0f;
    }
    for (int at = first + held * sweep; at < a.dim; at += sweep)
        for (int j = 0; j < V && at + j < a.dim; j++) dw_shared[at + j] = 0.0f;

    const long long begin = (long long)blockIdx.x * a.rows, end = min(begin + a.rows, a.n);
    for (long long row = begin; row < end; row++) {
        const T *xr = xs + row * a.dim, *dyr = dys + row * a.dim, *morer = mores ? mores + row * a.dim : 0;
        T *dxr = dxs + row * a.dim, *yr = ys ? ys + row * a.dim : 0;
        uint4 xbits[held], dybits[held], morebits[held]; // zeros where there is no more
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < held; k++) {
            xbits[k] = load16(xr, first + k * sweep, a.dim, whole);
            dybits[k] = load16(dyr, first + k * sweep, a.dim, whole);
            morebits[k] = morer ? load16(morer, first + k * sweep, a.dim, whole) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int k = 0; k < held; k++) {
            unpack(xr, xbits[k], x);
            unpack(dyr, dybits[k], dy);
#pragma unroll
            for (int j = 0; j < V; j++) sum += dy[j] * w[k][j] * x[j];
        }
        for (int at = first + held * sweep; at < a.dim; at += sweep) {
            float wv[V];
            unpack(xr, load16(xr, at, a.dim, whole), x);
            unpack(dyr, load16(dyr, at, a.dim, whole), dy);
            load_floats<V>(a.w, at, a.dim, whole, wv);
#pragma unroll
            for (int j = 0; j < V; j++) sum += dy[j] * wv[j] * x[j];
        }
        // Two sets of parts take turns, so that one barrier a row is enough.
        const float rstd = a.rstd[row], mean = block_sum(sum, parts + 8 * ((row - begin) & 1)) * rstd / a.dim;
#pragma unroll
        for (int k = 0; k < held; k++) {
            const int at = first + k * sweep;
            if (at >= a.dim) break;
            unpack(xr, xbits[k], x);
            unpack(dyr, dybits[k], dy);
            rmsnorm_grad_vector<V>(x, dy, w[k], dw[k], rstd, mean);
            if (yr) store16(yr, at, a.dim, whole, pack(yr, dy));
            unpack(dyr, morebits[k], dy);
#pragma unroll
            for (int j = 0; j < V; j++) x[j] += dy[j];
            store16(dxr, at, a.dim, whole, pack(dxr, x));
        }
        for (int at = first + held * sweep; at < a.dim; at += sweep) {
            float wv[V], sums[V];
            unpack(xr, load16(xr, at, a.dim, whole), x);
            unpack(dyr, load16(dyr, at, a.dim, whole), dy);
            load_floats<V>(a.w, at, a.dim, whole, wv);
            for (int j = 0; j < V; j++) sums[j] = at + j < a.dim ? dw_shared[at + j] : 0.0f;
            rmsnorm_grad_vector<V>(x, dy, wv, sums, rstd, mean);
            if (morer) {
                float more[V];
                unpack(dyr, load16(morer, at, a.dim, whole), more);
#pragma unroll
                for (int j = 0; j < V; j++) x[j] += more[j];
            }
            if (yr) store16(yr, at, a.dim, whole, pack(yr, dy)); // perhaps where more is
            for (int j = 0; j < V && at + j < a.dim; j++) dw_shared[at + j] = sums[j];
            store16(dxr, at, a.dim, whole, pack(dxr, x));
        }
    }
    float *partial = a.partial + (long long)blockIdx.x * a.dim;
#pragma unroll
    for (int k = 0; k < held; k++)
#pragma unroll
        for (int j = 0; j < V; j += 4) store16(partial, first + k * sweep + j, a.dim, whole, pack(partial, dw[k] + j));
    for (int at = first + held * sweep; at < a.dim; at += sweep)
        for (int j = 0; j < V && at + j < a.dim; j++) partial[at + j] = dw_shared[at + j];
}
MEAP_BOTH(rmsnorm_grad, RMSNormGradArgs, 256)

template <typename T>
MEAP_DEVICE void column_sum(const ColumnSumArgs &a) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= a.width) return;
    const long long begin = (long long)blockIdx.y * a.rows, end = min(begin + a.rows, a.n);
    const T *dy = (const T *)a.dy + c;
    float sum = 0.0f;
#pragma unroll 8
    for (long long row = begin; row < end; row++) sum += to_float(dy[row * a.width]);
    a.partial[(long long)blockIdx.y * a.width + c] = sum;
}
MEAP_BOTH(column_sum, ColumnSumArgs, 256)

// Each of eight warps sums every eighth row of 32 columns.
extern "C" __global__ void __launch_bounds__(256) meap_reduce_rows_f32(const ReduceRowsArgs a) {
    MEAP_SHARED(float, parts, 256);
    const int warp = threadIdx.x / 32, c = blockIdx.x * 32 + threadIdx.x % 32;
    float sum = 0.0f;
    if (c < a.width) {
#pragma unroll 8
        for (int row = warp; row < a.rows; row += 8) sum += a.partial[(long long)row * a.width + c];
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || c >= a.width) return;
    for (int w = 1; w < 8; w++) sum += parts[w * 32 + threadIdx.x];
    a.out[c] = a.acc ? a.out[c] + sum : sum;
}
