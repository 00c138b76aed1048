// Kernels on rows and vectors for AVX2 and FMA; see vec.h.
#include "args.h"

#define W 8
#define NAME(f) f##AVX2
#define OP static inline __attribute__((always_inline))

typedef __m256 vf;
typedef __m256 vm; // lanes all ones or all zeros
typedef struct { __m256d lo, hi; } vd;

OP __m256i lane(void) {
  long seq = 0x0706050403020100;
  __asm__("" : "+r"(seq));
  return _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(seq));
}
OP vm firstm(long n) { return (vm)_mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane()); }
OP vm rangem(long from, long to) { return _mm256_andnot_ps(firstm(from), firstm(to)); }
OP vf load(const float *p) { return _mm256_loadu_ps(p); }
OP vf loadm(const float *p, vm m) { return _mm256_maskload_ps(p, (__m256i)m); }
OP void store(float *p, vf x) { _mm256_storeu_ps(p, x); }
OP void storem(float *p, vf x, vm m) { _mm256_maskstore_ps(p, (__m256i)m, x); }
OP vf loadh(const unsigned short *p) {
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
}
OP void storeh(unsigned short *p, vf f) {
  __m256i x = (__m256i)f, odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(hide(1)));
  __m256i near = _mm256_add_epi32(x, _mm256_add_epi32(odd, _mm256_set1_epi32(hide(0x7fff))));
  __m256i quiet = _mm256_or_si256(x, _mm256_set1_epi32(hide(0x400000)));
  __m256i r = _mm256_srli_epi32((__m256i)_mm256_blendv_ps((vf)near, (vf)quiet, _mm256_cmp_ps(f, f, _CMP_UNORD_Q)), 16);
  r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
  _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(r));
}
OP vf vset(float f) { return _mm256_set1_ps(f); }
OP vf set(float f) { return (vf)_mm256_set1_epi32(bits(f)); }
OP vf vzero(void) { return _mm256_setzero_ps(); }
OP vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
OP vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
OP vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
OP vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
OP vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
OP vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
OP vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); } // b if one is NaN
OP vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
OP vf vround(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// p 2^n in two steps, since 2^n alone may be beyond the range where p 2^n is not.
OP vf power2(__m256i n) {
  return (vf)_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(hide(127))), 23);
}
OP vf vscale2(vf p, vf n) {
  __m256i i = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(i, 1);
  return _mm256_mul_ps(_mm256_mul_ps(p, power2(half)), power2(_mm256_sub_epi32(i, half)));
}
// p 2^n where both p and that are normal.
OP vf vscale(vf p, vf n) {
  return (vf)_mm256_add_epi32((__m256i)p, _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23));
}
OP vm belowm(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
OP vf zerom(vf a, vm m) { return _mm256_andnot_ps(m, a); }
OP vf keepm(vf a, vm m) { return _mm256_and_ps(m, a); }
OP vf selectm(vm m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }
OP float vfirst(vf a) { return _mm256_cvtss_f32(a); }
OP float vreduceadd(vf a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
OP float vreducemax(vf a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
OP vd widen(vf a) {
  return (vd){_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))};
}
OP vd dzero(void) { return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()}; }
OP vd daddf(vd s, vf a) {
  vd x = widen(a);
  return (vd){_mm256_add_pd(s.lo, x.lo), _mm256_add_pd(s.hi, x.hi)};
}
OP vd dfma(vd s, vf a, vf b) {
  vd x = widen(a), y = widen(b);
  return (vd){_mm256_fmadd_pd(x.lo, y.lo, s.lo), _mm256_fmadd_pd(x.hi, y.hi, s.hi)};
}
OP double dreduce(vd s) {
  __m256d x = _mm256_add_pd(s.lo, s.hi);
  __m128d y = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
  return _mm_cvtsd_f64(_mm_add_sd(y, _mm_unpackhi_pd(y, y)));
}

#include "vec.h"
