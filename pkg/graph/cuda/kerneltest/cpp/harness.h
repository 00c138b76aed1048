// What the tests of the kernels share: memory with guard bands, launches, comparisons. Results are compared with plain loops in double
// on the same operands, after these have been rounded to the type that the kernel reads.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "args.h"

typedef unsigned short bf16;
typedef unsigned long long Address;
typedef std::vector<double> Numbers;
typedef std::vector<int> Ints;

// where says what is being tested, for messages.
extern std::string where;
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// shift moves every tensor by so many elements from where memory is aligned.
extern int shift;

bf16 to_bf16(double v);
double from_bf16(bf16 b);

// Tensor is device memory for n elements of 4 bytes (or 2, if half) between guard bands.
struct Tensor {
    size_t n;
    bool half;
    Address base, at;
    std::vector<unsigned char> guard;

    Tensor(size_t n, bool half); // poisoned: every element is NaN
    ~Tensor();
    Tensor(const Tensor &) = delete;
    void *get() const { return (void *)at; }
    operator void *() const { return (void *)at; }
    operator float *() const { return (float *)at; }
    operator int *() const { return (int *)at; }
    operator const float *() const { return (float *)at; }
    operator const int *() const { return (int *)at; }
    Tensor &set(Numbers &values); // rounds the values to what the memory holds
    Tensor &set(const Ints &values);
    Numbers numbers() const; // after looking at the guard bands
    Ints ints() const;

  private:
    std::vector<unsigned char> bytes() const;
};

struct Tensor64 { // doubles or pointers, for tables; aligned
    Address at;
    explicit Tensor64(const std::vector<unsigned long long> &values);
    explicit Tensor64(size_t n) : Tensor64(std::vector<unsigned long long>(n, 0x7ff8000000000000ull)) {}
    std::vector<unsigned long long> get(size_t n) const;
    ~Tensor64();
};

void launch_raw(const char *name, const void *args, unsigned x, unsigned y, unsigned z, unsigned block, unsigned shared);
template <class Args> void launch(const std::string &name, Args a, unsigned x, unsigned y, unsigned z, unsigned block, unsigned shared = 0) {
    launch_raw(name.c_str(), &a, x, y, z, block, shared);
}
// launch_elements is a launch of an element-wise kernel, in too few blocks to do it in one go.
template <class Args> void launch_elements(const std::string &name, Args a, size_t n) {
    launch(name, a, (unsigned)((n + 4095) / 4096), 1, 1, MEAP_BLOCK);
}

// random returns n numbers between -scale and scale.
Numbers random(size_t n, double scale = 1);
int below(int n);

// compare asks that each got is within tolerance * magnitude of want, the magnitude being |want| unless one is given.
void compare(const char *what, const Numbers &got, const Numbers &want, double tolerance, const Numbers *magnitude = nullptr);
void equal(const char *what, const Ints &got, const Ints &want);

inline const char *suffix(bool half) { return half ? "_bf16" : "_f32"; }
// unit is the error that rounding the result to its type alone makes, and some for the arithmetic.
inline double unit(bool half) { return half ? 0x1p-8 : 4e-6; }

inline unsigned pieces(size_t n, size_t size) { return (unsigned)((n + size - 1) / size); }
