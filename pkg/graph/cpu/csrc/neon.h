// What the NEON kernels of matrix products have in common.
#pragma once
#include "args.h"

#define INLINE static inline __attribute__((always_inline))

// Hides a value from the compiler, which would otherwise make several of it, more
// than there are registers besides those that are Go's: a loop for each value of a
// flag, a pointer for each p + i.
#define ONE(x) __asm__ volatile("" : "+r"(x))

// The first n of 4 floats, zeros after them; what follows them is not read.
INLINE float32x4_t load_first(const float *p, long n) {
  if (!__builtin_constant_p(n)) ONE(n);
  if (n >= 4) return vld1q_f32(p);
  float32x4_t x = vdupq_n_f32(0);
  if (n > 0) x = vld1q_lane_f32(p, x, 0);
  if (n > 1) x = vld1q_lane_f32(p + 1, x, 1);
  if (n > 2) x = vld1q_lane_f32(p + 2, x, 2);
  return x;
}

INLINE void store_first(float *p, float32x4_t x, long n) {
  if (n >= 4) {
    vst1q_f32(p, x);
    return;
  }
  if (n > 0) vst1q_lane_f32(p, x, 0);
  if (n > 1) vst1q_lane_f32(p + 1, x, 1);
  if (n > 2) vst1q_lane_f32(p + 2, x, 2);
}

// Round to the nearest bf16 value, ties to even; a NaN stays one.
INLINE float32x4_t keep(float32x4_t x) { return x; }
INLINE float32x4_t round_bf16(float32x4_t f) {
  uint32x4_t x = vreinterpretq_u32_f32(f);
  uint32x4_t odd = vandq_u32(vshrq_n_u32(x, 16), vdupq_n_u32(hide(1)));
  uint32x4_t r = vaddq_u32(x, vaddq_u32(odd, vdupq_n_u32(hide(0x7fff))));
  uint32x4_t quiet = vorrq_u32(x, vdupq_n_u32(hide(0x400000)));
  r = vbslq_u32(vceqq_f32(f, f), r, quiet);
  return vreinterpretq_f32_u32(vandq_u32(r, vdupq_n_u32(hide(0xffff0000))));
}

INLINE void transpose4(float32x4_t *r) {
  float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
  float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
  float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
  float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
  r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
  r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
  r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
  r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}
