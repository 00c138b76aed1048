// What the fp32 and the bf16 kernels of AVX-512 have in common.
#pragma once
#include "args.h"

#define MR 14
#define NR 32

// The first n of 16 lanes.
static inline __attribute__((always_inline)) __mmask16 lanes16(long n) {
  if (n <= 0) return 0;
  return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

// A tile of up to ROWS x 32. Each element is one chain of STEPs along k, so its
// value does not depend on the rows around it, and the tile kernel for few rows
// gives the same bits as the full one. 14 x 2 accumulators, two vectors of b and
// one broadcast of a fill the 32 registers but one.
#define DEF_GEMM(NAME, STEP, ROWS)                                            \
  void NAME(const gemm_args *g) {                                             \
    const float *a = g->a, *b = g->b;                                         \
    float *c = g->c;                                                          \
    long ldc = g->ldc, k = g->k, m = g->m;                                    \
    __m512 c0[ROWS], c1[ROWS];                                                \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {       \
      c0[i] = _mm512_setzero_ps();                                            \
      c1[i] = _mm512_setzero_ps();                                            \
      __builtin_prefetch(c + i * ldc, 1);                                     \
      __builtin_prefetch(c + i * ldc + 16, 1);                                \
    }                                                                         \
    for (; k > 0; k--) {                                                      \
      __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16);           \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {     \
        __m512 x = _mm512_set1_ps(a[i]);                                      \
        c0[i] = STEP(c0[i], x, b0);                                           \
        c1[i] = STEP(c1[i], x, b1);                                           \
      }                                                                       \
      a += MR;                                                                \
      b += NR;                                                                \
    }                                                                         \
    __mmask16 m0 = lanes16(g->cols), m1 = lanes16(g->cols - 16);              \
    if (g->acc) {                                                             \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {     \
        if (i >= m) return;                                                   \
        float *r = c + i * ldc;                                               \
        _mm512_mask_storeu_ps(                                                \
            r, m0, _mm512_add_ps(c0[i], _mm512_maskz_loadu_ps(m0, r)));       \
        _mm512_mask_storeu_ps(                                                \
            r + 16, m1,                                                       \
            _mm512_add_ps(c1[i], _mm512_maskz_loadu_ps(m1, r + 16)));         \
      }                                                                       \
    } else {                                                                  \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {     \
        if (i >= m) return;                                                   \
        float *r = c + i * ldc;                                               \
        _mm512_mask_storeu_ps(r, m0, c0[i]);                                  \
        _mm512_mask_storeu_ps(r + 16, m1, c1[i]);                             \
      }                                                                       \
    }                                                                         \
  }

// 16 independent chains of k STEPs in registers: what the processor can do at most.
// Operands come from a and the sums go to c, so that nothing is left out.
#define DEF_PEAK(NAME, STEP)                                                  \
  void NAME(const gemm_args *g) {                                             \
    __m512 c[16], x = _mm512_loadu_ps(g->a), b = _mm512_loadu_ps(g->a);       \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++) c[i] = x; \
    for (long k = g->k; k > 0; k--) {                                         \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++) {       \
        c[i] = STEP(c[i], x, b);                                              \
        __asm__("" : "+v"(c[i]));                                             \
      }                                                                       \
    }                                                                         \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++) x = _mm512_add_ps(x, c[i]); \
    _mm512_storeu_ps(g->c, x);                                                \
  }

// Transposes 16 x 16 words in registers.
static inline __attribute__((always_inline)) void transpose16(__m512i *r) {
  __m512i t[16];
#pragma clang loop unroll(full)
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

#ifdef __AVX512BF16__
// Two rows of up to 16 floats, rounded to bf16 and interleaved to pairs.
static inline __attribute__((always_inline)) __m512i pair_rows(const float *s, long ld, __mmask16 m0, __mmask16 m1) {
  __m512i lo = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m0, s)));
  __m512i hi = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m1, s + ld)));
  hi = _mm512_slli_epi32(hi, 16);
  __asm__("" : "+v"(hi)); // else clang interleaves by a table in memory
  return _mm512_or_si512(lo, hi);
}
#endif
