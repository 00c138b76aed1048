// Arguments of the kernels. Each struct has a Go struct of the same layout in
// kernels.go: every field takes 8 bytes, and a kernel gets a pointer to one.
#pragma once
#include <immintrin.h>

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

// Packing of up to 16 (AVX-512) or 8 (AVX2) rows or columns of an operand to
// dst[k][stride].
typedef struct {
  const float *src;
  float *dst;
  long ld;     // floats between rows of src
  long have;   // lanes that exist in src; the others are filled with zero
  long lanes;  // lanes written
  long k;      // floats along the sum
  long stride; // 32-bit words between rows of dst
} pack_args;

// Constants must not come from memory: the code has no data section. Hiding
// the value from the compiler makes it broadcast from a register.
static inline __attribute__((always_inline)) int hide(int bits) {
  __asm__("" : "+r"(bits));
  return bits;
}
