// The product of one row by a matrix whose rows lie along the sum, as in decoding, AVX2
// and FMA. Each weight is read once, where it lies: blocks of 8 x 4 are transposed in
// registers, since sums are taken in the order of the tiles, one element after the other.
#include "avx2.h"

#define OP static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define LOOP _Pragma("clang loop unroll(disable)")
#define LINE 16  // floats in a cache line
#define STRIP 16 // rows of b at a time: two chains of sums

OP __m128 load4(const float *b, int part, __m128i mask) { return part ? _mm_maskload_ps(b, mask) : _mm_loadu_ps(b); }

// Four elements along the sum, or the part of them that mask says, of the rows first to
// first + 7 of b, transposed. In place of rows that b does not have, the last of its cols
// rows is read.
OP void block(__m256 *t, const float *b, long ldb, long first, long cols, int part, __m128i mask, int round, rounding by) {
  const float *low = b + (first + 4 < cols ? first + 4 : cols - 1) * ldb;
  b += (first < cols ? first : cols - 1) * ldb;
  UNROLL for (int i = 0; i < 4; i++) {
    t[i] = _mm256_set_m128(load4(low, part, mask), load4(b, part, mask));
    if (round) t[i] = round_with(t[i], by);
    b += first + i + 1 < cols ? ldb : 0;
    low += first + i + 5 < cols ? ldb : 0;
    // One address after the other: all of them together would not fit into registers.
    __asm__("" : "+r"(b), "+r"(low));
  }
  __m256 x = _mm256_unpacklo_ps(t[0], t[1]), y = _mm256_unpackhi_ps(t[0], t[1]);
  __m256 z = _mm256_unpacklo_ps(t[2], t[3]), w = _mm256_unpackhi_ps(t[2], t[3]);
  t[0] = _mm256_shuffle_ps(x, z, 0x44);
  t[1] = _mm256_shuffle_ps(x, z, 0xee);
  t[2] = _mm256_shuffle_ps(y, w, 0x44);
  t[3] = _mm256_shuffle_ps(y, w, 0xee);
}

// The sums c of eight columns after the first steps of t, at most four.
OP __m256 add(__m256 c, const float *a, long mr, const __m256 *t, long steps) {
  UNROLL for (int j = 0; j < 4; j++) {
    if (j >= steps) return c;
    c = _mm256_fmadd_ps(_mm256_broadcast_ss(a + j * mr), t[j], c);
  }
  return c;
}

OP void finish(__m256 sum, float *c, long have, long acc) {
  __m256i mask = lanes8(have);
  if (acc) sum = _mm256_add_ps(sum, _mm256_maskload_ps(c, mask));
  _mm256_maskstore_ps(c, mask, sum);
}

OP void strip(const gemv_args *g, long cols, int round) {
  const float *a = g->a, *b = g->b;
  long ldb = g->ldb, mr = g->mr, k = g->k;
  __m256 lo = _mm256_setzero_ps(), hi = lo, t[4];
  __m128i mask = _mm256_castsi256_si128(lanes8(k & 3));
  rounding by = new_rounding();
  // Whole cache lines of eight rows, then of the others: where rows lie a power of two
  // apart, the cache has place for no more of them. The processor fetches ahead by itself,
  // better than prefetches did.
  for (; k >= LINE; k -= LINE) {
    LOOP for (int i = 0; i < LINE; i += 4) {
      block(t, b + i, ldb, 0, cols, 0, mask, round, by);
      lo = add(lo, a + i * mr, mr, t, 4);
    }
    LOOP for (int i = 0; i < LINE; i += 4) {
      block(t, b + i, ldb, 8, cols, 0, mask, round, by);
      hi = add(hi, a + i * mr, mr, t, 4);
    }
    a += LINE * mr;
    b += LINE;
  }
  for (; k >= 4; k -= 4) {
    block(t, b, ldb, 0, cols, 0, mask, round, by);
    lo = add(lo, a, mr, t, 4);
    block(t, b, ldb, 8, cols, 0, mask, round, by);
    hi = add(hi, a, mr, t, 4);
    a += 4 * mr;
    b += 4;
  }
  if (k > 0) {
    block(t, b, ldb, 0, cols, 1, mask, round, by);
    lo = add(lo, a, mr, t, k);
    block(t, b, ldb, 8, cols, 1, mask, round, by);
    hi = add(hi, a, mr, t, k);
  }
  finish(lo, g->c, cols, g->acc);
  if (cols > 8) finish(hi, g->c + 8, cols - 8, g->acc);
}

#define DEF_GEMV(NAME, ROUND)                                                 \
  void NAME(const gemv_args *g) {                                             \
    if (g->cols >= STRIP)                                                     \
      strip(g, STRIP, ROUND);                                                 \
    else                                                                      \
      strip(g, g->cols, ROUND);                                               \
  }
DEF_GEMV(gemvAVX2, 0)
DEF_GEMV(gemvRoundAVX2, 1)
