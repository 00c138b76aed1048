// fp32 tiles of a matrix product and the packing of its operands, AVX2 and FMA.
#include "avx2.h"

#define MR 6
#define NR 16

// One step along k of a tile of rows x 16: 12 multiply-adds of 6 rows take the two
// units 6 cycles, and the 8 loads fit beside them.
#define STEP(ROWS, S)                                                          \
  do {                                                                        \
    __m256 b0 = _mm256_loadu_ps(b + (S) * NR);                                \
    __m256 b1 = _mm256_loadu_ps(b + (S) * NR + 8);                            \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {       \
      __m256 x = _mm256_broadcast_ss(a + (S) * MR + i);                       \
      c0[i] = _mm256_fmadd_ps(x, b0, c0[i]);                                  \
      c1[i] = _mm256_fmadd_ps(x, b1, c1[i]);                                  \
    }                                                                         \
  } while (0)

// A tile of ROWS x 16 from one panel of A and one of B. Masked stores are slow, so
// the tiles with m rows or cols columns less than that are apart.
#define DEF_TILE(NAME, ROWS, WHOLE)                                           \
  static inline __attribute__((always_inline)) void NAME(                     \
      const float *a, const float *b, float *c, long ldc, long k, long m,     \
      long cols, long acc) {                                                  \
    __m256 c0[ROWS], c1[ROWS];                                                \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {       \
      c0[i] = _mm256_setzero_ps();                                            \
      c1[i] = _mm256_setzero_ps();                                            \
      __builtin_prefetch(c + i * ldc, 1);                                     \
    }                                                                         \
    for (; k >= 4; k -= 4) {                                                  \
      STEP(ROWS, 0);                                                          \
      STEP(ROWS, 1);                                                          \
      STEP(ROWS, 2);                                                          \
      STEP(ROWS, 3);                                                          \
      a += 4 * MR;                                                            \
      b += 4 * NR;                                                            \
    }                                                                         \
    for (; k > 0; k--) {                                                      \
      STEP(ROWS, 0);                                                          \
      a += MR;                                                                \
      b += NR;                                                                \
    }                                                                         \
    __m256i m0 = lanes8(cols), m1 = lanes8(cols - 8);                         \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < ROWS; i++) {       \
      if (!WHOLE && i >= m) return;                                           \
      float *r = c + i * ldc;                                                 \
      if (acc) {                                                              \
        c0[i] = _mm256_add_ps(c0[i], WHOLE ? _mm256_loadu_ps(r)               \
                                           : _mm256_maskload_ps(r, m0));      \
        c1[i] = _mm256_add_ps(c1[i], WHOLE ? _mm256_loadu_ps(r + 8)           \
                                           : _mm256_maskload_ps(r + 8, m1));  \
      }                                                                       \
      if (WHOLE) {                                                            \
        _mm256_storeu_ps(r, c0[i]);                                           \
        _mm256_storeu_ps(r + 8, c1[i]);                                       \
      } else {                                                                \
        _mm256_maskstore_ps(r, m0, c0[i]);                                    \
        _mm256_maskstore_ps(r + 8, m1, c1[i]);                                \
      }                                                                       \
    }                                                                         \
  }
DEF_TILE(tile_whole, MR, 1)
DEF_TILE(tile_edge, MR, 0)
DEF_TILE(tile_low, 2, 0)

// m rows, that is panels of A that begin a_stride floats apart, by one panel of B,
// which stays in the L1 cache. Meanwhile the next panel of B, b_stride floats on, is
// fetched into the L2 cache, some lines at every tile.
void gemmF32AVX2(const tiles_args *g) {
  const float *a = g->a, *next = g->b + g->b_stride;
  float *c = g->c;
  long m = g->m;
  long lines = g->k * MR / (m + 1) + 1;
  for (; m >= MR && g->cols == NR; m -= MR) {
    for (long i = 0; i < lines; i++) __builtin_prefetch(next + i * 16, 0, 2);
    next += lines * 16;
    tile_whole(a, g->b, c, g->ldc, g->k, MR, NR, g->acc);
    a += g->a_stride;
    c += MR * g->ldc;
  }
  for (; m > 2; m -= MR) {
    tile_edge(a, g->b, c, g->ldc, g->k, m, g->cols, g->acc);
    a += g->a_stride;
    c += MR * g->ldc;
  }
  if (m > 0) tile_low(a, g->b, c, g->ldc, g->k, m, g->cols, g->acc);
}

// Writes the 8 or MR first lanes of v. A masked store would be slow.
static inline __attribute__((always_inline)) void store_lanes(float *d, long lanes, __m256 v) {
  if (lanes >= 8) {
    _mm256_storeu_ps(d, v);
  } else {
    _mm_storeu_ps(d, _mm256_castps256_ps128(v));
    _mm_storel_pi((__m64 *)(d + 4), _mm256_extractf128_ps(v, 1));
  }
}

// Packing, here of all panels in one call: have rows or columns of src in panels of
// lanes = MR or NR, which begin stride floats apart.

// Rows of src are contiguous along k: load 8 x 8, transpose, store.
#define DEF_PACK_ROWS(NAME, ROUND)                                            \
  static inline __attribute__((always_inline)) void NAME##8(                  \
      const float *s, float *d, long ld, long have, long lanes, long k,       \
      long st) {                                                              \
    __m256 r[8];                                                              \
    for (; k >= 8; k -= 8) {                                                  \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 8; i++)          \
          r[i] = i < have ? ROUND(_mm256_loadu_ps(s + i * ld))                \
                          : _mm256_setzero_ps();                              \
      transpose8(r);                                                          \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 8; i++)          \
          store_lanes(d + i * st, lanes, r[i]);                               \
      s += 8;                                                                 \
      d += 8 * st;                                                            \
    }                                                                         \
    if (k <= 0) return;                                                       \
    __m256i km = lanes8(k);                                                   \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < 8; i++)            \
        r[i] = i < have ? ROUND(_mm256_maskload_ps(s + i * ld, km))           \
                        : _mm256_setzero_ps();                                \
    transpose8(r);                                                            \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < 8; i++) {          \
      if (i >= k) return;                                                     \
      store_lanes(d + i * st, lanes, r[i]);                                   \
    }                                                                         \
  }                                                                           \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    for (long have = p->have; have > 0; have -= p->lanes) {                   \
      if (p->lanes == MR) {                                                   \
        NAME##8(s, d, p->ld, have < MR ? have : MR, MR, p->k, MR);            \
      } else {                                                                \
        _Pragma("clang loop unroll(disable)") for (long h = 0; h < NR; h += 8) \
            NAME##8(s + h * p->ld, d + h, p->ld, have - h, 8, p->k, NR);      \
      }                                                                       \
      s += p->lanes * p->ld;                                                  \
      d += p->stride;                                                         \
    }                                                                         \
  }
DEF_PACK_ROWS(packRowsAVX2, keep)
DEF_PACK_ROWS(packRowsRoundAVX2, round_bf16)

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
      long few = k < FEW ? k : FEW, ahead = k > FEW ? FEW * ld : 0;           \
      for (long have = p->have; have > 0; have -= lanes) {                    \
        const float *x = from;                                                \
        float *y = to;                                                        \
        if (have >= NR && lanes == NR) {                                      \
          for (long i = few; i > 0; i--) {                                    \
            __builtin_prefetch(x + ahead);                                    \
            _mm256_storeu_ps(y, ROUND(_mm256_loadu_ps(x)));                   \
            _mm256_storeu_ps(y + 8, ROUND(_mm256_loadu_ps(x + 8)));           \
            x += ld;                                                          \
            y += NR;                                                          \
          }                                                                   \
        } else if (have >= 8 && lanes == MR) {                                \
          for (long i = few; i > 0; i--) {                                    \
            __builtin_prefetch(x + ahead);                                    \
            store_lanes(y, MR, ROUND(_mm256_loadu_ps(x)));                    \
            x += ld;                                                          \
            y += MR;                                                          \
          }                                                                   \
        } else {                                                              \
          __m256i m0 = lanes8(have), m1 = lanes8(have - 8);                   \
          for (long i = few; i > 0; i--) {                                    \
            store_lanes(y, lanes, ROUND(_mm256_maskload_ps(x, m0)));          \
            if (lanes == NR)                                                  \
              _mm256_storeu_ps(y + 8, ROUND(_mm256_maskload_ps(x + 8, m1)));  \
            x += ld;                                                          \
            y += lanes;                                                       \
          }                                                                   \
        }                                                                     \
        from += lanes;                                                        \
        to += p->stride;                                                      \
      }                                                                       \
      s += FEW * ld;                                                          \
      d += FEW * lanes;                                                       \
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
