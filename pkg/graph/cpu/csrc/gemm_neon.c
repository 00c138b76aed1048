// fp32 tiles of a matrix product and the packing of its operands, NEON.
#include "neon.h"

#define MR 12
#define NR 8

// One row of a tile, by the lane of x that holds its element of A.
#define ROW(I, LANE)                                \
  c0[I] = vfmaq_laneq_f32(c0[I], b0, x, LANE);      \
  c1[I] = vfmaq_laneq_f32(c1[I], b1, x, LANE)

// One step along k of a tile of rows x 8. 12 rows take 24 of the 32 registers for
// the sums, and 5 loads for 24 multiply-adds.
#define STEP(ROWS, S)                                                    \
  do {                                                                   \
    float32x4_t b0 = vld1q_f32(b + (S) * NR);                            \
    float32x4_t b1 = vld1q_f32(b + (S) * NR + 4);                        \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i += 4) { \
      float32x4_t x = vld1q_f32(a + (S) * MR + i);                       \
      ROW(i, 0);                                                         \
      ROW(i + 1, 1);                                                     \
      ROW(i + 2, 2);                                                     \
      ROW(i + 3, 3);                                                     \
    }                                                                    \
  } while (0)

// The sums of ROWS x 8 from one panel of A and one of B.
#define SUMS(ROWS)                                                       \
  float32x4_t c0[ROWS], c1[ROWS];                                        \
  _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++)      \
      c0[i] = c1[i] = vdupq_n_f32(0);                                    \
  for (; k >= 2; k -= 2) {                                               \
    STEP(ROWS, 0);                                                       \
    STEP(ROWS, 1);                                                       \
    a += 2 * MR;                                                         \
    b += 2 * NR;                                                         \
  }                                                                      \
  if (k > 0) STEP(ROWS, 0)

// A whole tile.
INLINE void tile(const float *a, const float *b, float *c, long ldc, long k, long acc) {
  SUMS(MR);
#pragma clang loop unroll(full)
  for (int i = 0; i < MR; i++) {
    if (acc) {
      c0[i] = vaddq_f32(c0[i], vld1q_f32(c));
      c1[i] = vaddq_f32(c1[i], vld1q_f32(c + 4));
    }
    vst1q_f32(c, c0[i]);
    vst1q_f32(c + 4, c1[i]);
    c += ldc;
  }
}

// The first rows of a tile, to memory of their own.
#define DEF_PART(NAME, ROWS)                                                 \
  INLINE void NAME(const float *a, const float *b, float *to, long k) {      \
    SUMS(ROWS);                                                              \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {      \
      vst1q_f32(to + i * NR, c0[i]);                                         \
      vst1q_f32(to + i * NR + 4, c1[i]);                                     \
    }                                                                        \
  }
DEF_PART(part12, 12)
DEF_PART(part8, 8)
DEF_PART(part4, 4)

// m rows, that is panels of A that begin a_stride floats apart, by one panel of B,
// which stays in the L1 cache. Of tiles at the edge of C only the part that exists is
// written.
void gemmF32NEON(const tiles_args *g) {
  const float *a = g->a;
  float *c = g->c;
  long m = g->m;
  for (; m >= MR && g->cols == NR; m -= MR) {
    tile(a, g->b, c, g->ldc, g->k, g->acc);
    a += g->a_stride;
    c += MR * g->ldc;
  }
  for (; m > 0; m -= MR) {
    float edge[MR * NR];
    if (m > 8) part12(a, g->b, edge, g->k);
    else if (m > 4) part8(a, g->b, edge, g->k);
    else part4(a, g->b, edge, g->k);
#pragma clang loop unroll(disable)
    for (long i = 0; i < m && i < MR; i++) {
#pragma clang loop unroll(disable)
      for (long j = 0; j < g->cols; j += 4) {
        float32x4_t x = vld1q_f32(edge + i * NR + j);
        if (g->acc) x = vaddq_f32(x, load_first(c + j, g->cols - j));
        store_first(c + j, x, g->cols - j);
      }
      c += g->ldc;
    }
    a += g->a_stride;
  }
}

// Packing, of all panels in one call: have rows or columns of src in panels of
// lanes = MR or NR, which begin stride floats apart.

// Rows of src are contiguous along k: load 4 x 4, transpose, store. have rows of the
// 4 exist.
#define DEF_PACK_ROWS(NAME, ROUND)                                            \
  INLINE void NAME##4(const float *s, float *d, long ld, long have, long k,   \
                      long st) {                                              \
    float32x4_t r[4];                                                         \
    for (; k >= 4; k -= 4) {                                                  \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 4; i++)          \
          r[i] = i < have ? ROUND(vld1q_f32(s + i * ld)) : vdupq_n_f32(0);    \
      transpose4(r);                                                          \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 4; i++)          \
          vst1q_f32(d + i * st, r[i]);                                        \
      s += 4;                                                                 \
      d += 4 * st;                                                            \
    }                                                                         \
    if (k <= 0) return;                                                       \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < 4; i++)            \
        r[i] = i < have ? ROUND(load_first(s + i * ld, k)) : vdupq_n_f32(0);  \
    transpose4(r);                                                            \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < 3; i++)            \
        if (i < k) vst1q_f32(d + i * st, r[i]);                               \
  }                                                                           \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    for (long have = p->have; have > 0; have -= p->lanes) {                   \
      _Pragma("clang loop unroll(disable)") for (long h = 0; h < p->lanes; h += 4) { \
        if (have - h >= 4)                                                    \
          NAME##4(s + h * p->ld, d + h, p->ld, 4, p->k, p->lanes);            \
        else                                                                  \
          NAME##4(s + h * p->ld, d + h, p->ld, have - h, p->k, p->lanes);     \
      }                                                                       \
      s += p->lanes * p->ld;                                                  \
      d += p->stride;                                                         \
    }                                                                         \
  }
DEF_PACK_ROWS(packRowsNEON, keep)
DEF_PACK_ROWS(packRowsRoundNEON, round_bf16)

// Rows of src follow each other along k: copy a few of them to all panels, then the
// next ones, so that src is read in the order of memory.
#define FEW 8
#define DEF_PACK_COLS(NAME, ROUND)                                            \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    long ld = p->ld, lanes = p->lanes;                                        \
    for (long k = p->k; k > 0; k -= FEW) {                                    \
      const float *from = s;                                                  \
      float *to = d;                                                          \
      long few = k < FEW ? k : FEW;                                           \
      for (long have = p->have; have > 0; have -= lanes) {                    \
        const float *x = from;                                                \
        float *y = to;                                                        \
        ONE(x);                                                               \
        _Pragma("clang loop unroll(disable)") for (long i = few; i > 0; i--) { \
          if (have >= lanes) {                                                \
            vst1q_f32(y, ROUND(vld1q_f32(x)));                                \
            vst1q_f32(y + 4, ROUND(vld1q_f32(x + 4)));                        \
            if (lanes == MR) vst1q_f32(y + 8, ROUND(vld1q_f32(x + 8)));       \
          } else {                                                            \
            _Pragma("clang loop unroll(disable)") for (long h = 0; h < lanes; h += 4) \
                vst1q_f32(y + h, ROUND(load_first(x + h, have - h)));         \
          }                                                                   \
          x += ld;                                                            \
          y += lanes;                                                         \
        }                                                                     \
        from += lanes;                                                        \
        to += p->stride;                                                      \
      }                                                                       \
      s += FEW * ld;                                                          \
      d += FEW * lanes;                                                       \
    }                                                                         \
  }
DEF_PACK_COLS(packColsNEON, keep)
DEF_PACK_COLS(packColsRoundNEON, round_bf16)

// 24 independent chains of k multiply-adds in registers: what the processor can do
// at most. Operands come from a and the sums go to c, so that nothing is left out.
void peakF32NEON(const gemm_args *g) {
  float32x4_t c[24], x = vld1q_f32(g->a);
#pragma clang loop unroll(full)
  for (int i = 0; i < 24; i++) c[i] = x;
  for (long k = g->k; k > 0; k--) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 24; i++) {
      c[i] = vfmaq_f32(c[i], x, x);
      __asm__("" : "+w"(c[i]));
    }
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 24; i++) x = vaddq_f32(x, c[i]);
  vst1q_f32(g->c, x);
}
