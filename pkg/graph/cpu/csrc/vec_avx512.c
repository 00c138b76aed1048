// Kernels on rows and vectors for AVX-512 (F, BW, DQ, VL); see vec.h.
#include "args.h"

#define W 16
#define NAME(f) f##AVX512
#define OP static inline __attribute__((always_inline))

typedef __m512 vf;
typedef __mmask16 vm;
typedef struct { __m512d lo, hi; } vd;

OP vm firstm(long n) { return n <= 0 ? 0 : n >= W ? (vm)0xffff : (vm)((1u << n) - 1); }
OP vm rangem(long from, long to) { return firstm(to) & ~firstm(from); }
OP vf load(const float *p) { return _mm512_loadu_ps(p); }
OP vf loadm(const float *p, vm m) { return _mm512_maskz_loadu_ps(m, p); }
OP void store(float *p, vf x) { _mm512_storeu_ps(p, x); }
OP void storem(float *p, vf x, vm m) { _mm512_mask_storeu_ps(p, m, x); }
OP vf loadh(const unsigned short *p) {
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
}
OP void storeh(unsigned short *p, vf f) {
  __m512i x = (__m512i)f, odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(hide(1)));
  __m512i near = _mm512_add_epi32(x, _mm512_add_epi32(odd, _mm512_set1_epi32(hide(0x7fff))));
  __m512i r = _mm512_mask_or_epi32(near, _mm512_cmp_ps_mask(f, f, _CMP_UNORD_Q), x, _mm512_set1_epi32(hide(0x400000)));
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}
OP vf vset(float f) { return _mm512_set1_ps(f); }
OP vf set(float f) { return (vf)_mm512_set1_epi32(bits(f)); }
OP vf vzero(void) { return _mm512_setzero_ps(); }
OP vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
OP vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
OP vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
OP vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
OP vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
OP vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
OP vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); } // b if one is NaN
OP vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
OP vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
OP vf vscale2(vf p, vf n) { return _mm512_scalef_ps(p, n); }
OP vf vscale(vf p, vf n) { return _mm512_scalef_ps(p, n); }
OP vm belowm(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
OP vf zerom(vf a, vm m) { return _mm512_maskz_mov_ps(~m, a); }
OP vf keepm(vf a, vm m) { return _mm512_maskz_mov_ps(m, a); }
OP vf selectm(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
OP float vfirst(vf a) { return _mm512_cvtss_f32(a); }
OP float vreduceadd(vf a) { return _mm512_reduce_add_ps(a); }
OP float vreducemax(vf a) { return _mm512_reduce_max_ps(a); }
OP vd widen(vf a) {
  return (vd){_mm512_cvtps_pd(_mm512_castps512_ps256(a)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1))};
}
OP vd dzero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
OP vd daddf(vd s, vf a) {
  vd x = widen(a);
  return (vd){_mm512_add_pd(s.lo, x.lo), _mm512_add_pd(s.hi, x.hi)};
}
OP vd dfma(vd s, vf a, vf b) {
  vd x = widen(a), y = widen(b);
  return (vd){_mm512_fmadd_pd(x.lo, y.lo, s.lo), _mm512_fmadd_pd(x.hi, y.hi, s.hi)};
}
OP double dreduce(vd s) { return _mm512_reduce_add_pd(_mm512_add_pd(s.lo, s.hi)); }

#include "vec.h"
