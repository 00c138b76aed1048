// The end of a step: norm of the gradients, report, AdamW.
#include "ptx.cuh"

// Squares are summed in fp64: those of gradients that fp32 can hold may be beyond it.
extern "C" __global__ void __launch_bounds__(256) meap_grad_norm_partial_f32(const GradNormArgs a) {
    MEAP_SHARED(double, parts, 8);
    const int block = blockIdx.x;
    int t = 0;
    for (int high = a.count; high - t > 1;) {
        const int middle = (t + high) / 2;
        if (a.first[middle] <= block) t = middle;
        else high = middle;
    }
    const float *g = a.grads[t];
    const bool whole = aligned16(g);
    const long long begin = (long long)(block - a.first[t]) * MEAP_NORM_CHUNK, end = min(begin + MEAP_NORM_CHUNK, a.sizes[t]);
    double sum[4] = {0, 0, 0, 0};
#pragma unroll 4
    for (long long i = begin + threadIdx.x * 4; i < end; i += blockDim.x * 4) {
        float f[4];
        unpack(g, load16(g, i, end, whole), f);
#pragma unroll
        for (int j = 0; j < 4; j++) sum[j] += (double)f[j] * f[j];
    }
    const double total = block_sum((sum[0] + sum[1]) + (sum[2] + sum[3]), parts);
    if (threadIdx.x == 0) a.partial[block] = total;
}

// A warp adds up a tensor's blocks, then the block all tensors.
extern "C" __global__ void __launch_bounds__(1024) meap_grad_norm_total_f32(const GradNormArgs a) {
    MEAP_SHARED(double, parts, 32);
    const int lane = threadIdx.x % 32;
    for (int t = threadIdx.x / 32; t < a.count; t += blockDim.x / 32) {
        double sum = 0.0;
        for (int block = a.first[t] + lane; block < a.first[t + 1]; block += 32) sum += a.partial[block];
        sum = warp_sum(sum);
        if (lane == 0) a.total[t] = sum, a.squares[t] = (float)sum;
    }
    __syncthreads();
    double sum = 0.0;
    for (int t = threadIdx.x; t < a.count; t += blockDim.x) sum += a.total[t];
    sum = block_sum(sum, parts);
    if (threadIdx.x == 0) *a.norm = (float)sqrt(sum);
}

// finite holds for neither infinities nor NaN, whatever the compiler may assume of them.
MEAP_DEVICE bool finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

extern "C" __global__ void meap_step_report_f32(const StepReportArgs a) {
    if (threadIdx.x != 0) return;
    const float loss = *a.loss, norm = *a.norm;
    const float halted = finite(loss) && finite(norm) ? *a.halted : 1.0f;
    a.report[0] = loss, a.report[1] = norm, a.report[2] = halted;
    *a.halted = halted;
    *a.loss = 0.0f;
}

extern "C" __global__ void __launch_bounds__(MEAP_BLOCK) meap_adamw_f32(const AdamWArgs a) {
    if (a.report[2] != 0.0f) return;
    const float norm = a.report[1], scale = a.clip > 0.0f && norm > a.clip ? a.clip / norm : 1.0f;
    const float lr = a.hyper[0], c1 = a.hyper[1], c2 = a.hyper[2];
    bf16 *p16 = (bf16 *)a.p16;
    const bool whole = aligned16(a.p) && aligned16(a.g) && aligned16(a.m) && aligned16(a.v) && ((size_t)p16 & 7) == 0;
    for (long long i = first_vector<float>(); i < a.n; i += vector_stride<float>()) {
        float p[4], g[4], m[4], v[4];
        unpack(a.p, load16(a.p, i, a.n, whole), p);
        unpack(a.g, load16(a.g, i, a.n, whole), g);
        unpack(a.m, load16(a.m, i, a.n, whole), m);
        unpack(a.v, load16(a.v, i, a.n, whole), v);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float gr = g[j] * scale;
            m[j] = a.beta1 * m[j] + a.beta1c * gr;
            v[j] = a.beta2 * v[j] + a.beta2c * gr * gr;
            p[j] -= lr * (m[j] * c1 / (sqrtf(v[j] * c2) + a.epsilon) + a.decay * p[j]);
        }
        store16(a.p, i, a.n, whole, pack(a.p, p));
        store16(a.g, i, a.n, whole, make_uint4(0, 0, 0, 0));
        store16(a.m, i, a.n, whole, pack(a.m, m));
        store16(a.v, i, a.n, whole, pack(a.v, v));
        if (p16 == 0) continue;
        if (whole && i + 4 <= a.n) {
            *(uint2 *)(p16 + i) = make_uint2(pack2(p[0], p[1]), pack2(p[2], p[3]));
        } else {
            for (int j = 0; j < 4 && i + j < a.n; j++) from_float(p16 + i + j, p[j]);
        }
    }
}
