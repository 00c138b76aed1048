// fp32 tiles of a matrix product and the packing of its operands, AVX-512
// (F, BW, DQ, VL).
#include "gemm_avx512.h"

#define FMA32(c, x, b) _mm512_fmadd_ps(x, b, c)
DEF_GEMM(gemmF32Rows14AVX512, FMA32, 14)
DEF_GEMM(gemmF32Rows4AVX512, FMA32, 4)
DEF_PEAK(peakF32AVX512, FMA32)

// Round to the nearest bf16 value, ties to even; a NaN stays one.
static inline __attribute__((always_inline)) __m512i keep(__m512i x) { return x; }
static inline __attribute__((always_inline)) __m512i round_bf16(__m512i x) {
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(hide(1)));
  __m512i r = _mm512_add_epi32(x, _mm512_add_epi32(odd, _mm512_set1_epi32(hide(0x7fff))));
  __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
  r = _mm512_mask_or_epi32(r, nan, x, _mm512_set1_epi32(hide(0x400000)));
  return _mm512_and_si512(r, _mm512_set1_epi32(hide(0xffff0000)));
}

// Rows of src are contiguous along k: load 16 x 16, transpose, store.
#define DEF_PACK_ROWS(NAME, ROUND)                                            \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    long ld = p->ld, have = p->have, st = p->stride;                          \
    __mmask16 lm = lanes16(p->lanes);                                         \
    for (long k = p->k; k > 0; k -= 16) {                                     \
      __mmask16 km = lanes16(k);                                              \
      __m512i r[16];                                                          \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++)         \
          r[i] = ROUND(_mm512_maskz_loadu_epi32(i < have ? km : 0, s + i * ld)); \
      transpose16(r);                                                         \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++) {       \
        if (i >= k) return;                                                   \
        _mm512_mask_storeu_epi32(d + i * st, lm, r[i]);                       \
      }                                                                       \
      s += 16;                                                                \
      d += 16 * st;                                                           \
    }                                                                         \
  }
DEF_PACK_ROWS(packRowsAVX512, keep)
DEF_PACK_ROWS(packRowsRoundAVX512, round_bf16)

// Rows of src follow each other along k: copy.
#define DEF_PACK_COLS(NAME, ROUND)                                            \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    long ld = p->ld, st = p->stride;                                          \
    __mmask16 hm = lanes16(p->have), lm = lanes16(p->lanes);                  \
    _Pragma("clang loop unroll_count(4)") for (long k = p->k; k > 0; k--) {   \
      _mm512_mask_storeu_epi32(d, lm, ROUND(_mm512_maskz_loadu_epi32(hm, s))); \
      s += ld;                                                                \
      d += st;                                                                \
    }                                                                         \
  }
DEF_PACK_COLS(packColsAVX512, keep)
DEF_PACK_COLS(packColsRoundAVX512, round_bf16)
