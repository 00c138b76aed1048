// Everything below CUDA C++: bfloat16, tensor cores, asynchronous copies, shared memory. The emulator, which runs these kernels on
// a CPU (MEAP_EMULATE), has its own versions of what inline PTX does. No CUDA header is included, so that NVRTC needs none.
#ifndef MEAP_PTX_CUH
#define MEAP_PTX_CUH

#include "args.h"

typedef unsigned short bf16;
typedef unsigned int u32;

#define MEAP_DEVICE static __device__ __forceinline__
#define MEAP_ALL_LANES 0xffffffffu
#define MEAP_INFINITY __int_as_float(0x7f800000)
#define MEAP_NAN __int_as_float(0x7fc00000)

#ifndef MEAP_EMULATE
// MEAP_SHARED declares an array in shared memory; MEAP_DYN_SHARED names the memory whose size the launch gives.
#define MEAP_SHARED(type, name, size) __shared__ type name[size]
#define MEAP_DYN_SHARED(type, name)                      \
    extern __shared__ __align__(128) char meap_dynamic[]; \
    type *const name = (type *)meap_dynamic
#endif

MEAP_DEVICE float to_float(float x) { return x; }
MEAP_DEVICE float to_float(bf16 x) { return __uint_as_float((u32)x << 16); }

// pack2 rounds two floats to bfloat16, nearest, ties to even; lo goes to the lower half.
MEAP_DEVICE u32 pack2(float lo, float hi) {
#ifdef MEAP_EMULATE
    u32 bits[2] = {__float_as_uint(lo), __float_as_uint(hi)};
    for (int i = 0; i < 2; i++)
        bits[i] = (bits[i] & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (bits[i] + 0x7fffu + (bits[i] >> 16 & 1u)) >> 16;
    return bits[0] | bits[1] << 16;
#else
    u32 d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    return d;
#endif
}

MEAP_DEVICE void from_float(float *p, float x) { *p = x; }
MEAP_DEVICE void from_float(bf16 *p, float x) { *p = (bf16)pack2(x, 0.0f); }

// exp2_fast is 2^x to within 2 ulp; subnormal results become 0.
MEAP_DEVICE float exp2_fast(float x) {
#ifdef MEAP_EMULATE
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// mma adds a product to c on the tensor cores: a [16, 16] in 4 registers, b [16, 8] in 2, c [16, 8] in 4, spread over the lanes
// as mma.m16n8k16 has it. With g = lane / 4 and t = lane % 4: a holds (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) and
// their right neighbours, b (2t, g), (2t + 8, g) and their lower neighbours, c (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
MEAP_DEVICE void mma(float c[4], const u32 a[4], u32 b0, u32 b1) {
#ifdef MEAP_EMULATE
    const u32 b[2] = {b0, b1};
    emu::mma_m16n8k16_bf16(c, a, b, c);
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// ldmatrix4 loads four 8x8 matrices of 2-byte elements from shared memory: lane 8i + j points at row j of matrix i, and
// register i receives, of matrix i, row lane / 4, columns 2 (lane % 4) and the next. ldmatrix4_trans transposes each.
MEAP_DEVICE void ldmatrix4(u32 r[4], const void *row) {
#ifdef MEAP_EMULATE
    emu::ldmatrix<4, false>(r, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

MEAP_DEVICE void ldmatrix4_trans(u32 r[4], const void *row) {
#ifdef MEAP_EMULATE
    emu::ldmatrix<4, true>(r, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

// copy16 starts a copy of 16 bytes to shared memory, past the L1 cache; zeros instead of what is at src if not valid. Both
// pointers are aligned to 16 bytes.
MEAP_DEVICE void copy16(void *dst, const void *src, bool valid) {
#ifdef MEAP_EMULATE
    emu::cp_async(dst, src, 16, valid ? 16 : 0);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(dst)), "l"(src),
                 "r"(valid ? 16 : 0)
                 : "memory");
#endif
}

// copy4 is the same for 4 bytes.
MEAP_DEVICE void copy4(void *dst, const void *src, bool valid) {
#ifdef MEAP_EMULATE
    emu::cp_async(dst, src, 4, valid ? 4 : 0);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"((u32)__cvta_generic_to_shared(dst)), "l"(src),
                 "r"(valid ? 4 : 0)
                 : "memory");
#endif
}

// copy_commit closes a group of this thread's copies; copy_wait waits until at most `pending` groups are under way.
MEAP_DEVICE void copy_commit() {
#ifdef MEAP_EMULATE
    emu::cp_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int pending>
MEAP_DEVICE void copy_wait() {
#ifdef MEAP_EMULATE
    emu::cp_async_wait(pending);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

MEAP_DEVICE float warp_sum(float x) {
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(MEAP_ALL_LANES, x, d);
    return x;
}

MEAP_DEVICE double warp_sum(double x) {
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(MEAP_ALL_LANES, x, d);
    return x;
}

MEAP_DEVICE float warp_max(float x) {
    for (int d = 16; d > 0; d >>= 1) x = fmaxf(x, __shfl_xor_sync(MEAP_ALL_LANES, x, d));
    return x;
}

// The memory-bound kernels move 16 bytes at a time: width<T> elements. Each thread has the same elements whether or not they can
// be moved at once, so that no sum depends on how a tensor is aligned.
template <typename T>
struct Vec {
    enum { width = 16 / sizeof(T) };
};

MEAP_DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
MEAP_DEVICE u32 bits_of(bf16 x) { return x; }
MEAP_DEVICE void set_bits(float *p, u32 bits) { *p = __uint_as_float(bits); }
MEAP_DEVICE void set_bits(bf16 *p, u32 bits) { *p = (bf16)bits; }

MEAP_DEVICE bool aligned16(const void *p) { return ((size_t)p & 15) == 0; }

// load16 returns the elements i.. of p [n], `other` behind the end; whole says that p + i is aligned to 16 bytes. What is not whole
// goes through a loop that is kept rolled, for the sake of the code's size.
template <typename T>
MEAP_DEVICE uint4 load16(const T *p, long long i, long long n, bool whole, T other = (T)0) {
    if (whole && i + Vec<T>::width <= n) return *(const uint4 *)(p + i);
    const int bits = 8 * sizeof(T);
    unsigned long long low = 0, high = 0;
#pragma unroll 1
    for (int j = Vec<T>::width - 1; j >= 0; j--) {
        high = high << bits | low >> (64 - bits);
        low = low << bits | bits_of(i + j < n ? p[i + j] : other);
    }
    return make_uint4((u32)low, (u32)(low >> 32), (u32)high, (u32)(high >> 32));
}

template <typename T>
MEAP_DEVICE void store16(T *p, long long i, long long n, bool whole, uint4 v) {
    if (whole && i + Vec<T>::width <= n) {
        *(uint4 *)(p + i) = v;
        return;
    }
    const int bits = 8 * sizeof(T);
    unsigned long long low = (unsigned long long)v.y << 32 | v.x, high = (unsigned long long)v.w << 32 | v.z;
#pragma unroll 1
    for (int j = 0; j < Vec<T>::width && i + j < n; j++) {
        set_bits(p + i + j, (u32)low);
        low = low >> bits | high << (64 - bits);
        high >>= bits;
    }
}

// unpack and pack turn 16 bytes into floats and back. The first argument only names the type.
MEAP_DEVICE void unpack(const float *, uint4 v, float f[4]) {
    f[0] = __uint_as_float(v.x), f[1] = __uint_as_float(v.y), f[2] = __uint_as_float(v.z), f[3] = __uint_as_float(v.w);
}
MEAP_DEVICE void unpack(const bf16 *, uint4 v, float f[8]) {
    const u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++) f[2 * j] = __uint_as_float(w[j] << 16), f[2 * j + 1] = __uint_as_float(w[j] & 0xffff0000u);
}
MEAP_DEVICE uint4 pack(const float *, const float f[4]) {
    return make_uint4(__float_as_uint(f[0]), __float_as_uint(f[1]), __float_as_uint(f[2]), __float_as_uint(f[3]));
}
MEAP_DEVICE uint4 pack(const bf16 *, const float f[8]) {
    return make_uint4(pack2(f[0], f[1]), pack2(f[2], f[3]), pack2(f[4], f[5]), pack2(f[6], f[7]));
}

// load_floats is load16 of fp32 elements as many as a Vec<T> has: a second operand beside a T one.
template <int width>
MEAP_DEVICE void load_floats(const float *p, long long i, long long n, bool whole, float f[width]) {
#pragma unroll
    for (int j = 0; j < width; j += 4) unpack(p, load16(p, i + j, n, whole), f + j);
}

// first_vector and vector_stride are where a thread of an element-wise kernel starts, and how far it jumps, in elements.
template <typename T>
MEAP_DEVICE long long first_vector() {
    return ((long long)blockIdx.x * blockDim.x + threadIdx.x) * Vec<T>::width;
}
template <typename T>
MEAP_DEVICE long long vector_stride() {
    return (long long)gridDim.x * blockDim.x * Vec<T>::width;
}

// block_sum and block_max combine the values of all threads in a fixed order and give every thread the result; parts has room
// for one value of each warp, and needs a barrier before it is used again.
template <typename T>
MEAP_DEVICE T block_sum(T x, T *parts) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    T sum = parts[0];
    for (int w = 1; w < (int)blockDim.x / 32; w++) sum += parts[w];
    return sum;
}

MEAP_DEVICE float block_max(float x, float *parts) {
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float top = parts[0];
    for (int w = 1; w < (int)blockDim.x / 32; w++) top = fmaxf(top, parts[w]);
    return top;
}

// Both instances of a kernel written as a template over the storage type; what follows are its launch bounds.
#define MEAP_BOTH(name, Args, ...)                                                                                \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) meap_##name##_f32(const Args a) { name<float>(a); } \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__) meap_##name##_bf16(const Args a) { name<bf16>(a); }

#endif
