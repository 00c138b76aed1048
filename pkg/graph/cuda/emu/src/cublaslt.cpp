// cuBLASLt for the emulated GPU: plain products in fp32, on the CPU, in stream order. Strict about what it is asked: types, leading
// dimensions, alignment, workspace, addresses.
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#define API extern "C" __attribute__((visibility("default")))

// Of the fake driver.
extern "C" {
int meap_fake_enqueue(void *stream, const char *what, int (*f)(void *), const void *data, size_t n);
void meap_fake_parallel(int n, void (*f)(void *, int), void *data);
int meap_fake_inside(const void *p, size_t n);
void meap_fake_log(const char *line);
int meap_fake_told_to_fail(const char *name, int otherwise);
}

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_TF32 = 77 };
enum { COL = 0, ROW = 1 };

namespace {

struct Layout { int type, order = COL; uint64_t rows, cols; int64_t ld; int32_t batch = 1; int64_t stride = 0; };
struct Desc { int compute, scale, pointer_mode = 0, transa = 0, transb = 0, epilogue = 1, bias_type = -1; void *bias = nullptr; };
struct Preference { uint64_t workspace = 0; uint32_t align[4] = {256, 256, 256, 256}; uint32_t reduction = 7; };
struct Algorithm { uint64_t magic, workspace; uint32_t align[4]; uint64_t rest[4]; };
struct Heuristic { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; };
static_assert(sizeof(Algorithm) == 64 && sizeof(Heuristic) == 96, "as cublasLt.h has them");

int refuse(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
int refuse(int status, const char *format, ...) {
  char text[512];
  va_list ap;
  va_start(ap, format);
  int n = snprintf(text, sizeof text, "error cublasLt %d ", status);
  vsnprintf(text + n, sizeof text - (size_t)n, format, ap);
  va_end(ap);
  fprintf(stderr, "emulated cuBLASLt: %s\n", text + n);
  meap_fake_log(text);
  return status;
}

size_t size_of(int type) { return type == R_16BF ? 2 : 4; }
// extent is how many bytes from its first element a matrix takes.
size_t extent(const Layout &l) {
  uint64_t lines = l.order == COL ? l.cols : l.rows, length = l.order == COL ? l.rows : l.cols;
  if (!lines || !length) return 0;
  return ((lines - 1) * (uint64_t)l.ld + length + (uint64_t)(l.batch - 1) * (uint64_t)l.stride) * size_of(l.type);
}

// check returns what is wrong with a product's description, or SUCCESS.
int check(const Desc &d, const Layout &a, const Layout &b, const Layout &c, const Layout &o) {
  uint64_t m = d.transa ? a.cols : a.rows, k = d.transa ? a.rows : a.cols, k2 = d.transb ? b.cols : b.rows, n = d.transb ? b.rows : b.cols;
  if (k != k2 || o.rows != m || o.cols != n || c.rows != m || c.cols != n)
    return refuse(INVALID_VALUE, "op(a) [%lu,%lu] op(b) [%lu,%lu] d [%lu,%lu]", m, k, k2, n, o.rows, o.cols);
  if (!m || !n || !k) return refuse(INVALID_VALUE, "a product of %lux%lux%lu", m, n, k);
  for (const Layout *l : {&a, &b, &c, &o}) {
    if ((uint64_t)l->ld < (l->order == COL ? l->rows : l->cols)) return refuse(INVALID_VALUE, "leading dimension %ld of a matrix [%lu,%lu]", l->ld, l->rows, l->cols);
    if (l->batch != o.batch) return refuse(INVALID_VALUE, "batches of %d and %d", l->batch, o.batch);
  }
  if (a.type != b.type || c.type != o.type) return refuse(NOT_SUPPORTED, "operands of types %d and %d, results of types %d and %d", a.type, b.type, c.type, o.type);
  bool known = (a.type == R_16BF && (o.type == R_16BF || o.type == R_32F)) || (a.type == R_32F && o.type == R_32F);
  if (!known || d.scale != R_32F || (d.compute != COMPUTE_32F && d.compute != COMPUTE_32F_PEDANTIC && d.compute != COMPUTE_32F_FAST_TF32))
    return refuse(NOT_SUPPORTED, "types %d -> %d, compute type %d, scale type %d", a.type, o.type, d.compute, d.scale);
  if (d.epilogue != 1 && d.epilogue != 4) return refuse(NOT_SUPPORTED, "epilogue %d", d.epilogue);
  return SUCCESS;
}

float widen(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
uint16_t narrow(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
float read(const void *p, int type, size_t i) { return type == R_16BF ? widen(((const uint16_t *)p)[i]) : ((const float *)p)[i]; }
void write(void *p, int type, size_t i, float f) {
  if (type == R_16BF)
    ((uint16_t *)p)[i] = narrow(f);
  else
    ((float *)p)[i] = f;
}
// step is how far the next row, or column, is.
size_t row_step(const Layout &l) { return l.order == COL ? 1 : (size_t)l.ld; }
size_t col_step(const Layout &l) { return l.order == COL ? (size_t)l.ld : 1; }

struct Product {
  Desc desc;
  Layout a, b, c, d;
  const void *pa, *pb, *pc;
  void *pd;
  float alpha, beta;
  void *workspace;
  size_t bytes;
};

typedef float Vector __attribute__((vector_size(32)));
enum { MR = 16, NR = 4 };

// pack lays `width` rows (of op(a), or columns of op(b)) side by side: out[p][k][width], zeros behind the last.
void pack(const void *p, int type, size_t count, size_t k, size_t step, size_t kstep, size_t width, float *out) {
  for (size_t at = 0; at < count; at += width)
    for (size_t x = 0; x < k; x++)
      for (size_t i = 0; i < width; i++) *out++ = at + i < count ? read(p, type, (at + i) * step + x * kstep) : 0;
}

struct Job { const Product *p; const float *a, *b; size_t m, n, k; int batch; };

// panel computes MR rows of the result. Every element sums along k in order, whatever is beside it.
void panel(void *data, int index) {
  Job &j = *(Job *)data;
  const Product &p = *j.p;
  size_t row = (size_t)index * MR;
  const float *a = j.a + row * j.k;
  for (size_t col = 0; col < j.n; col += NR) {
    const float *b = j.b + col * j.k;
    Vector sum[NR][2] = {};
    for (size_t x = 0; x < j.k; x++) {
      Vector lo, hi;
      memcpy(&lo, a + x * MR, 32);
      memcpy(&hi, a + x * MR + 8, 32);
      for (int c = 0; c < NR; c++) {
        sum[c][0] += lo * b[x * NR + (size_t)c];
        sum[c][1] += hi * b[x * NR + (size_t)c];
      }
    }
    for (size_t c = 0; c < NR && col + c < j.n; c++)
      for (size_t r = 0; r < MR && row + r < j.m; r++) {
        float v = p.alpha * sum[c][r / 8][r % 8];
        size_t cat = (row + r) * row_step(p.c) + (col + c) * col_step(p.c) + (size_t)j.batch * (size_t)p.c.stride;
        size_t dat = (row + r) * row_step(p.d) + (col + c) * col_step(p.d) + (size_t)j.batch * (size_t)p.d.stride;
        if (p.beta != 0) v += p.beta * read(p.pc, p.c.type, cat);
        if (p.desc.epilogue == 4) v += read(p.desc.bias, p.desc.bias_type < 0 ? p.d.type : p.desc.bias_type, row + r);
        write(p.pd, p.d.type, dat, v);
      }
  }
}

int run(void *data) {
  Product &p = *(Product *)data;
  if (int r = meap_fake_told_to_fail("cublasLtMatmul run", 719)) return r;
  if (p.bytes) memset(p.workspace, 0xff, p.bytes < 4096 ? p.bytes : 4096); // nobody keeps anything there
  size_t m = p.d.rows, n = p.d.cols, k = p.desc.transa ? p.a.rows : p.a.cols;
  std::unique_ptr<float[]> a(new float[(m + MR - 1) / MR * MR * k]), b(new float[(n + NR - 1) / NR * NR * k]);
  for (int batch = 0; batch < p.d.batch; batch++) {
    const char *pa = (const char *)p.pa + (size_t)batch * (size_t)p.a.stride * size_of(p.a.type);
    const char *pb = (const char *)p.pb + (size_t)batch * (size_t)p.b.stride * size_of(p.b.type);
    pack(pa, p.a.type, m, k, p.desc.transa ? col_step(p.a) : row_step(p.a), p.desc.transa ? row_step(p.a) : col_step(p.a), MR, a.get());
    pack(pb, p.b.type, n, k, p.desc.transb ? row_step(p.b) : col_step(p.b), p.desc.transb ? col_step(p.b) : row_step(p.b), NR, b.get());
    Job j{&p, a.get(), b.get(), m, n, k, batch};
    meap_fake_parallel((int)((m + MR - 1) / MR), panel, &j);
  }
  return SUCCESS;
}

template <class T> int set(T &field, const void *value, size_t n) {
  if (n != sizeof field) return refuse(INVALID_VALUE, "an attribute of %zu bytes given as %zu", sizeof field, n);
  memcpy(&field, value, n);
  return SUCCESS;
}

} // namespace

API size_t cublasLtGetVersion() { return 120400; }
API size_t cublasLtGetCudartVersion() { return 12040; }
API const char *cublasLtGetStatusName(int s) { return s ? "CUBLAS_STATUS of the emulated GPU" : "CUBLAS_STATUS_SUCCESS"; }
API const char *cublasLtGetStatusString(int s) { return s ? "refused by the emulated GPU" : "success"; }
API int cublasLtCreate(void **h) {
  if (int r = meap_fake_told_to_fail("cublasLtCreate", NOT_INITIALIZED)) return r;
  *h = malloc(1);
  return SUCCESS;
}
API int cublasLtDestroy(void *h) {
  free(h);
  return SUCCESS;
}

API int cublasLtMatmulDescCreate(Desc **d, int compute, int scale) {
  *d = new Desc{compute, scale};
  return SUCCESS;
}
API int cublasLtMatmulDescDestroy(Desc *d) {
  delete d;
  return SUCCESS;
}
API int cublasLtMatmulDescSetAttribute(Desc *d, int attribute, const void *value, size_t n) {
  switch (attribute) {
  case 0: return set(d->compute, value, n);
  case 1: return set(d->scale, value, n);
  case 2: return set(d->pointer_mode, value, n);
  case 3: return set(d->transa, value, n);
  case 4: return set(d->transb, value, n);
  case 7: return set(d->epilogue, value, n);
  case 8: return set(d->bias, value, n);
  case 26: return set(d->bias_type, value, n);
  }
  return refuse(NOT_SUPPORTED, "attribute %d of a product", attribute);
}
API int cublasLtMatrixLayoutCreate(Layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  *l = new Layout;
  (*l)->type = type, (*l)->rows = rows, (*l)->cols = cols, (*l)->ld = ld;
  return SUCCESS;
}
API int cublasLtMatrixLayoutDestroy(Layout *l) {
  delete l;
  return SUCCESS;
}
API int cublasLtMatrixLayoutSetAttribute(Layout *l, int attribute, const void *value, size_t n) {
  switch (attribute) {
  case 0: return set(l->type, value, n);
  case 1: return set(l->order, value, n);
  case 2: return set(l->rows, value, n);
  case 3: return set(l->cols, value, n);
  case 4: return set(l->ld, value, n);
  case 5: return set(l->batch, value, n);
  case 6: return set(l->stride, value, n);
  }
  return refuse(NOT_SUPPORTED, "attribute %d of a matrix", attribute);
}
API int cublasLtMatmulPreferenceCreate(Preference **p) {
  *p = new Preference;
  return SUCCESS;
}
API int cublasLtMatmulPreferenceDestroy(Preference *p) {
  delete p;
  return SUCCESS;
}
API int cublasLtMatmulPreferenceSetAttribute(Preference *p, int attribute, const void *value, size_t n) {
  uint32_t ignored;
  switch (attribute) {
  case 0: case 12: return set(ignored, value, n);
  case 1: return set(p->workspace, value, n);
  case 3: return set(p->reduction, value, n);
  case 5: case 6: case 7: case 8: return set(p->align[attribute - 5], value, n);
  }
  return refuse(NOT_SUPPORTED, "preference %d", attribute);
}

// misaligned holds for bf16 rows that do not begin at multiples of MEAP_FAKE_LT_ALIGN elements, if that is set.
static bool misaligned(const Layout &l) {
  const char *knob = getenv("MEAP_FAKE_LT_ALIGN");
  int64_t n = knob ? atol(knob) : 0;
  return n > 0 && l.type == R_16BF && l.ld % n != 0;
}

// The heuristic gives one algorithm. It wants half of the workspace that it may have, and the alignment that was promised.
API int cublasLtMatmulAlgoGetHeuristic(void *handle, const Desc *d, const Layout *a, const Layout *b, const Layout *c, const Layout *o,
                                       const Preference *p, int count, Heuristic *results, int *n) {
  *n = 0;
  if (!handle || count < 1) return INVALID_VALUE;
  if (meap_fake_told_to_fail("cublasLtMatmulAlgoGetHeuristic", NOT_SUPPORTED)) return NOT_SUPPORTED;
  if (int r = check(*d, *a, *b, *c, *o)) return r;
  if (misaligned(*a) || misaligned(*b) || misaligned(*o)) return NOT_SUPPORTED;
  memset(results, 0, sizeof *results);
  results->algorithm.magic = 0x6d656170;
  results->algorithm.workspace = results->workspace = p ? p->workspace / 2 : 0;
  for (int i = 0; i < 4; i++) results->algorithm.align[i] = p ? p->align[i] : 256;
  results->waves = 1;
  *n = 1;
  return SUCCESS;
}

API int cublasLtMatmul(void *handle, const Desc *d, const float *alpha, const void *pa, const Layout *a, const void *pb, const Layout *b,
                       const float *beta, const void *pc, const Layout *c, void *pd, const Layout *o, const Algorithm *algorithm,
                       void *workspace, size_t bytes, void *stream) {
  if (!handle) return NOT_INITIALIZED;
  if (int r = meap_fake_told_to_fail("cublasLtMatmul", EXECUTION_FAILED)) return r;
  if (int r = check(*d, *a, *b, *c, *o)) return r;
  if (d->pointer_mode != 0) return refuse(NOT_SUPPORTED, "pointer mode %d", d->pointer_mode);
  char line[256];
  snprintf(line, sizeof line, "cublasLtMatmul m=%lu n=%lu k=%lu transa=%d transb=%d type=%d dtype=%d beta=%g workspace=%zu", o->rows, o->cols,
           d->transa ? a->rows : a->cols, d->transa, d->transb, a->type, o->type, *beta, bytes);
  meap_fake_log(line);
  uint32_t align[4] = {16, 16, 16, 16};
  if (algorithm) {
    if (algorithm->magic != 0x6d656170) return refuse(INVALID_VALUE, "an algorithm that the heuristic did not give");
    if (bytes < algorithm->workspace) return refuse(INVALID_VALUE, "%zu bytes of workspace; the algorithm needs %lu", bytes, algorithm->workspace);
    memcpy(align, algorithm->align, sizeof align);
  }
  if (bytes && (!meap_fake_inside(workspace, bytes) || (uintptr_t)workspace % 256)) return refuse(INVALID_VALUE, "the workspace is not device memory aligned to 256 bytes");
  const void *p[4] = {pa, pb, pc, pd};
  const Layout *l[4] = {a, b, c, o};
  for (int i = 0; i < 4; i++) {
    if (i == 2 && *beta == 0) continue;
    if ((uintptr_t)p[i] % align[i] || (uintptr_t)p[i] % size_of(l[i]->type)) return refuse(INVALID_VALUE, "operand %c at %p is not aligned to %u bytes", "abcd"[i], p[i], align[i]);
    if (!meap_fake_inside(p[i], extent(*l[i]))) return refuse(INVALID_VALUE, "operand %c goes beyond its allocation", "abcd"[i]);
  }
  Product product{*d, *a, *b, *c, *o, pa, pb, pc, pd, *alpha, *beta, workspace, bytes};
  return meap_fake_enqueue(stream, "cublasLtMatmul", run, &product, sizeof product) ? EXECUTION_FAILED : SUCCESS;
}
