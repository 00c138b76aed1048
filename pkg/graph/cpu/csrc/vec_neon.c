// Kernels on rows and vectors for NEON; see vec.h.
#include "args.h"

#define W 4
#define NAME(f) f##NEON
#define OP static inline __attribute__((always_inline))

typedef float32x4_t vf;
typedef uint32x4_t vm; // lanes all ones or all zeros
typedef struct { float64x2_t lo, hi; } vd;

OP int32x4_t lane(void) {
  long seq = 0x0003000200010000;
  __asm__("" : "+r"(seq));
  return vmovl_s16(vcreate_s16(seq));
}
OP vm firstm(long n) { return vcgtq_s32(vdupq_n_s32((int)n), lane()); }
OP vm rangem(long from, long to) { return vbicq_u32(firstm(to), firstm(from)); }
OP vf load(const float *p) { return vld1q_f32(p); }
OP vf loadm(const float *p, vm m) {
  vf x = vdupq_n_f32(0);
  if (vgetq_lane_u32(m, 0)) x = vld1q_lane_f32(p, x, 0);
  if (vgetq_lane_u32(m, 1)) x = vld1q_lane_f32(p + 1, x, 1);
  if (vgetq_lane_u32(m, 2)) x = vld1q_lane_f32(p + 2, x, 2);
  if (vgetq_lane_u32(m, 3)) x = vld1q_lane_f32(p + 3, x, 3);
  return x;
}
OP void store(float *p, vf x) { vst1q_f32(p, x); }
OP void storem(float *p, vf x, vm m) {
  if (vgetq_lane_u32(m, 0)) vst1q_lane_f32(p, x, 0);
  if (vgetq_lane_u32(m, 1)) vst1q_lane_f32(p + 1, x, 1);
  if (vgetq_lane_u32(m, 2)) vst1q_lane_f32(p + 2, x, 2);
  if (vgetq_lane_u32(m, 3)) vst1q_lane_f32(p + 3, x, 3);
}
OP vf loadh(const unsigned short *p) { return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16)); }
OP void storeh(unsigned short *p, vf f) {
  uint32x4_t x = vreinterpretq_u32_f32(f), odd = vandq_u32(vshrq_n_u32(x, 16), vdupq_n_u32(hide(1)));
  uint32x4_t near = vaddq_u32(x, vaddq_u32(odd, vdupq_n_u32(hide(0x7fff))));
  uint32x4_t quiet = vorrq_u32(x, vdupq_n_u32(hide(0x400000)));
  vst1_u16(p, vshrn_n_u32(vbslq_u32(vceqq_f32(f, f), near, quiet), 16));
}
OP vf vset(float f) { return vdupq_n_f32(f); }
OP vf set(float f) { return vreinterpretq_f32_s32(vdupq_n_s32(bits(f))); }
OP vf vzero(void) { return vdupq_n_f32(0); }
OP vf vadd(vf a, vf b) { return vaddq_f32(a, b); }
OP vf vsub(vf a, vf b) { return vsubq_f32(a, b); }
OP vf vmul(vf a, vf b) { return vmulq_f32(a, b); }
OP vf vdiv(vf a, vf b) { return vdivq_f32(a, b); }
OP vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
OP vf vsqrt(vf a) { return vsqrtq_f32(a); }
OP vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); } // b if one is NaN
OP vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
OP vf vround(vf a) { return vrndnq_f32(a); }
// p 2^n in two steps, since 2^n alone may be beyond the range where p 2^n is not.
OP vf power2(int32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(hide(127))), 23));
}
OP vf vscale2(vf p, vf n) {
  int32x4_t i = vcvtq_s32_f32(n), half = vshrq_n_s32(i, 1); // n is whole
  return vmulq_f32(vmulq_f32(p, power2(half)), power2(vsubq_s32(i, half)));
}
// p 2^n where both p and that are normal.
OP vf vscale(vf p, vf n) {
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vcvtq_s32_f32(n), 23)));
}
OP vm belowm(vf a, vf b) { return vcltq_f32(a, b); }
OP vf zerom(vf a, vm m) { return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), m)); }
OP vf keepm(vf a, vm m) { return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), m)); }
OP vf selectm(vm m, vf yes, vf no) { return vbslq_f32(m, yes, no); }
OP float vfirst(vf a) { return vgetq_lane_f32(a, 0); }
OP float vreduceadd(vf a) { return vaddvq_f32(a); }
OP float vreducemax(vf a) { return vmaxvq_f32(a); }
OP vd widen(vf a) { return (vd){vcvt_f64_f32(vget_low_f32(a)), vcvt_high_f64_f32(a)}; }
OP vd dzero(void) { return (vd){vdupq_n_f64(0), vdupq_n_f64(0)}; }
OP vd daddf(vd s, vf a) {
  vd x = widen(a);
  return (vd){vaddq_f64(s.lo, x.lo), vaddq_f64(s.hi, x.hi)};
}
OP vd dfma(vd s, vf a, vf b) {
  vd x = widen(a), y = widen(b);
  return (vd){vfmaq_f64(s.lo, x.lo, y.lo), vfmaq_f64(s.hi, x.hi, y.hi)};
}
OP double dreduce(vd s) { return vaddvq_f64(vaddq_f64(s.lo, s.hi)); }

#include "vec.h"
