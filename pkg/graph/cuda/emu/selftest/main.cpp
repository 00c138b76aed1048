// Tests the emulated GPU through the driver's own functions. Prints what failed and exits with 1, or prints "ok".
//
// Each case runs in a process of its own (selftest CASE), since an error of a kernel stays for the rest of a process.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "args.h"

typedef unsigned long long Ptr;
extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuCtxSynchronize();
int cuGetErrorString(int, const char **);
int cuMemAlloc_v2(Ptr *, size_t);
int cuMemFree_v2(Ptr);
int cuMemGetInfo_v2(size_t *, size_t *);
int cuMemHostAlloc(void **, size_t, unsigned);
int cuMemcpyHtoD_v2(Ptr, const void *, size_t);
int cuMemcpyDtoH_v2(void *, Ptr, size_t);
int cuMemcpyHtoDAsync_v2(Ptr, const void *, size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, Ptr, size_t, void *);
int cuMemsetD32Async(Ptr, unsigned, size_t, void *);
int cuModuleLoadData(void **, const char *);
int cuModuleGetFunction(void **, void *, const char *);
int cuFuncSetAttribute(void *, int, int);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
int cuStreamCreate(void **, unsigned);
int cuStreamSynchronize(void *);
int cuStreamWaitEvent(void *, void *, unsigned);
int cuEventCreate(void **, unsigned);
int cuEventRecord(void *, void *);
int cuEventQuery(void *);
int cuEventSynchronize(void *);
int cuEventElapsedTime(float *, void *, void *);
int cuStreamBeginCapture_v2(void *, int);
int cuStreamEndCapture(void *, void **);
int cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cuGraphLaunch(void *, void *);
int cublasLtCreate(void **);
int cublasLtMatmulDescCreate(void **, int, int);
int cublasLtMatmulDescSetAttribute(void *, int, const void *, size_t);
int cublasLtMatrixLayoutCreate(void **, int, uint64_t, uint64_t, int64_t);
int cublasLtMatrixLayoutSetAttribute(void *, int, const void *, size_t);
int cublasLtMatmulPreferenceCreate(void **);
int cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, size_t);
int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *, int, void *, int *);
int cublasLtMatmul(void *, void *, const float *, Ptr, void *, Ptr, void *, const float *, Ptr, void *, Ptr, void *, const void *, Ptr, size_t, void *);
}

static const char *error(int r) {
  const char *s = nullptr;
  cuGetErrorString(r, &s);
  return s ? s : "?";
}
#define FAIL(...) (printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), printf("\n"), exit(1))
#define OK(call)                                   \
  do {                                             \
    if (int r = (call)) FAIL(#call ": %s", error(r)); \
  } while (0)
#define EXPECT(call, code)                                                            \
  do {                                                                                \
    int r = (call);                                                                   \
    if (r != (code)) FAIL(#call " gives %d (%s), expected %d", r, error(r), code);    \
  } while (0)

static void *module;
static std::string ptx() {
  std::string s = ".version 7.0\n.target sm_80\n.address_size 64\n";
#define X(name, Args) s += ".visible .entry meap_" #name "(\n\t.param .align 8 .b8 meap_" #name "_param_0[" + std::to_string(sizeof(Args)) + "]\n)\n{\n\tret;\n}\n";
  MEAP_KERNELS(X)
#undef X
  return s;
}
static void start() {
  void *context;
  OK(cuInit(0));
  OK(cuDevicePrimaryCtxRetain(&context, 0));
  OK(cuCtxSetCurrent(context));
  OK(cuModuleLoadData(&module, ptx().c_str()));
}
static void *function(const char *name) {
  void *f;
  OK(cuModuleGetFunction(&f, module, name));
  return f;
}
template <class T> static Ptr device(const std::vector<T> &v) {
  Ptr p;
  OK(cuMemAlloc_v2(&p, v.size() * sizeof(T)));
  OK(cuMemcpyHtoD_v2(p, v.data(), v.size() * sizeof(T)));
  return p;
}
template <class T> static std::vector<T> host(Ptr p, size_t n) {
  std::vector<T> v(n);
  OK(cuMemcpyDtoH_v2(v.data(), p, n * sizeof(T)));
  return v;
}
template <class Args> static int launch(const char *name, Args a, unsigned grid, unsigned block, unsigned shared = 0, void *stream = nullptr) {
  void *params[] = {&a};
  return cuLaunchKernel(function(name), grid, 1, 1, block, 1, 1, shared, stream, params, nullptr);
}
static float *F(Ptr p) { return (float *)(uintptr_t)p; }
static unsigned random_word() {
  static unsigned x = 12345;
  x ^= x << 13, x ^= x >> 17, x ^= x << 5;
  return x;
}
static unsigned short bf16(float f) {
  unsigned u;
  memcpy(&u, &f, 4);
  return (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static float of_bf16(unsigned short h) {
  unsigned u = (unsigned)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static std::vector<float> ramp(int n) {
  std::vector<float> v((size_t)n);
  for (int i = 0; i < n; i++) v[(size_t)i] = (float)i;
  return v;
}

static void saxpy() {
  int n = 1000;
  Ptr x = device(ramp(n)), y = device(std::vector<float>((size_t)n, 1));
  OK(launch("meap_saxpy", SaxpyArgs{F(y), F(x), 2, n}, 4, 256));
  auto got = host<float>(y, (size_t)n);
  for (int i = 0; i < n; i++)
    if (got[(size_t)i] != 2 * i + 1) FAIL("element %d is %g", i, got[(size_t)i]);
}

static float blocksum_of(int mode) {
  Ptr in = device(ramp(200)), out = device(std::vector<float>{0});
  OK(launch("meap_blocksum", BufferArgs{F(out), F(in), 200, mode}, 1, 256));
  return host<float>(out, 1)[0];
}
static void barriers() {
  if (float s = blocksum_of(0); s != 19900) FAIL("sum %g", s);
  if (float s = blocksum_of(1); s == 19900) FAIL("the sum without barriers is right");
  setenv("MEAP_FAKE_SEED", "7", 1);
  if (float s = blocksum_of(0); s != 19900) FAIL("sum %g with shuffled warps", s);
}

static void warp() {
  Ptr in = device(ramp(32)), out = device(std::vector<float>(96, 0));
  OK(launch("meap_warpsum", BufferArgs{F(out), F(in), 32, 0}, 1, 32));
  auto got = host<float>(out, 96);
  for (int l = 0; l < 32; l++) {
    if (got[(size_t)l] != 496) FAIL("lane %d: sum %g", l, got[(size_t)l]);
    if (got[(size_t)(32 + l)] != (l ? l - 1 : 0)) FAIL("lane %d: shuffled up %g", l, got[(size_t)(32 + l)]);
    int down = l % 8 + 3 < 8 ? l + 3 : l;
    if (got[(size_t)(64 + l)] != down) FAIL("lane %d: shuffled down %g", l, got[(size_t)(64 + l)]);
  }
}

static void mma() {
  std::vector<unsigned short> a(256), b(128);
  std::vector<float> c(128);
  for (auto &v : a) v = bf16((float)(random_word() % 2001) / 1000 - 1);
  for (auto &v : b) v = bf16((float)(random_word() % 2001) / 1000 - 1);
  for (auto &v : c) v = (float)(random_word() % 2001) / 1000 - 1;
  Ptr d = device(std::vector<float>(128, 0));
  Ptr da = device(a), db = device(b), dc = device(c);
  OK(launch("meap_mma", MmaArgs{F(d), (unsigned short *)(uintptr_t)da, (unsigned short *)(uintptr_t)db, F(dc)}, 1, 32));
  auto got = host<float>(d, 128);
  for (size_t i = 0; i < 16; i++)
    for (size_t j = 0; j < 8; j++) {
      double want = c[i * 8 + j];
      for (size_t k = 0; k < 16; k++) want += (double)of_bf16(a[i * 16 + k]) * of_bf16(b[k * 8 + j]);
      if (fabs(got[i * 8 + j] - want) > 1e-5) FAIL("d[%zu,%zu] is %g, expected %g", i, j, got[i * 8 + j], want);
    }
}

static void ldmatrix() {
  std::vector<unsigned short> in(256);
  for (auto &v : in) v = (unsigned short)random_word();
  Ptr din = device(in), out = device(std::vector<unsigned>(128, 0));
  for (int trans = 0; trans < 2; trans++) {
    OK(launch("meap_ldmatrix", WordsArgs{(unsigned *)(uintptr_t)out, (unsigned short *)(uintptr_t)din, 256, trans}, 1, 32, 512));
    auto got = host<unsigned>(out, 128);
    for (size_t m = 0; m < 4; m++)
      for (size_t l = 0; l < 32; l++) {
        size_t r = l / 4, c = l % 4 * 2;
        unsigned lo = trans ? in[m * 64 + c * 8 + r] : in[m * 64 + r * 8 + c], hi = trans ? in[m * 64 + (c + 1) * 8 + r] : in[m * 64 + r * 8 + c + 1];
        if (got[m * 32 + l] != (lo | hi << 16)) FAIL("trans %d, matrix %zu, lane %zu", trans, m, l);
      }
  }
}

static bool pipeline_right(int mode) {
  int n = 5;
  Ptr in = device(ramp(128 * n)), out = device(std::vector<float>((size_t)(128 * n), 0));
  OK(launch("meap_pipeline", BufferArgs{F(out), F(in), n, mode}, 1, 32));
  auto got = host<float>(out, (size_t)(128 * n));
  for (int i = 0; i < 128 * n; i++)
    if (got[(size_t)i] != (i ^ 64)) return false;
  return true;
}
static void copies() {
  if (!pipeline_right(0)) FAIL("tiles are not what was copied");
  if (pipeline_right(1)) FAIL("tiles that were not waited for are right");
}

static void wrong(int mode, int code, const char *word) {
  Ptr out = device(std::vector<float>(70, 0));
  int n = mode == 0 ? 70 + 1024 : 70;
  launch("meap_wrong", BufferArgs{F(out), nullptr, n, mode}, 1, 64);
  EXPECT(cuCtxSynchronize(), code);
  if (!strstr(error(code), word)) FAIL("the error says: %s", error(code));
  EXPECT(cuMemAlloc_v2(&out, 4), code); // and stays
}

static void geometry() {
  Ptr y = device(ramp(8));
  SaxpyArgs a{F(y), F(y), 1, 8};
  EXPECT(launch("meap_saxpy", a, 1, 1025), 1);
  EXPECT(launch("meap_saxpy", a, 0, 32), 1);
  EXPECT(launch("meap_saxpy", a, 1, 32, 50000), 1);
  OK(cuFuncSetAttribute(function("meap_saxpy"), 8, 100000));
  OK(launch("meap_saxpy", a, 1, 32, 100000));
  EXPECT(cuFuncSetAttribute(function("meap_saxpy"), 8, 300000), 1);
  size_t size = 8;
  void *extra[] = {(void *)1, &a, (void *)2, &size, nullptr};
  EXPECT(cuLaunchKernel(function("meap_saxpy"), 1, 1, 1, 32, 1, 1, 0, nullptr, nullptr, extra), 1);
  size = sizeof a;
  OK(cuLaunchKernel(function("meap_saxpy"), 1, 1, 1, 32, 1, 1, 0, nullptr, nullptr, extra));
  void *f, *m;
  EXPECT(cuModuleGetFunction(&f, module, "meap_none"), 500);
  EXPECT(cuModuleLoadData(&m, "text"), 218);
  std::string newer = ptx();
  newer.replace(newer.find("sm_80"), 5, "sm_90");
  EXPECT(cuModuleLoadData(&m, newer.c_str()), 209);
}

static void memory() {
  setenv("MEAP_FAKE_MEMORY", "1m", 1);
  Ptr p, q;
  size_t left, total;
  OK(cuMemAlloc_v2(&p, 600 << 10));
  EXPECT(cuMemAlloc_v2(&q, 600 << 10), 2);
  OK(cuMemGetInfo_v2(&left, &total));
  if (total != 1 << 20 || left != 424 << 10) FAIL("%zu of %zu bytes free", left, total);
  OK(cuMemFree_v2(p));
  OK(cuMemAlloc_v2(&q, 600 << 10));
  EXPECT(cuMemFree_v2(p), 1);
  float f = 1;
  EXPECT(cuMemcpyHtoD_v2(q + (600 << 10) - 3, &f, 4), 1);
  setenv("MEAP_FAKE_FAIL", "cuMemAlloc@2=2", 1);
  OK(cuMemAlloc_v2(&p, 16));
  EXPECT(cuMemAlloc_v2(&p, 16), 2);
  OK(cuMemAlloc_v2(&p, 16));
}

// A stream that is not waited for has not run when streams are lazy.
static void lazy() {
  setenv("MEAP_FAKE_LAZY", "1", 1);
  void *a, *b, *e, *e2;
  OK(cuStreamCreate(&a, 1));
  OK(cuStreamCreate(&b, 1));
  OK(cuEventCreate(&e, 0));
  OK(cuEventCreate(&e2, 0));
  Ptr p = device(std::vector<float>(4, 0));
  float *pinned;
  OK(cuMemHostAlloc((void **)&pinned, 16, 0));
  auto read_on_b = [&] {
    OK(cuMemcpyDtoHAsync_v2(pinned, p, 4, b));
    OK(cuStreamSynchronize(b));
    return pinned[0];
  };
  OK(cuMemsetD32Async(p, 0x3f800000, 4, a));
  if (float f = read_on_b(); f != 0) FAIL("%g, though nobody waited", f);
  EXPECT(cuEventQuery(e), 0);
  OK(cuEventRecord(e, a));
  EXPECT(cuEventQuery(e), 600);
  OK(cuStreamWaitEvent(b, e, 0));
  if (float f = read_on_b(); f != 1) FAIL("%g after waiting", f);
  EXPECT(cuEventQuery(e), 0);
  pinned[1] = 5;
  OK(cuMemcpyHtoDAsync_v2(p, pinned + 1, 4, b));
  pinned[1] = 6; // too early
  if (float f = read_on_b(); f != 6) FAIL("%g: pinned memory is read late", f);
  OK(cuEventRecord(e2, a));
  OK(cuEventSynchronize(e2));
  float ms = -1;
  OK(cuEventElapsedTime(&ms, e, e2));
  if (ms < 0) FAIL("%g ms", ms);
}

static void graphs() {
  void *a, *b, *e, *g, *x;
  OK(cuStreamCreate(&a, 1));
  OK(cuStreamCreate(&b, 1));
  OK(cuEventCreate(&e, 0));
  Ptr x1 = device(ramp(8)), y = device(std::vector<float>(8, 0)), p;
  SaxpyArgs args{F(y), F(x1), 1, 8};
  OK(launch("meap_saxpy", args, 1, 32, 0, a));
  OK(cuStreamBeginCapture_v2(a, 0));
  OK(launch("meap_saxpy", args, 1, 32, 0, a));
  OK(cuEventRecord(e, a));
  OK(cuStreamWaitEvent(b, e, 0));
  OK(launch("meap_saxpy", args, 1, 32, 0, b));
  OK(cuEventRecord(e, b));
  OK(cuStreamWaitEvent(a, e, 0));
  OK(cuStreamEndCapture(a, &g));
  if (float f = host<float>(y, 8)[7]; f != 7) FAIL("capturing has run something: %g", f);
  OK(cuGraphInstantiateWithFlags(&x, g, 0));
  OK(cuGraphLaunch(x, a));
  OK(cuGraphLaunch(x, a));
  OK(cuStreamSynchronize(a));
  if (float f = host<float>(y, 8)[7]; f != 35) FAIL("two launches of two kernels: %g", f);
  OK(cuStreamBeginCapture_v2(a, 0));
  EXPECT(cuMemAlloc_v2(&p, 4), 900);
  EXPECT(cuStreamEndCapture(a, &g), 901);
  OK(cuStreamBeginCapture_v2(a, 0));
  OK(cuEventRecord(e, a));
  OK(cuStreamWaitEvent(b, e, 0));
  OK(launch("meap_saxpy", args, 1, 32, 0, b));
  EXPECT(cuStreamEndCapture(a, &g), 904);
}

static void told() {
  setenv("MEAP_FAKE_FAIL", "meap_saxpy@2=719", 1);
  setenv("MEAP_FAKE_LAZY", "1", 1);
  Ptr y = device(ramp(8));
  SaxpyArgs a{F(y), F(y), 1, 8};
  void *s;
  OK(cuStreamCreate(&s, 1));
  OK(launch("meap_saxpy", a, 1, 32, 0, s));
  OK(launch("meap_saxpy", a, 1, 32, 0, s));
  EXPECT(cuStreamSynchronize(s), 719);
}

// Products of every combination of transposes, orders and types, with padding behind each line, against plain loops.
static void product(int m, int n, int k, int transa, int transb, int order, bool half, bool half_out, float beta) {
  struct Matrix { int rows, cols, ld; std::vector<float> v; Ptr p; void *layout; };
  auto make = [&](int rows, int cols, bool h) {
    Matrix x{rows, cols, (order ? cols : rows) + 3, {}, 0, nullptr};
    x.v.resize((size_t)((order ? rows : cols) * x.ld));
    std::vector<unsigned short> w;
    for (auto &f : x.v) {
      f = (float)(random_word() % 2001) / 1000 - 1;
      if (h) f = of_bf16(bf16(f));
      w.push_back(bf16(f));
    }
    x.p = h ? device(w) : device(x.v);
    OK(cublasLtMatrixLayoutCreate(&x.layout, h ? 14 : 0, (uint64_t)rows, (uint64_t)cols, x.ld));
    OK(cublasLtMatrixLayoutSetAttribute(x.layout, 1, &order, 4));
    return x;
  };
  auto at = [&](const Matrix &x, int r, int c) { return x.v[(size_t)(order ? r * x.ld + c : c * x.ld + r)]; };
  Matrix a = transa ? make(k, m, half) : make(m, k, half), b = transb ? make(n, k, half) : make(k, n, half), d = make(m, n, half_out);
  void *lt, *desc, *pref;
  OK(cublasLtCreate(&lt));
  OK(cublasLtMatmulDescCreate(&desc, 68, 0));
  OK(cublasLtMatmulDescSetAttribute(desc, 3, &transa, 4));
  OK(cublasLtMatmulDescSetAttribute(desc, 4, &transb, 4));
  OK(cublasLtMatmulPreferenceCreate(&pref));
  size_t bytes = 1 << 16;
  OK(cublasLtMatmulPreferenceSetAttribute(pref, 1, &bytes, 8));
  char result[96];
  int found = 0;
  OK(cublasLtMatmulAlgoGetHeuristic(lt, desc, a.layout, b.layout, d.layout, d.layout, pref, 1, result, &found));
  Ptr workspace;
  OK(cuMemAlloc_v2(&workspace, bytes));
  float one = 1;
  EXPECT(cublasLtMatmul(lt, desc, &one, a.p, a.layout, b.p, b.layout, &beta, d.p, d.layout, d.p, d.layout, result, 0, 0, nullptr), 7);
  EXPECT(cublasLtMatmul(lt, desc, &one, a.p + 1, a.layout, b.p, b.layout, &beta, d.p, d.layout, d.p, d.layout, result, workspace, bytes, nullptr), 7);
  EXPECT(cublasLtMatmul(lt, desc, &one, a.p, a.layout, b.p + 4096, b.layout, &beta, d.p, d.layout, d.p, d.layout, result, workspace, bytes, nullptr), 7);
  OK(cublasLtMatmul(lt, desc, &one, a.p, a.layout, b.p, b.layout, &beta, d.p, d.layout, d.p, d.layout, result, workspace, bytes, nullptr));
  Matrix got = d;
  if (half_out) {
    auto w = host<unsigned short>(d.p, d.v.size());
    for (size_t i = 0; i < w.size(); i++) got.v[i] = of_bf16(w[i]);
  } else {
    got.v = host<float>(d.p, d.v.size());
  }
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      double want = beta * at(d, i, j), terms = 1;
      for (int x = 0; x < k; x++) {
        double t = (double)(transa ? at(a, x, i) : at(a, i, x)) * (transb ? at(b, j, x) : at(b, x, j));
        want += t, terms += fabs(t);
      }
      if (fabs(at(got, i, j) - want) > (half_out ? 1e-2 : 1e-6) * terms)
        FAIL("%dx%dx%d transa %d transb %d order %d: [%d,%d] is %g, expected %g", m, n, k, transa, transb, order, i, j, at(got, i, j), want);
      got.v[(size_t)(order ? i * d.ld + j : j * d.ld + i)] = at(d, i, j);
    }
  if (got.v != d.v) FAIL("the padding of d has changed");
}
static void products() {
  for (int i = 0; i < 64; i++) product(1 + i % 37, 1 + i * 7 % 29, 1 + i * 5 % 41, i & 1, i >> 1 & 1, i >> 2 & 1, i >> 3 & 1, (i >> 4 & 1) && (i >> 3 & 1), (float)(i >> 5));
}

int main(int argc, char **argv) {
  const std::map<std::string, std::function<void()>> cases = {
      {"saxpy", saxpy}, {"barriers", barriers}, {"warp", warp}, {"mma", mma}, {"ldmatrix", ldmatrix}, {"copies", copies},
      {"geometry", geometry}, {"memory", memory}, {"lazy", lazy}, {"graphs", graphs}, {"products", products}, {"told to fail", told},
      {"out of bounds", [] { wrong(0, 700, "bytes into an allocation of 280 bytes"); }},
      {"divergent shuffle", [] { wrong(1, 719, "__shfl_sync waits for lanes ffff0000"); }},
      {"two barriers", [] { wrong(2, 719, "waits at"); }},
      {"a lane has gone", [] { wrong(3, 719, "waits for lanes 00000020"); }},
      {"behind shared memory", [] { wrong(4, 719, "bytes behind 128 bytes of shared memory"); }},
      {"mask without caller", [] { wrong(5, 719, "leaves the calling lane"); }},
      {"behind an allocation", [] { wrong(6, 719, "wrote 0 bytes behind"); }},
      {"named barrier", [] { wrong(7, 719, "waits for ever at barrier 1"); }},
  };
  if (argc > 1) {
    start();
    cases.at(argv[1])();
    return 0;
  }
  bool bad = false;
  for (auto &c : cases) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) execl(argv[0], argv[0], c.first.c_str(), (char *)nullptr);
    int status;
    waitpid(child, &status, 0);
    if (status) printf("FAIL %s (status %x)\n", c.first.c_str(), status), bad = true;
  }
  if (!bad) printf("ok, %zu cases\n", cases.size());
  return bad;
}
