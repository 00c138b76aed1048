// bf16 tiles with fp32 accumulation (VDPBF16PS) and the packing of fp32 operands
// to bf16 pairs. In a file of its own, so that the compiler uses no instruction
// of AVX512_BF16 in the kernels that processors without it run.
#include "gemm_avx512.h"

#define DPBF16(c, x, b) _mm512_dpbf16_ps(c, (__m512bh)(x), (__m512bh)(b))
DEF_GEMM(gemmBF16Rows14AVX512, DPBF16, 14)
DEF_GEMM(gemmBF16Rows4AVX512, DPBF16, 4)
DEF_PEAK(peakBF16AVX512, DPBF16)

// Rows of src are contiguous along k: 16 x 32 floats become 16 x 16 pairs, which
// are transposed as words. An odd k ends in a pair whose second half is zero.
void packRowsBF16AVX512(const pack_args *p) {
  const float *s = p->src;
  float *d = p->dst;
  long ld = p->ld, have = p->have, st = p->stride;
  __mmask16 lm = lanes16(p->lanes);
  for (long k = p->k; k > 0; k -= 32) {
    __mmask16 k0 = lanes16(k), k1 = k > 16 ? lanes16(k - 16) : 0;
    __m512i r[16];
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; i++) {
      __m512 lo = _mm512_maskz_loadu_ps(i < have ? k0 : 0, s + i * ld);
      __m512 hi = _mm512_maskz_loadu_ps(i < have ? k1 : 0, s + i * ld + 16);
      r[i] = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
    }
    transpose16(r);
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; i++) {
      if (2 * i >= k) return;
      _mm512_mask_storeu_epi32(d + i * st, lm, r[i]);
    }
    s += 32;
    d += 16 * st;
  }
}

// Rows of src follow each other along k: two of them make a row of pairs.
void packColsBF16AVX512(const pack_args *p) {
  const float *s = p->src;
  float *d = p->dst;
  long ld = p->ld, st = p->stride;
  __mmask16 hm = lanes16(p->have), lm = lanes16(p->lanes);
  for (long k = p->k; k > 0; k -= 2) {
    _mm512_mask_storeu_epi32(d, lm, pair_rows(s, ld, hm, k > 1 ? hm : 0));
    s += 2 * ld;
    d += st;
  }
}
