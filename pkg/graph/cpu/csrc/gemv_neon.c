// The product of one row by a matrix whose rows lie along the sum, as in decoding, NEON.
// Each weight is read once, where it lies: blocks of 4 x 4 are transposed in registers,
// since sums are taken in the order of the tiles, one element after the other.
#include "neon.h"

#define UNROLL _Pragma("clang loop unroll(full)")
#define LOOP _Pragma("clang loop unroll(disable)")
#define LINE 16  // floats in a cache line
#define STRIP 16 // rows of b at a time

// The sums of 4 columns after n more elements, at most 4, from the rows of b, of which
// left exist. In place of those beyond them the last one is read. Returns the row after.
INLINE const float *step(float32x4_t *sum, const float *a, long mr, const float *b, long ldb, long left, long n, int round) {
  float32x4_t t[4];
  UNROLL for (int i = 0; i < 4; i++) {
    t[i] = load_first(b, n);
    if (round) t[i] = round_bf16(t[i]);
    b += i + 1 < left ? ldb : 0;
    ONE(b);
  }
  transpose4(t);
  UNROLL for (int j = 0; j < 4; j++) {
    if (j >= n) break;
    *sum = vfmaq_f32(*sum, t[j], vld1q_dup_f32(a));
    a += mr;
  }
  return b;
}

INLINE void finish(float *c, float32x4_t sum, long have, long acc) {
  if (acc) sum = vaddq_f32(sum, load_first(c, have));
  store_first(c, sum, have);
}

INLINE void whole(const gemv_args *g, int round) {
  const float *a = g->a, *b = g->b, *b8 = b + 8 * g->ldb;
  long ldb = g->ldb, mr = g->mr, k = g->k;
  float32x4_t s[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
  // Whole cache lines of eight rows, then of the others: where rows lie a power of two
  // apart, the cache has place for no more of them.
  for (; k >= LINE; k -= LINE) {
    LOOP for (int i = 0; i < LINE; i += 4) {
      const float *x = step(s, a + i * mr, mr, b + i, ldb, STRIP, 4, round);
      step(s + 1, a + i * mr, mr, x, ldb, STRIP, 4, round);
    }
    LOOP for (int i = 0; i < LINE; i += 4) {
      const float *x = step(s + 2, a + i * mr, mr, b8 + i, ldb, STRIP, 4, round);
      step(s + 3, a + i * mr, mr, x, ldb, STRIP, 4, round);
    }
    a += LINE * mr;
    b += LINE;
    b8 += LINE;
  }
  LOOP for (; k > 0; k -= 4) {
    const float *x = b;
    UNROLL for (int h = 0; h < 4; h++) x = step(s + h, a, mr, x, ldb, STRIP, k, round);
    a += 4 * mr;
    b += 4;
  }
  UNROLL for (int h = 0; h < 4; h++) finish(g->c + 4 * h, s[h], 4, g->acc);
}

INLINE void part(const gemv_args *g, int round) {
  const float *first = g->b;
  float *c = g->c;
  LOOP for (long left = g->cols; left > 0; left -= 4) {
    const float *a = g->a, *b = first;
    float32x4_t sum = vdupq_n_f32(0);
    LOOP for (long k = g->k; k > 0; k -= 4) {
      step(&sum, a, g->mr, b, g->ldb, left, k, round);
      a += 4 * g->mr;
      b += 4;
    }
    finish(c, sum, left, g->acc);
    first += 4 * g->ldb;
    c += 4;
  }
}

#define DEF_GEMV(NAME, ROUND)     \
  void NAME(const gemv_args *g) { \
    if (g->cols >= STRIP)         \
      whole(g, ROUND);            \
    else                          \
      part(g, ROUND);             \
  }
DEF_GEMV(gemvNEON, 0)
DEF_GEMV(gemvRoundNEON, 1)
