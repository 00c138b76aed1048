#include "harness.h"

#include <cstdarg>

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuCtxSynchronize();
int cuGetErrorString(int, const char **);
int cuMemAlloc_v2(Address *, size_t);
int cuMemFree_v2(Address);
int cuMemcpyHtoD_v2(Address, const void *, size_t);
int cuMemcpyDtoH_v2(void *, Address, size_t);
int cuModuleLoadData(void **, const char *);
int cuModuleGetFunction(void **, void *, const char *);
int cuFuncSetAttribute(void *, int, int);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
}

std::string where;
int shift;

void fail(const char *format, ...) {
    va_list v;
    va_start(v, format);
    printf("%s: ", where.c_str());
    vprintf(format, v);
    printf("\n");
    exit(1);
}

static void ok(int r, const char *what) {
    const char *s = "?";
    if (r == 0) return;
    cuGetErrorString(r, &s);
    fail("%s: %s", what, s);
}

static void *module() {
    static void *m;
    if (m) return m;
    void *context;
    ok(cuInit(0), "cuInit");
    ok(cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
    ok(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    std::string s = ".version 7.0\n.target sm_80\n.address_size 64\n";
#define X(name, Args) s += ".visible .entry meap_" #name "(\n\t.param .align 8 .b8 meap_" #name "_param_0[" + std::to_string(sizeof(Args)) + "]\n)\n{\n\tret;\n}\n";
    MEAP_KERNELS(X)
#undef X
    ok(cuModuleLoadData(&m, s.c_str()), "cuModuleLoadData");
    return m;
}

void launch_raw(const char *name, const void *args, unsigned x, unsigned y, unsigned z, unsigned block, unsigned shared) {
    void *f, *params[] = {(void *)args};
    const std::string full = std::string("meap_") + name;
    ok(cuModuleGetFunction(&f, module(), full.c_str()), full.c_str());
    if (shared > 48 << 10) ok(cuFuncSetAttribute(f, 8, (int)shared), full.c_str());
    ok(cuLaunchKernel(f, x, y, z, block, 1, 1, shared, nullptr, params, nullptr), full.c_str());
    ok(cuCtxSynchronize(), full.c_str());
}

bf16 to_bf16(double v) {
    const float f = (float)v;
    unsigned u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bf16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

double from_bf16(bf16 b) {
    const unsigned u = (unsigned)b << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static const size_t band = 256;

Tensor::Tensor(size_t n, bool half) : n(n), half(half) {
    module();
    const size_t size = half ? 2 : 4, front = band + (size_t)shift * size;
    ok(cuMemAlloc_v2(&base, front + n * size + band), "cuMemAlloc");
    at = base + front;
    guard.resize(front + n * size + band);
    for (size_t i = 0; i < guard.size(); i++) guard[i] = (unsigned char)(i * 37 + 11);
    memset(&guard[front], 0xff, n * size);
    ok(cuMemcpyHtoD_v2(base, guard.data(), guard.size()), "cuMemcpyHtoD");
}

Tensor::~Tensor() { cuMemFree_v2(base); }

Tensor &Tensor::set(Numbers &values) {
    if (values.size() != n) fail("%zu values for %zu elements", values.size(), n);
    for (size_t i = 0; i < n; i++) {
        unsigned char *p = &guard[at - base + i * (half ? 2 : 4)];
        const float f = (float)values[i];
        const bf16 h = to_bf16(f);
        values[i] = half ? from_bf16(h) : f;
        half ? memcpy(p, &h, 2) : memcpy(p, &f, 4);
    }
    ok(cuMemcpyHtoD_v2(base, guard.data(), guard.size()), "cuMemcpyHtoD");
    return *this;
}

Tensor &Tensor::set(const Ints &values) {
    if (values.size() != n) fail("%zu values for %zu elements", values.size(), n);
    if (n > 0) memcpy(&guard[at - base], values.data(), 4 * n);
    ok(cuMemcpyHtoD_v2(base, guard.data(), guard.size()), "cuMemcpyHtoD");
    return *this;
}

std::vector<unsigned char> Tensor::bytes() const {
    std::vector<unsigned char> all(guard.size());
    ok(cuMemcpyDtoH_v2(all.data(), base, all.size()), "cuMemcpyDtoH");
    const size_t front = at - base, size = n * (half ? 2 : 4);
    for (size_t i = 0; i < all.size(); i++)
        if ((i < front || i >= front + size) && all[i] != guard[i]) fail("byte %zd of a tensor of %zu bytes was written", (ssize_t)(i - front), size);
    return {all.begin() + (ssize_t)front, all.begin() + (ssize_t)(front + size)};
}

Numbers Tensor::numbers() const {
    const auto raw = bytes();
    Numbers out(n);
    for (size_t i = 0; i < n; i++) {
        float f;
        bf16 h;
        if (half) memcpy(&h, &raw[2 * i], 2), out[i] = from_bf16(h);
        else memcpy(&f, &raw[4 * i], 4), out[i] = f;
    }
    return out;
}

Ints Tensor::ints() const {
    const auto raw = bytes();
    Ints out(n);
    if (n > 0) memcpy(out.data(), raw.data(), 4 * n);
    return out;
}

Tensor64::Tensor64(const std::vector<unsigned long long> &values) {
    module();
    ok(cuMemAlloc_v2(&at, 8 * values.size()), "cuMemAlloc");
    ok(cuMemcpyHtoD_v2(at, values.data(), 8 * values.size()), "cuMemcpyHtoD");
}

Tensor64::~Tensor64() { cuMemFree_v2(at); }

std::vector<unsigned long long> Tensor64::get(size_t n) const {
    std::vector<unsigned long long> out(n);
    ok(cuMemcpyDtoH_v2(out.data(), at, 8 * n), "cuMemcpyDtoH");
    return out;
}

static unsigned long long state = 0x9e3779b97f4a7c15ull;
static unsigned word() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(state >> 33);
}

Numbers random(size_t n, double scale) {
    Numbers out(n);
    for (auto &v : out) v = (float)((word() / 1073741824.0 - 1) * scale);
    return out;
}

int below(int n) { return (int)(word() % (unsigned)n); }

void compare(const char *what, const Numbers &got, const Numbers &want, double tolerance, const Numbers *magnitude) {
    if (got.size() != want.size()) fail("%s: %zu elements, should be %zu", what, got.size(), want.size());
    for (size_t i = 0; i < got.size(); i++) {
        const double allowed = tolerance * (magnitude ? (*magnitude)[i] : fabs(want[i])) + 1e-30;
        if (std::isnan(want[i]) ? std::isnan(got[i]) : std::isinf(want[i]) ? got[i] == want[i] : fabs(got[i] - want[i]) <= allowed) continue;
        fail("%s: element %zu of %zu is %.9g, should be %.9g (allowed %.2g)", what, i, got.size(), got[i], want[i], allowed);
    }
}

void equal(const char *what, const Ints &got, const Ints &want) {
    if (got.size() != want.size()) fail("%s: %zu elements, should be %zu", what, got.size(), want.size());
    for (size_t i = 0; i < got.size(); i++)
        if (got[i] != want[i]) fail("%s: element %zu is %d, should be %d", what, i, got[i], want[i]);
}

void test_elementwise();
void test_rows();
void test_embedding();
void test_update();
void test_attention();
void test_cached_attention();
void test_product();

int main(int argc, char **argv) {
    const struct {
        const char *name;
        void (*run)();
    } tests[] = {{"elementwise", test_elementwise}, {"rows", test_rows}, {"embedding", test_embedding}, {"update", test_update},
                 {"attention", test_attention}, {"cached_attention", test_cached_attention}, {"product", test_product}};
    int ran = 0;
    for (auto &t : tests) {
        if (argc > 1 && strcmp(argv[1], t.name)) continue;
        for (shift = 0; shift < 2; shift++) t.run();
        ran++;
    }
    printf("ok, %d tests\n", ran);
    return ran == 0;
}
