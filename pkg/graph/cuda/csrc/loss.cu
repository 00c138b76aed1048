// Cross-entropy over rows of logits, and the mean of the losses.
#include "ptx.cuh"

// store_row writes what was computed from four logits: 16 bytes, or 8 in bf16.
MEAP_DEVICE void store_row(float *p, int at, int n, bool whole, const float f[4]) { store16(p, at, n, whole, pack(p, f)); }
MEAP_DEVICE void store_row(bf16 *p, int at, int n, bool whole, const float f[4]) {
    if (whole && at + 4 <= n) {
        *(uint2 *)(p + at) = make_uint2(pack2(f[0], f[1]), pack2(f[2], f[3]));
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (at + j < n) from_float(p + at + j, f[j]);
    }
}

// A block has one row. Each thread keeps up to `held` vectors of it in registers, so that vocabularies of up to 16,384 are
// read once; what lies behind is read again for each of the three passes: largest logit, sum, gradient.
template <typename D, bool grad>
MEAP_DEVICE void cross_entropy_row(const CrossEntropyArgs &a) {
    MEAP_SHARED(float, parts, 64);
    const int V = 4, held = 8, sweep = blockDim.x * V, first = threadIdx.x * V;
    const long long row = blockIdx.x;
    const float *z = a.logits + row * a.logits_stride;
    D *dz = (D *)a.dlogits + row * a.dlogits_stride;
    const int label = a.labels[row];
    const bool whole = a.logits_stride % V == 0 && aligned16(a.logits);
    const bool dwhole = grad && a.dlogits_stride % Vec<D>::width == 0 && aligned16(a.dlogits);
    const float none = -MEAP_INFINITY; // behind the end of a row
    float f[V];
    if (label < 0) {
        if (threadIdx.x == 0) a.nll[row] = 0.0f;
        for (int at = threadIdx.x * Vec<D>::width; grad && at < a.vocab; at += blockDim.x * Vec<D>::width)
            store16(dz, at, a.vocab, dwhole, make_uint4(0, 0, 0, 0));
        return;
    }
    uint4 bits[held];
#pragma unroll
    for (int k = 0; k < held; k++) bits[k] = load16(z, first + k * sweep, a.vocab, whole, none);
    float top = -MEAP_INFINITY;
#pragma unroll
    for (int k = 0; k < held; k++) {
        unpack(z, bits[k], f);
#pragma unroll
        for (int j = 0; j < V; j++) top = fmaxf(top, f[j]);
    }
    for (int at = first + held * sweep; at < a.vocab; at += sweep) {
        unpack(z, load16(z, at, a.vocab, whole, none), f);
#pragma unroll
        for (int j = 0; j < V; j++) top = fmaxf(top, f[j]);
    }
    top = block_max(top, parts);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < held; k++) {
        unpack(z, bits[k], f);
#pragma unroll
        for (int j = 0; j < V; j++) sum += expf(f[j] - top);
    }
    for (int at = first + held * sweep; at < a.vocab; at += sweep) {
        unpack(z, load16(z, at, a.vocab, whole, none), f);
#pragma unroll
        for (int j = 0; j < V; j++) sum += expf(f[j] - top);
    }
    // Beyond this barrier nobody reads logits of others, so that dlogits may take their place.
    const float target = label < a.vocab ? z[label] : MEAP_NAN;
    sum = block_sum(sum, parts + 32);
    if (threadIdx.x == 0) a.nll[row] = top + logf(sum) - target;
    if (!grad) return;
    const float g = label < a.vocab ? a.dnll[row] : MEAP_NAN, scale = g / sum;
#pragma unroll
    for (int k = 0; k < held; k++) {
        const int at = first + k * sweep;
        if (at >= a.vocab) break;
        unpack(z, bits[k], f);
#pragma unroll
        for (int j = 0; j < V; j++) f[j] = expf(f[j] - top) * scale - (at + j == label ? g : 0.0f);
        store_row(dz, at, a.vocab, dwhole, f);
    }
    for (int at = first + held * sweep; at < a.vocab; at += sweep) {
        unpack(z, load16(z, at, a.vocab, whole, none), f);
#pragma unroll
        for (int j = 0; j < V; j++) f[j] = expf(f[j] - top) * scale - (at + j == label ? g : 0.0f);
        store_row(dz, at, a.vocab, dwhole, f);
    }
}

extern "C" __global__ void __launch_bounds__(512, 2) meap_cross_entropy_f32(const CrossEntropyArgs a) { cross_entropy_row<float, false>(a); }
extern "C" __global__ void __launch_bounds__(512, 2) meap_cross_entropy_grad_f32(const CrossEntropyArgs a) { cross_entropy_row<float, true>(a); }
extern "C" __global__ void __launch_bounds__(512, 2) meap_cross_entropy_grad_f32_bf16(const CrossEntropyArgs a) { cross_entropy_row<bf16, true>(a); }

extern "C" __global__ void __launch_bounds__(1024) meap_weighted_sum_f32(const WeightedSumArgs a) {
    MEAP_SHARED(double, parts, 32);
    double sum = 0.0;
    for (long long i = threadIdx.x; i < a.n; i += blockDim.x) sum += a.x[i];
    sum = block_sum(sum, parts);
    if (threadIdx.x == 0) *a.y = (float)(sum * *a.scale);
}
