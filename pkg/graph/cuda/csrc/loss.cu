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

// Row is what a thread has of a block's row of logits: the same vectors in all passes. The first `held` of them stay in registers, the
// next in shared memory as far as it goes; what lies behind is read again in each pass.
struct Row {
    enum { V = 4, held = MEAP_LOGITS_HELD / 512 / V };
    const float *z;
    float *shared;
    int vocab, sweep, first, behind, kept; // behind: the logits before those in shared memory; kept: all that are not read again
    bool whole;
    uint4 bits[held];
};

MEAP_DEVICE uint4 read_logits(const Row &r, int at) { return load16(r.z, at, r.vocab, r.whole, -MEAP_INFINITY); }

MEAP_DEVICE void keep_logits(Row &r) {
    for (int at = r.behind + r.first; at < min(r.vocab, r.kept); at += r.sweep) {
        float *to = r.shared + (at - r.behind);
        if (r.whole && at + Row::V <= r.vocab) copy16(to, r.z + at, true);
        else *(uint4 *)to = read_logits(r, at);
    }
    copy_commit();
#pragma unroll
    for (int k = 0; k < Row::held; k++) r.bits[k] = read_logits(r, r.first + k * r.sweep);
    copy_wait<0>();
}

// pass calls f with each vector, where it lies in the row, and whether it is logits whatever passes with write, after which f's result is
// kept, have made of it.
template <bool write, typename F>
MEAP_DEVICE void pass(Row &r, F f) {
    float x[Row::V];
#pragma unroll
    for (int k = 0; k < Row::held; k++) {
        unpack(r.z, r.bits[k], x);
        f(x, r.first + k * r.sweep, false);
        if (write) r.bits[k] = pack(r.z, x);
    }
    for (int at = r.behind + r.first; at < min(r.vocab, r.kept); at += r.sweep) {
        uint4 *bits = (uint4 *)(r.shared + (at - r.behind));
        unpack(r.z, *bits, x);
        f(x, at, false);
        if (write) *bits = pack(r.z, x);
    }
    for (int at = r.kept + r.first; at < r.vocab; at += r.sweep) {
        unpack(r.z, read_logits(r, at), x);
        f(x, at, true);
    }
}

// A block has one row, and three passes over it: largest logit, sum of exponentials, gradient.
template <typename D, bool grad>
MEAP_DEVICE void cross_entropy_row(const CrossEntropyArgs &a) {
    MEAP_DYN_SHARED(float, shared);
    MEAP_SHARED(float, parts, 64);
    const int V = Row::V, label = a.labels[blockIdx.x];
    D *dz = (D *)a.dlogits + blockIdx.x * a.dlogits_stride;
    const bool dwhole = grad && a.dlogits_stride % Vec<D>::width == 0 && aligned16(a.dlogits);
    if (label < 0) {
        if (threadIdx.x == 0) a.nll[blockIdx.x] = 0.0f;
        for (int at = threadIdx.x * Vec<D>::width; grad && at < a.vocab; at += blockDim.x * Vec<D>::width)
            store16(dz, at, a.vocab, dwhole, make_uint4(0, 0, 0, 0));
        return;
    }
    Row r;
    r.z = a.logits + blockIdx.x * a.logits_stride, r.shared = shared, r.vocab = a.vocab;
    r.sweep = blockDim.x * V, r.first = threadIdx.x * V, r.behind = Row::held * r.sweep, r.kept = r.behind + a.more;
    r.whole = a.logits_stride % V == 0 && aligned16(a.logits);
    keep_logits(r);
    float top = -MEAP_INFINITY, sum = 0.0f;
    pass<false>(r, [&](float x[V], int, bool) {
#pragma unroll
        for (int j = 0; j < V; j++) top = fmaxf(top, x[j]);
    });
    top = block_max(top, parts);
    pass<grad>(r, [&](float x[V], int, bool) {
#pragma unroll
        for (int j = 0; j < V; j++) {
            x[j] = expf(x[j] - top);
            sum += x[j];
        }
    });
    // Beyond this barrier nobody reads logits of others, so that dlogits may take their place.
    const float target = label < a.vocab ? r.z[label] : MEAP_NAN;
    sum = block_sum(sum, parts + 32);
    if (threadIdx.x == 0) a.nll[blockIdx.x] = top + logf(sum) - target;
    if (!grad) return;
    const float g = label < a.vocab ? a.dnll[blockIdx.x] : MEAP_NAN, scale = g / sum;
    pass<false>(r, [&](float x[V], int at, bool logits) {
        if (at >= a.vocab) return;
#pragma unroll
        for (int j = 0; j < V; j++) x[j] = (logits ? expf(x[j] - top) : x[j]) * scale - (at + j == label ? g : 0.0f);
        store_row(dz, at, a.vocab, dwhole, x);
    });
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
