// Element-wise operators: one pass over memory, 16 bytes a load.
#include "ptx.cuh"

extern "C" __global__ void meap_cast_f32_bf16(const CastArgs a) {
    const float *x = (const float *)a.x;
    bf16 *y = (bf16 *)a.y;
    const bool whole = aligned16(x) && aligned16(y);
    for (long long i = first_vector<bf16>(); i < a.n; i += vector_stride<bf16>()) {
        float f[8];
        load_floats<8>(x, i, a.n, whole, f);
        store16(y, i, a.n, whole, pack(y, f));
    }
}

extern "C" __global__ void meap_cast_bf16_f32(const CastArgs a) {
    const bf16 *x = (const bf16 *)a.x;
    float *y = (float *)a.y;
    const bool whole = aligned16(x) && aligned16(y);
    for (long long i = first_vector<bf16>(); i < a.n; i += vector_stride<bf16>()) {
        float f[8];
        unpack(x, load16(x, i, a.n, whole), f);
        store16(y, i, a.n, whole, pack(y, f));
        store16(y, i + 4, a.n, whole, pack(y, f + 4));
    }
}

template <typename T>
MEAP_DEVICE void add(const AddArgs &a) {
    const T *x = (const T *)a.x, *y = (const T *)a.y;
    T *z = (T *)a.z;
    const bool whole = aligned16(x) && aligned16(y) && aligned16(z);
    for (long long i = first_vector<T>(); i < a.n; i += vector_stride<T>()) {
        float p[Vec<T>::width], q[Vec<T>::width];
        unpack(x, load16(x, i, a.n, whole), p);
        unpack(y, load16(y, i, a.n, whole), q);
#pragma unroll
        for (int j = 0; j < Vec<T>::width; j++) p[j] += q[j];
        store16(z, i, a.n, whole, pack(z, p));
    }
}
MEAP_BOTH(add, AddArgs, MEAP_BLOCK)

template <typename T>
MEAP_DEVICE void accumulate(const AccumulateArgs &a) {
    const T *g = (const T *)a.g;
    const bool whole = aligned16(a.acc) && aligned16(g);
    for (long long i = first_vector<T>(); i < a.n; i += vector_stride<T>()) {
        float p[Vec<T>::width], q[Vec<T>::width];
        load_floats<Vec<T>::width>(a.acc, i, a.n, whole, p);
        unpack(g, load16(g, i, a.n, whole), q);
#pragma unroll
        for (int j = 0; j < Vec<T>::width; j++) p[j] += q[j];
#pragma unroll
        for (int j = 0; j < Vec<T>::width; j += 4) store16(a.acc, i + j, a.n, whole, pack(a.acc, p + j));
    }
}
MEAP_BOTH(accumulate, AccumulateArgs, MEAP_BLOCK)

// sigmoid is exact at both ends: expf overflows to infinity, and 1 / infinity is 0.
MEAP_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename T>
MEAP_DEVICE void swiglu(const SwiGLUArgs &a) {
    const T *gate = (const T *)a.gate, *up = (const T *)a.up;
    T *y = (T *)a.y;
    const bool whole = aligned16(gate) && aligned16(up) && aligned16(y);
    for (long long i = first_vector<T>(); i < a.n; i += vector_stride<T>()) {
        float g[Vec<T>::width], u[Vec<T>::width];
        unpack(gate, load16(gate, i, a.n, whole), g);
        unpack(up, load16(up, i, a.n, whole), u);
#pragma unroll
        for (int j = 0; j < Vec<T>::width; j++) g[j] = g[j] * sigmoid(g[j]) * u[j];
        store16(y, i, a.n, whole, pack(y, g));
    }
}
MEAP_BOTH(swiglu, SwiGLUArgs, MEAP_BLOCK)

template <typename T>
MEAP_DEVICE void swiglu_grad(const SwiGLUGradArgs &a) {
    const T *gate = (const T *)a.gate, *up = (const T *)a.up, *dy = (const T *)a.dy;
    T *dgate = (T *)a.dgate, *dup = (T *)a.dup, *result = (T *)a.y;
    const bool whole = aligned16(gate) && aligned16(up) && aligned16(dy) && aligned16(dgate) && aligned16(dup) && aligned16(result);
    for (long long i = first_vector<T>(); i < a.n; i += vector_stride<T>()) {
        float g[Vec<T>::width], u[Vec<T>::width], d[Vec<T>::width];
        unpack(gate, load16(gate, i, a.n, whole), g);
        unpack(up, load16(up, i, a.n, whole), u);
        unpack(dy, load16(dy, i, a.n, whole), d);
#pragma unroll
        for (int j = 0; j < Vec<T>::width; j++) {
            const float s = sigmoid(g[j]), x = g[j], y = x * s * u[j];
            g[j] = d[j] * u[j] * (s + x * s * (1.0f - s));
            u[j] = d[j] * x * s;
            d[j] = y;
        }
        store16(dgate, i, a.n, whole, pack(dgate, g));
        store16(dup, i, a.n, whole, pack(dup, u));
        if (result) store16(result, i, a.n, whole, pack(result, d));
    }
}
MEAP_BOTH(swiglu_grad, SwiGLUGradArgs, MEAP_BLOCK)

// A vector lies in one row only if the width is a multiple of its own; otherwise the element-wise loads look up each column.
template <typename D>
MEAP_DEVICE void bias(const BiasArgs &a) {
    const int V = Vec<D>::width;
    D *y = (D *)a.y;
    const long long n = a.n * a.width;
    const bool rows = a.width % V == 0, whole = rows && aligned16(y) && aligned16(a.x) && aligned16(a.bias);
    for (long long i = first_vector<D>(); i < n; i += vector_stride<D>()) {
        float x[V], b[V];
        const int c = (int)(i % a.width);
        if (rows) {
            load_floats<V>(a.bias, c, a.width, whole, b);
        } else {
            for (int j = 0; j < V; j++) b[j] = a.bias[(c + j) % a.width];
        }
        if (a.x != 0) {
            load_floats<V>(a.x, i, n, whole, x);
#pragma unroll
            for (int j = 0; j < V; j++) b[j] += x[j];
        }
        store16(y, i, n, whole, pack(y, b));
    }
}
extern "C" __global__ void __launch_bounds__(MEAP_BLOCK) meap_bias_f32(const BiasArgs a) { bias<float>(a); }
extern "C" __global__ void __launch_bounds__(MEAP_BLOCK) meap_bias_f32_bf16(const BiasArgs a) { bias<bf16>(a); }

// A thread turns the pairs of one vector of a head's first half with the vector of its second half.
template <typename T>
MEAP_DEVICE void rope(const RoPEArgs &a) {
    const int V = Vec<T>::width;
    const T *x = (const T *)a.x;
    T *y = (T *)a.y;
    const int pieces = (a.half + V - 1) / V, heads = a.width / (2 * a.half);
    const long long n = a.n * heads * pieces;
    const bool whole = a.half % V == 0 && aligned16(x) && aligned16(y) && aligned16(a.cos) && aligned16(a.sin);
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
        const int at = (int)(i % pieces) * V;
        const long long head = i / pieces, row = head / heads;
        const long long first = row * a.width + (head % heads) * 2 * a.half, angle = (long long)a.pos[row] * a.half;
        float p[V], q[V], c[V], s[V];
        unpack(x, load16(x + first, at, a.half, whole), p);
        unpack(x, load16(x + first + a.half, at, a.half, whole), q);
        load_floats<V>(a.cos + angle, at, a.half, whole, c);
        load_floats<V>(a.sin + angle, at, a.half, whole, s);
#pragma unroll
        for (int j = 0; j < V; j++) {
            const float sn = a.inverse ? -s[j] : s[j], r = p[j] * c[j] - q[j] * sn;
            q[j] = q[j] * c[j] + p[j] * sn;
            p[j] = r;
        }
        store16(y + first, at, a.half, whole, pack(y, p));
        store16(y + first + a.half, at, a.half, whole, pack(y, q));
    }
}
MEAP_BOTH(rope, RoPEArgs, MEAP_BLOCK)

extern "C" __global__ void meap_weighted_sum_grad_f32(const WeightedSumGradArgs a) {
    const bool whole = aligned16(a.y);
    const float value = *a.scale * *a.dy, f[4] = {value, value, value, value};
    for (long long i = first_vector<float>(); i < a.n; i += vector_stride<float>()) store16(a.y, i, a.n, whole, pack(a.y, f));
}

template <typename T>
MEAP_DEVICE void cache_write(const CacheWriteArgs &a) {
    const int V = Vec<T>::width, pieces = (a.width + V - 1) / V;
    const T *k = (const T *)a.k, *v = (const T *)a.v;
    T *kcache = (T *)a.kcache, *vcache = (T *)a.vcache;
    const bool whole = a.width % V == 0 && aligned16(k) && aligned16(v) && aligned16(kcache) && aligned16(vcache);
    const long long n = (long long)a.batch * a.seq * pieces;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
        const int at = (int)(i % pieces) * V;
        const long long row = i / pieces, b = row / a.seq, position = a.past[b] + row % a.seq;
        if (position >= a.capacity) continue;
        const long long from = row * a.width, to = (b * a.capacity + position) * a.width;
        store16(kcache + to, at, a.width, whole, load16(k + from, at, a.width, whole));
        store16(vcache + to, at, a.width, whole, load16(v + from, at, a.width, whole));
    }
}
MEAP_BOTH(cache_write, CacheWriteArgs, MEAP_BLOCK)
