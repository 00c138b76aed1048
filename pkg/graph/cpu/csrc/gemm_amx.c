// bf16 products by AMX tiles (TDPBF16PS) and the packing of their left operand.
// In a file of its own, as gemm_avx512bf16.c is.
#include "gemm_avx512.h"

// A tile register holds 16 rows of 64 bytes: 16 x 16 sums, 16 rows of A with 16
// pairs of bf16 each, or 16 pairs along the sum of 16 columns of B.
#define TILE 16
#define EDGE 32 // rows and columns of a block of C, which takes four registers

// One step along the sum: 16 pairs. Registers 0 to 3 are C, 4 and 5 the upper and
// lower rows of A, 6 and 7 the left and right columns of B. A half block has no
// lower rows.
#define STEPS(LOWER)                                                          \
  for (long l = 0; l < lanes; l += TILE) {                                    \
    _tile_loadd(4, a, 4 * TILE);                                              \
    _tile_loadd(6, b, 4 * TILE);                                              \
    _tile_loadd(7, b + TILE * TILE, 4 * TILE);                                \
    if (LOWER) _tile_loadd(5, a + TILE * TILE, 4 * TILE);                     \
    _tile_dpbf16ps(0, 4, 6);                                                  \
    _tile_dpbf16ps(1, 4, 7);                                                  \
    if (LOWER) {                                                              \
      _tile_dpbf16ps(2, 5, 6);                                                \
      _tile_dpbf16ps(3, 5, 7);                                                \
    }                                                                         \
    a += EDGE * TILE;                                                         \
    b += TILE * EDGE;                                                         \
  }

// c = A B or c += A B for one block of 32 columns and 32 rows, or 16 if lower is 0.
static inline __attribute__((always_inline)) void block(float *c, long ldc, const float *a, const float *b, long lanes,
                                                        int lower, int acc) {
  float *d = c + TILE * ldc;
  if (acc) {
    _tile_loadd(0, c, 4 * ldc);
    _tile_loadd(1, c + TILE, 4 * ldc);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  if (lower) {
    if (acc) {
      _tile_loadd(2, d, 4 * ldc);
      _tile_loadd(3, d + TILE, 4 * ldc);
    } else {
      _tile_zero(2);
      _tile_zero(3);
    }
    STEPS(1)
    _tile_stored(2, d, 4 * ldc);
    _tile_stored(3, d + TILE, 4 * ldc);
  } else {
    STEPS(0)
  }
  _tile_stored(0, c, 4 * ldc);
  _tile_stored(1, c + TILE, 4 * ldc);
}

// Copies rows x cols floats, and as many rows and columns of zeros as fill a block.
static inline __attribute__((always_inline)) void load_edge(float *e, const float *c, long ldc, long rows, long cols) {
  __mmask16 m0 = lanes16(cols), m1 = lanes16(cols - 16);
  for (long i = 0; i < EDGE; i++) {
    int in = i < rows;
    _mm512_storeu_ps(e + i * EDGE, _mm512_maskz_loadu_ps(in ? m0 : 0, c + (in ? i * ldc : 0)));
    _mm512_storeu_ps(e + i * EDGE + 16, _mm512_maskz_loadu_ps(in ? m1 : 0, c + (in ? i * ldc : 0) + 16));
  }
}

static inline __attribute__((always_inline)) void store_edge(const float *e, float *c, long ldc, long rows, long cols) {
  __mmask16 m0 = lanes16(cols), m1 = lanes16(cols - 16);
  for (long i = 0; i < rows; i++) {
    _mm512_mask_storeu_ps(c + i * ldc, m0, _mm512_loadu_ps(e + i * EDGE));
    _mm512_mask_storeu_ps(c + i * ldc + 16, m1, _mm512_loadu_ps(e + i * EDGE + 16));
  }
}

// Panels of A, each [lanes / 16][32 rows][16 lanes], meet panels of B, each
// [lanes / 16][2][16 lanes][16 columns]. The registers are configured and released here, because a
// goroutine may go on elsewhere as soon as this returns. What is added to is the
// sum's first term, in whole blocks and in those at the edges alike.
void gemmBF16AMX(const tiles_args *g) {
  _tile_loadconfig(g->config);
  for (long i = 0; i < g->m; i += EDGE) {
    const float *a = g->a + i / EDGE * g->a_stride;
    long rows = g->m - i < EDGE ? g->m - i : EDGE;
    for (long j = 0; j < g->cols; j += EDGE) {
      const float *b = g->b + j / EDGE * g->b_stride;
      float *c = g->c + i * g->ldc + j;
      long cols = g->cols - j < EDGE ? g->cols - j : EDGE;
      if (cols == EDGE && rows == EDGE) {
        block(c, g->ldc, a, b, g->k, 1, g->acc);
      } else if (cols == EDGE && rows == TILE) {
        block(c, g->ldc, a, b, g->k, 0, g->acc);
      } else {
        if (g->acc) load_edge(g->edge, c, g->ldc, rows, cols);
        if (rows <= TILE)
          block(g->edge, EDGE, a, b, g->k, 0, g->acc);
        else
          block(g->edge, EDGE, a, b, g->k, 1, g->acc);
        store_edge(g->edge, c, g->ldc, rows, cols);
      }
    }
  }
  _tile_release();
}

// 4 independent chains of k products of registers: what the processor can do at most.
void peakBF16AMX(const tiles_args *g) {
  _tile_loadconfig(g->config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (long k = g->k; k > 0; k--) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

// Packing of 16 rows of A, or columns of B, to one register's worth of memory for
// every 32 elements along the sum: 16 rows of 16 pairs for A, 16 pairs of 16
// columns for B. These begin stride words apart. What is beyond the operand, and
// beyond k in the last of them, is zero.

// Rows of src are contiguous along k; for B they are transposed as words.
#define DEF_PACK_TILE_ROWS(NAME, TRANSPOSE)                                   \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    long ld = p->ld, have = p->have;                                          \
    for (long k = p->k; k > 0; k -= 32) {                                     \
      __mmask16 k0 = lanes16(k), k1 = lanes16(k - 16);                        \
      __m512i r[16];                                                          \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++) {       \
        __m512 lo = _mm512_maskz_loadu_ps(i < have ? k0 : 0, s + i * ld);     \
        __m512 hi = _mm512_maskz_loadu_ps(i < have ? k1 : 0, s + i * ld + 16); \
        r[i] = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);                          \
      }                                                                       \
      if (TRANSPOSE) transpose16(r);                                          \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++)         \
          _mm512_storeu_si512(d + 16 * i, r[i]);                              \
      s += 32;                                                                \
      d += p->stride;                                                         \
    }                                                                         \
  }
DEF_PACK_TILE_ROWS(packTileRowsAAMX, 0)
DEF_PACK_TILE_ROWS(packTileRowsBAMX, 1)

// Rows of src follow each other along k: two of them make 16 pairs, which for A
// are transposed as words.
#define DEF_PACK_TILE_COLS(NAME, TRANSPOSE)                                   \
  void NAME(const pack_args *p) {                                             \
    const float *s = p->src;                                                  \
    float *d = p->dst;                                                        \
    long ld = p->ld;                                                          \
    __mmask16 hm = lanes16(p->have);                                          \
    for (long k = p->k; k > 0; k -= 32) {                                     \
      __m512i r[16];                                                          \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++)         \
          r[i] = pair_rows(s + 2 * i * ld, ld, 2 * i < k ? hm : 0, 2 * i + 1 < k ? hm : 0); \
      if (TRANSPOSE) transpose16(r);                                          \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++)         \
          _mm512_storeu_si512(d + 16 * i, r[i]);                              \
      s += 32 * ld;                                                           \
      d += p->stride;                                                         \
    }                                                                         \
  }
DEF_PACK_TILE_COLS(packTileColsAAMX, 1)
DEF_PACK_TILE_COLS(packTileColsBAMX, 0)
