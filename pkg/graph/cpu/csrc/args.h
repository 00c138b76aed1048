// Arguments of the kernels. Each struct has a Go struct of the same layout in
// kernels.go, and a kernel gets a pointer to one.
#pragma once
#ifdef __aarch64__
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif

// One tile of C (+)= A B from packed panels. a is [k][mr], b is [k][nr]; in the
// bf16 kernels an element of both is a pair of bf16 values that follow each
// other along k. c has m rows that are ldc floats apart.
typedef struct {
  const float *a, *b;
  float *c;
  long ldc, k, m;
  long cols; // columns present
  long acc; // 0: overwrite c, else add to it
} gemm_args;

// Blocks of C (+)= A B from panels that begin a_stride and b_stride words apart.
typedef struct {
  const float *a, *b;
  float *c;
  long ldc, k, m, cols, acc; // as in gemm_args, but m rows and cols columns in all
  long a_stride, b_stride;
  float *edge;        // 32 x 32 floats
  const void *config; // of the tile registers
} tiles_args;

// c (+)= a B^T for one row: a is packed, [k][mr], and its first column is wanted; b has up to
// 16 rows, cols, that are ldb floats apart and lie along the sum.
typedef struct {
  const float *a, *b;
  float *c;
  long k, cols, acc; // as in gemm_args
  long mr, ldb;
} gemv_args;

// Packing of rows or columns of an operand: AVX-512 takes up to 16 to dst[k][stride],
// AVX2 and NEON any number to panels that begin stride floats apart.
typedef struct {
  const float *src;
  float *dst;
  long ld;     // floats between rows of src
  long have;   // lanes that exist in src; the others are filled with zero
  long lanes;  // lanes written, of each panel
  long k;      // floats along the sum
  long stride; // 32-bit words between rows of dst, or between panels
} pack_args;

// Vectors of n elements; what each field is stands at the kernel.
typedef struct {
  float *a, *b, *c, *d, *e;
  long n;
  float s[8];
  double sum;
} vec_args;

// A tile of attention scores, rows queries x cols keys, in rows of ld floats
// (a multiple of 16, so that whole vectors may be read and written). Row r may
// attend to the keys range[2r] <= j < range[2r+1] of the tile.
typedef struct {
  float *s;          // in: q.k; out: weights
  float *dp;         // backward: in: dout.v; out: gradient of q.k
  const int *range;
  float *max, *sum;  // forward: running maximum and sum of each row
  float *out;        // forward: the row's running output, width floats
  const float *lse;  // backward: logsumexp of each row
  const float *delta; // backward: dout.out of each row
  long rows, cols, ld;
  long width;        // of out, a multiple of 16
  float scale, unused;
} tile_args;

// Constants must not come from memory: the code has no data section. Hiding
// the value from the compiler makes it broadcast from a register.
static inline __attribute__((always_inline)) int hide(int bits) {
  __asm__("" : "+r"(bits));
  return bits;
}

static inline __attribute__((always_inline)) int bits(float f) {
  union { float f; int i; } u = {f};
  return hide(u.i);
}
