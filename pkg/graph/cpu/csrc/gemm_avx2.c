// fp32 tiles of a matrix product and the packing of its operands, AVX2 and FMA.
#include "args.h"

#define MR 6
#define NR 16

// The first n of 8 lanes.
static inline __attribute__((always_inline)) __m256i lanes8(long n) {
  long seq = 0x0706050403020100;
  __asm__("" : "+r"(seq));
  __m256i i = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(seq));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : (int)n), i);
}

// A tile of up to ROWS x 16; see gemm_avx512.h.
#define DEF_GEMM(NAME, ROWS)                                                  \
  void NAME(const gemm_args *g) {                                             \
    const float *a = g->a, *b = g->b;                                         \
    float *c = g->c;                                                          \
    long ldc = g->ldc, k = g->k, m = g->m;                                    \
    __m256 c0[ROWS], c1[ROWS];                                                \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {       \
      c0[i] = _mm256_setzero_ps();                                            \
      c1[i] = _mm256_setzero_ps();                                            \
      __builtin_prefetch(c + i * ldc, 1);                                     \
    }                                                                         \
    for (; k > 0; k--) {                                                      \
      __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);            \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {     \
        __m256 x = _mm256_broadcast_ss(a + i);                                \
        c0[i] = _mm256_fmadd_ps(x, b0, c0[i]);                                \
        c1[i] = _mm256_fmadd_ps(x, b1, c1[i]);                                \
      }                                                                       \
      a += MR;                                                                \
      b += NR;                                                                \
    }                                                                         \
    __m256i m0 = lanes8(g->cols), m1 = lanes8(g->cols - 8);                   \
    if (g->acc) {                                                             \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {     \
        if (i >= m) return;                                                   \
        float *r = c + i * ldc;                                               \
        _mm256_maskstore_ps(                                                  \
            r, m0, _mm256_add_ps(c0[i], _mm256_maskload_ps(r, m0)));          \
        _mm256_maskstore_ps(                                                  \
            r + 8, m1, _mm256_add_ps(c1[i], _mm256_maskload_ps(r + 8, m1)));  \
      }                                                                       \
    } else {                                                                  \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {     \
        if (i >= m) return;                                                   \
        float *r = c + i * ldc;                                               \
        _mm256_maskstore_ps(r, m0, c0[i]);                                    \
        _mm256_maskstore_ps(r + 8, m1, c1[i]);                                \
      }                                                                       \
    }                                                                         \
  }
DEF_GEMM(gemmF32Rows6AVX2, 6)
DEF_GEMM(gemmF32Rows2AVX2, 2)

// Round to the nearest bf16 value, ties to even; a NaN stays one.
static inline __attribute__((always_inline)) __m256 keep(__m256 x) { return x; }
static inline __attribute__((always_inline)) __m256 round_bf16(__m256 f) {
  __m256i x = (__m256i)f;
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(hide(1)));
  __m256i r = _mm256_add_epi32(x, _mm256_add_epi32(odd, _mm256_set1_epi32(hide(0x7fff))));
  __m256i abs = _mm256_and_si256(x, _mm256_set1_epi32(hide(0x7fffffff)));
  __m256i nan = _mm256_cmpgt_epi32(abs, _mm256_set1_epi32(hide(0x7f800000)));
  __m256i quiet = _mm256_or_si256(x, _mm256_set1_epi32(hide(0x400000)));
  r = _mm256_blendv_epi8(r, quiet, nan);
  return (__m256)_mm256_and_si256(r, _mm256_set1_epi32(hide(0xffff0000)));
}

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

// Rows of src are contiguous along k: load 8 x 8, transpose, store.
#define DEF_PACK_ROWS(NAME, ROUND)                                            \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    long ld = p->ld, have = p->have, st = p->stride;                          \
    __m256i lm = lanes8(p->lanes);                                            \
    for (long k = p->k; k > 0; k -= 8) {                                      \
      __m256i km = lanes8(k);                                                 \
      __m256 r[8];                                                            \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 8; i++)          \
          r[i] = i < have ? ROUND(_mm256_maskload_ps(s + i * ld, km))         \
                          : _mm256_setzero_ps();                              \
      transpose8(r);                                                          \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 8; i++) {        \
        if (i >= k) return;                                                   \
        _mm256_maskstore_ps(d + i * st, lm, r[i]);                            \
      }                                                                       \
      s += 8;                                                                 \
      d += 8 * st;                                                            \
    }                                                                         \
  }
DEF_PACK_ROWS(packRowsAVX2, keep)
DEF_PACK_ROWS(packRowsRoundAVX2, round_bf16)

// Rows of src follow each other along k: copy.
#define DEF_PACK_COLS(NAME, ROUND)                                            \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    long ld = p->ld, st = p->stride;                                          \
    __m256i hm = lanes8(p->have), lm = lanes8(p->lanes);                      \
    _Pragma("clang loop unroll_count(4)") for (long k = p->k; k > 0; k--) {   \
      _mm256_maskstore_ps(d, lm, ROUND(_mm256_maskload_ps(s, hm)));           \
      s += ld;                                                                \
      d += st;                                                                \
    }                                                                         \
  }
DEF_PACK_COLS(packColsAVX2, keep)
DEF_PACK_COLS(packColsRoundAVX2, round_bf16)

// 12 independent chains of k multiply-adds in registers: what the processor can do
// at most. Operands come from a and the sums go to c, so that nothing is left out.
void peakF32AVX2(const gemm_args *g) {
  __m256 c[12], x = _mm256_loadu_ps(g->a);
#pragma clang loop unroll(full)
  for (int i = 0; i < 12; i++) c[i] = x;
  for (long k = g->k; k > 0; k--) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 12; i++) {
      c[i] = _mm256_fmadd_ps(x, x, c[i]);
      __asm__("" : "+x"(c[i]));
    }
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 12; i++) x = _mm256_add_ps(x, c[i]);
  _mm256_storeu_ps(g->c, x);
}
