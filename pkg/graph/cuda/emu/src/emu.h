// What CUDA C++ gives a kernel, on a CPU: included before everything else when the kernels are compiled by g++ with MEAP_EMULATE.
//
// A CUDA thread is a fiber. Fibers switch only at barriers and at the collectives of a warp, so whatever happens between two of
// them happens in one go; seeds (MEAP_FAKE_SEED) shuffle the order in which warps and lanes come, so that a missing barrier shows
// up as a wrong result.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#ifndef __restrict__
#define __restrict__ __restrict
#endif
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static const
#define __launch_bounds__(...)
#define __grid_constant__

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

#define EMU_VEC2(T, name) struct __align__(2 * sizeof(T)) name { T x, y; }; static inline name make_##name(T x, T y) { return {x, y}; }
#define EMU_VEC4(T, name) \
  struct __align__(16) name { T x, y, z, w; }; static inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VEC2(float, float2)
EMU_VEC2(int, int2)
EMU_VEC2(unsigned, uint2)
EMU_VEC2(double, double2)
EMU_VEC2(unsigned short, ushort2)
EMU_VEC2(unsigned long long, ulonglong2)
EMU_VEC4(float, float4)
EMU_VEC4(int, int4)
EMU_VEC4(unsigned, uint4)
struct __align__(8) ushort4 { unsigned short x, y, z, w; };
static inline ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z, unsigned short w) { return {x, y, z, w}; }

namespace emu {

struct Block;
struct Copy { void *dst; const void *src; int bytes, valid; };

// Fiber is one CUDA thread.
struct Fiber {
  void *sp;
  uint3 thread;
  Block *block;
  unsigned lane, warp;
  int state;
  int barrier;      // the barrier waited at
  int site;         // line of the barrier
  const char *file; // and its file
  int vote;         // operand of __syncthreads_or and its kin
  const void *phased; // the mbarrier waited at, and the parity of the phase
  int parity;
  void *operand;    // operand of a warp's collective
  // cp.async: copies not committed, committed groups.
  Copy *copies;
  int ncopies, capacity, ngroups;
  int groups[64]; // end of each committed group in copies
};

// What Block shows of itself to kernels.
struct Block {
  uint3 index;
  dim3 dim, grid;
  int votes; // result of the last reducing barrier
  int votes_count;
};

// self is the running fiber. One worker thread runs a block; its fibers never move to another thread.
extern thread_local __attribute__((tls_model("initial-exec"), visibility("hidden"))) Fiber *self;

// barrier waits until `threads` threads (0: all that have not returned) have come to the barrier with this id.
void barrier(int id, int threads, const char *file, int line);

// collective waits until the lanes of mask have come with the same operation, calls work once with every lane's operand (null
// for lanes outside of mask) and lets them go on.
typedef void (*Work)(void *const operands[32], unsigned mask);
void collective(const char *op, unsigned mask, void *operand, Work work);

// shared returns the block's memory for one __shared__ declaration, known by key.
void *shared(const void *key, unsigned long bytes);
void *dynamic_shared();

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

template <class T> struct Shfl { T value; int src; T result; };

template <class T> inline T shfl(const char *op, unsigned mask, T value, int src) {
  static_assert(sizeof(T) <= 8, "shuffles move 4 or 8 bytes");
  Shfl<T> s{value, src, value};
  collective(op, mask, &s, [](void *const all[32], unsigned m) {
    for (int l = 0; l < 32; l++) {
      if (!all[l]) continue;
      auto *me = (Shfl<T> *)all[l];
      auto *from = (Shfl<T> *)all[me->src & 31];
      if (!from) fail("a lane shuffles from lane %d, which takes no part (mask %08x)", me->src & 31, m);
      me->result = from->value;
    }
  });
  return s.result;
}

// The segments of width lanes that shuffles may be confined to.
inline int lane_of(int src, int width) { return (int)(self->lane & ~(width - 1u)) | (src & (width - 1)); }

struct Vote { int value; unsigned result; };
inline unsigned ballot(const char *op, unsigned mask, int predicate) {
  Vote v{predicate, 0};
  collective(op, mask, &v, [](void *const all[32], unsigned) {
    unsigned r = 0;
    for (int l = 0; l < 32; l++) if (all[l] && ((Vote *)all[l])->value) r |= 1u << l;
    for (int l = 0; l < 32; l++) if (all[l]) ((Vote *)all[l])->result = r;
  });
  return v.result;
}

inline float bf16(unsigned bits) {
  unsigned u = bits << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

// mma is mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32: d[16,8] = a[16,16] b[16,8] + c[16,8], every operand spread over the
// lanes as the PTX ISA lays down. With g = lane/4 and t = lane%4, register r of a holds row g + 8*(r&1) and columns 2t, 2t+1 (+8
// for r >= 2); register r of b rows 2t, 2t+1 (+8 for r = 1) of column g; register r of c and d row g + 8*(r>>1), column 2t + (r&1).
struct MMA { float *d; const unsigned *a, *b; const float *c; };
void mma_work(void *const all[32], unsigned mask);
inline void mma_m16n8k16_bf16(float d[4], const unsigned a[4], const unsigned b[2], const float c[4]) {
  MMA m{d, a, b, c};
  collective("mma.m16n8k16", ~0u, &m, mma_work);
}

// ldmatrix is ldmatrix.sync.aligned.m8n8.x{1,2,4}[.trans].shared.b16: lane 8i+j gives the address of row j of matrix i (16 bytes,
// aligned so); register i of every lane receives matrix i's row lane/4, columns 2*(lane%4) and one more. With trans, the
// matrix is transposed on the way.
struct LdMatrix { unsigned *r; const void *row; int n; bool trans; };
void ldmatrix_work(void *const all[32], unsigned mask);
template <int n, bool trans> inline void ldmatrix(unsigned *r, const void *row) {
  LdMatrix m{r, row, n, trans};
  static const char *const names[] = {"ldmatrix.x1", "ldmatrix.x2", "ldmatrix.x4", "ldmatrix.x1.trans", "ldmatrix.x2.trans", "ldmatrix.x4.trans"};
  collective(names[(n == 1 ? 0 : n == 2 ? 1 : 2) + (trans ? 3 : 0)], ~0u, &m, ldmatrix_work);
}

// wgmma is a warp's share of wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 with the left operand in registers: d [16, 64] =
// a [16, 16] b [16, 64], added to d if `add`, spread over the lanes as in mma. The right operand is in shared memory, in groups of eight
// rows of 128 bytes, permuted by the 128-byte swizzle: its rows are columns of d or, transposed, rows of b. It is done at once.
struct WGMMA { float *d; const unsigned *a; const void *b; bool add, transposed; };
void wgmma_work(void *const all[32], unsigned mask);
inline void wgmma_m64n64k16_bf16(float *d, const unsigned a[4], const void *b, bool add, bool transposed) {
  WGMMA m{d, a, b, add, transposed};
  collective("wgmma.m64n64k16", ~0u, &m, wgmma_work);
}

// mbarrier_* are the barriers of 8 bytes in shared memory that threads arrive at without waiting. A phase ends when `count` threads
// have arrived; mbarrier_wait waits until the phase of that parity has ended, the first being of parity 0.
void mbarrier_init(void *barrier, int count);
void mbarrier_arrive(void *barrier);
void mbarrier_wait(void *barrier, int parity);

// cp_async copies `bytes` bytes (4, 8 or 16), zeros behind the first `valid`. The copy is made when the thread waits for its
// group, as late as CUDA may make it.
void cp_async(void *dst, const void *src, int bytes, int valid);
inline void cp_async(void *dst, const void *src, int bytes) { cp_async(dst, src, bytes, bytes); }
void cp_async_commit();
void cp_async_wait(int pending); // cp.async.wait_group
void cp_async_wait_all();

} // namespace emu

#define threadIdx (emu::self->thread)
#define blockIdx (emu::self->block->index)
#define blockDim (emu::self->block->dim)
#define gridDim (emu::self->block->grid)
#define warpSize 32

#define MEAP_SHARED(type, name, size) \
  static const char name##_key = 0;   \
  auto &name = *(type(*)[size])emu::shared(&name##_key, sizeof(type[size]))
#define MEAP_DYN_SHARED(type, name) type *const name = (type *)emu::dynamic_shared()

#define __syncthreads() emu::barrier(0, 0, __FILE__, __LINE__)
#define __syncthreads_or(p) (emu::self->vote = (p) != 0, emu::barrier(0, 0, __FILE__, __LINE__), emu::self->block->votes_count > 0)
#define __syncthreads_count(p) (emu::self->vote = (p) != 0, emu::barrier(0, 0, __FILE__, __LINE__), emu::self->block->votes_count)
#define __syncthreads_and(p) (emu::self->vote = (p) == 0, emu::barrier(0, 0, __FILE__, __LINE__), emu::self->block->votes_count == 0)

static inline void __syncwarp(unsigned mask = ~0u) { emu::collective("__syncwarp", mask, (void *)1, [](void *const *, unsigned) {}); }
template <class T> inline T __shfl_sync(unsigned mask, T v, int src, int width = 32) {
  return emu::shfl("__shfl_sync", mask, v, emu::lane_of(src, width));
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32) {
  int src = (int)emu::self->lane ^ x;
  return emu::shfl("__shfl_xor_sync", mask, v, src / width == (int)emu::self->lane / width ? src : (int)emu::self->lane);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  int src = (int)(emu::self->lane + delta);
  return emu::shfl("__shfl_down_sync", mask, v, src / width == (int)emu::self->lane / width ? src : (int)emu::self->lane);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  int src = (int)emu::self->lane - (int)delta;
  return emu::shfl("__shfl_up_sync", mask, v, src >= 0 && src / width == (int)emu::self->lane / width ? src : (int)emu::self->lane);
}
static inline unsigned __ballot_sync(unsigned mask, int p) { return emu::ballot("__ballot_sync", mask, p); }
static inline int __any_sync(unsigned mask, int p) { return emu::ballot("__any_sync", mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return emu::ballot("__all_sync", mask, !p) == 0; }
static inline unsigned __activemask() { return ~0u; }

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T> inline T atomicAdd(T *p, T v) {
  static_assert(std::is_integral<T>::value, "additions of floats in any order are not deterministic");
  return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
template <class T> inline T atomicOr(T *p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }
template <class T> inline T atomicAnd(T *p, T v) { return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST); }
template <class T> inline T atomicExch(T *p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
template <class T> inline T atomicCAS(T *p, T want, T v) {
  __atomic_compare_exchange_n(p, &want, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return want;
}
template <class T> inline T atomicMax(T *p, T v) {
  T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
  while (old < v && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
  return old;
}
template <class T> inline T atomicMin(T *p, T v) {
  T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
  while (v < old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
  return old;
}

template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline T __ldcs(const T *p) { return *p; }
template <class T> inline T __ldcg(const T *p) { return *p; }
template <class T> inline void __stcs(T *p, T v) { *p = v; }
template <class T> inline void __stcg(T *p, T v) { *p = v; }
template <class To, class From> inline To emu_bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "");
  To r;
  memcpy(&r, &v, sizeof r);
  return r;
}
static inline unsigned __float_as_uint(float f) { return emu_bits<unsigned>(f); }
static inline int __float_as_int(float f) { return emu_bits<int>(f); }
static inline float __uint_as_float(unsigned u) { return emu_bits<float>(u); }
static inline float __int_as_float(int i) { return emu_bits<float>(i); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
// glibc has these names for itself.
#define __expf expf
#define __logf logf
#define __log2f log2f
#define __sinf sinf
#define __cosf cosf
#define __powf powf
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
// The _rn products and sums are never contracted; the volatile keeps g++ from it.
static inline float __fmul_rn(float a, float b) { volatile float p = a * b; return p; }
static inline float __fadd_rn(float a, float b) { volatile float s = a + b; return s; }
static inline float __fsub_rn(float a, float b) { volatile float s = a - b; return s; }
static inline double __dmul_rn(double a, double b) { volatile double p = a * b; return p; }
static inline double __dadd_rn(double a, double b) { volatile double s = a + b; return s; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x == x ? x : 0; }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
  return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
  unsigned long long v = (unsigned long long)b << 32 | a;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) r |= (unsigned)(v >> (8 * (s >> (4 * i) & 7)) & 0xff) << (8 * i);
  return r;
}
[[noreturn]] static inline void __trap() { emu::fail("__trap()"); }
static inline size_t __cvta_generic_to_shared(const void *p) { return (size_t)p; }

// CUDA has min and max for every pair of number types.
template <class A, class B> inline typename std::common_type<A, B>::type min(A a, B b) {
  typedef typename std::common_type<A, B>::type T;
  if (std::is_floating_point<T>::value) return (T)fmin((double)a, (double)b);
  return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> inline typename std::common_type<A, B>::type max(A a, B b) {
  typedef typename std::common_type<A, B>::type T;
  if (std::is_floating_point<T>::value) return (T)fmax((double)a, (double)b);
  return (T)a < (T)b ? (T)b : (T)a;
}
