// What the AVX2 kernels of matrix products have in common.
#pragma once
#include "args.h"

// The first n of 8 lanes.
static inline __attribute__((always_inline)) __m256i lanes8(long n) {
  long seq = 0x0706050403020100;
  __asm__("" : "+r"(seq));
  __m256i i = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(seq));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(hide(n > 8 ? 8 : (int)n)), i);
}

// The constants of rounding: made once, kept in registers.
typedef struct { __m256i one, half, quiet; } rounding;
static inline __attribute__((always_inline)) rounding new_rounding(void) {
  return (rounding){_mm256_set1_epi32(hide(1)), _mm256_set1_epi32(hide(0x7fff)), _mm256_set1_epi32(hide(0x400000))};
}

// Round to the nearest bf16 value, ties to even; a NaN stays one.
static inline __attribute__((always_inline)) __m256 round_with(__m256 f, rounding c) {
  __m256i x = (__m256i)f;
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), c.one);
  __m256i near = _mm256_add_epi32(x, _mm256_add_epi32(odd, c.half));
  __m256i quiet = _mm256_or_si256(x, c.quiet);
  __m256i r = (__m256i)_mm256_blendv_ps((__m256)near, (__m256)quiet, _mm256_cmp_ps(f, f, _CMP_UNORD_Q));
  return (__m256)_mm256_slli_epi32(_mm256_srli_epi32(r, 16), 16);
}
static inline __attribute__((always_inline)) __m256 round_bf16(__m256 f) { return round_with(f, new_rounding()); }
static inline __attribute__((always_inline)) __m256 keep(__m256 x) { return x; }

static inline __attribute__((always_inline)) void transpose8(__m256 *r) {
  __m256 t[8];
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 2; i++) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
    t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 8; i++) r[i] = t[i];
}
