#include "harness.h"

static const size_t sizes[] = {1, 3, 8, 31, 1000, 8199};

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

// gates are values where the sigmoid is steep, flat, and beyond the range of a float32 exponential.
static Numbers gates(size_t n) {
    Numbers g = random(n, 6);
    const double special[] = {0, -0.0, 1e-20, 20, -20, 87, -87, 89, -89, 104, -104, 1e4, -1e4};
    for (size_t i = 0; i < 13 && i + 1 < n; i++) g[i * n / 13] = special[i];
    return g;
}

static void casts(size_t n) {
    where = "casts of " + std::to_string(n);
    Numbers x = random(n, 3), want(n);
    const double special[] = {INFINITY, -INFINITY, NAN, 1 + 1. / 256, 1 + 3. / 256, 3.3895e38, 3.4e38, 1e-40, -0.0};
    for (size_t i = 0; i < 9 && n > 9; i++) x[i * n / 9] = special[i];
    Tensor f(n, false), h(n, true), back(n, false);
    f.set(x);
    for (size_t i = 0; i < n; i++) want[i] = from_bf16(to_bf16(x[i]));
    launch_elements("cast_f32_bf16", CastArgs{f, h, (long long)n}, n);
    compare("to bf16", h.numbers(), want, 0);
    launch_elements("cast_bf16_f32", CastArgs{h, back, (long long)n}, n);
    compare("to fp32", back.numbers(), want, 0);
    Numbers s{0.75}, dy{-3};
    Tensor ts(1, false), td(1, false), y(n, false);
    launch_elements("weighted_sum_grad_f32", WeightedSumGradArgs{ts.set(s), td.set(dy), y, (long long)n}, n);
    compare("weighted_sum_grad", y.numbers(), Numbers(n, -2.25), 0);
}

static void sums(size_t n, bool half) {
    where = std::string("sums of ") + std::to_string(n) + suffix(half);
    Numbers x = random(n), y = random(n), acc = random(n, 4), want(n), sum(n), magnitude(n);
    Tensor tx(n, half), ty(n, half), tz(n, half), ta(n, false);
    tx.set(x), ty.set(y), ta.set(acc);
    for (size_t i = 0; i < n; i++) want[i] = x[i] + y[i], sum[i] = acc[i] + x[i], magnitude[i] = fabs(acc[i]) + fabs(x[i]);
    launch_elements(std::string("add") + suffix(half), AddArgs{tx, ty, tz, (long long)n}, n);
    compare("add", tz.numbers(), want, unit(half));
    launch_elements(std::string("accumulate") + suffix(half), AccumulateArgs{ta, tx, (long long)n}, n);
    compare("accumulate", ta.numbers(), sum, 1e-7, &magnitude);
    launch_elements(std::string("add") + suffix(half), AddArgs{tx, ty, tx, (long long)n}, n);
    compare("add in place", tx.numbers(), want, unit(half));
}

static void swiglu(size_t n, bool half) {
    where = std::string("swiglu of ") + std::to_string(n) + suffix(half);
    Numbers g = gates(n), u = random(n), d = random(n), want(n), dg(n), du(n), magnitude(n);
    Tensor tg(n, half), tu(n, half), td(n, half), y(n, half), tdg(n, half), tdu(n, half);
    tg.set(g), tu.set(u), td.set(d);
    for (size_t i = 0; i < n; i++) {
        const double s = sigmoid(g[i]);
        want[i] = g[i] * s * u[i];
        dg[i] = d[i] * u[i] * (s + g[i] * s * (1 - s));
        magnitude[i] = fabs(d[i] * u[i]) * (s + fabs(g[i]) * s * (1 - s));
        du[i] = d[i] * g[i] * s;
    }
    launch_elements(std::string("swiglu") + suffix(half), SwiGLUArgs{tg, tu, y, (long long)n}, n);
    compare("y", y.numbers(), want, unit(half));
    launch_elements(std::string("swiglu_grad") + suffix(half), SwiGLUGradArgs{tg, tu, td, tdg, tdu, nullptr, (long long)n}, n);
    compare("dgate", tdg.numbers(), dg, unit(half), &magnitude);
    compare("dup", tdu.numbers(), du, unit(half));
    launch_elements(std::string("swiglu_grad") + suffix(half), SwiGLUGradArgs{tg, tu, td, tg, tu, td, (long long)n}, n);
    compare("y again, in place", td.numbers(), y.numbers(), 0);
    compare("dgate in place", tg.numbers(), dg, unit(half), &magnitude);
    compare("dup in place", tu.numbers(), du, unit(half));
}

static void bias(size_t rows, size_t width, bool half) {
    where = "bias " + std::to_string(rows) + "x" + std::to_string(width) + suffix(half);
    const std::string name = half ? "bias_f32_bf16" : "bias_f32";
    Numbers b = random(width), x = random(rows * width), all(rows * width), sum(rows * width);
    Tensor tb(width, false), tx(rows * width, false), alone(rows * width, half), added(rows * width, half);
    tb.set(b), tx.set(x);
    for (size_t i = 0; i < rows * width; i++) all[i] = b[i % width], sum[i] = x[i] + b[i % width];
    launch_elements(name, BiasArgs{tb, nullptr, alone, (long long)rows, (int)width}, rows * width);
    compare("broadcast", alone.numbers(), all, unit(half));
    launch_elements(name, BiasArgs{tb, tx, added, (long long)rows, (int)width}, rows * width);
    compare("added", added.numbers(), sum, unit(half));
    if (half) return;
    launch_elements(name, BiasArgs{tb, tx, tx, (long long)rows, (int)width}, rows * width);
    compare("in place", tx.numbers(), sum, unit(half));
}

static void rope(size_t rows, size_t heads, size_t halves, bool inverse, bool half) {
    where = "rope " + std::to_string(rows) + "x" + std::to_string(heads) + " heads of " + std::to_string(2 * halves) + (inverse ? " back" : "") + suffix(half);
    const size_t width = heads * 2 * halves, positions = 7;
    Numbers x = random(rows * width), c(positions * halves), s(positions * halves), want(rows * width), magnitude(rows * width);
    Ints pos(rows);
    for (auto &p : pos) p = below((int)positions);
    for (size_t i = 0; i < c.size(); i++) {
        const double angle = random(1, 3)[0];
        c[i] = cos(angle), s[i] = sin(angle);
    }
    Tensor tx(rows * width, half), tc(c.size(), false), ts(s.size(), false), tp(rows, false), y(rows * width, half);
    tx.set(x), tc.set(c), ts.set(s), tp.set(pos);
    for (size_t r = 0; r < rows; r++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < halves; i++) {
                const size_t p = r * width + h * 2 * halves + i, q = p + halves, angle = (size_t)pos[r] * halves + i;
                const double sn = inverse ? -s[angle] : s[angle];
                want[p] = x[p] * c[angle] - x[q] * sn, want[q] = x[q] * c[angle] + x[p] * sn;
                magnitude[p] = magnitude[q] = fabs(x[p]) + fabs(x[q]);
            }
    RoPEArgs a{tx, tc, ts, tp, y, (long long)rows, (int)width, (int)halves, inverse};
    launch_elements(std::string("rope") + suffix(half), a, rows * width);
    compare("y", y.numbers(), want, unit(half), &magnitude);
    a.y = tx;
    launch_elements(std::string("rope") + suffix(half), a, rows * width);
    compare("in place", tx.numbers(), want, unit(half), &magnitude);
}

static void cache_write(int batch, int seq, int capacity, int width, bool half) {
    where = "cache_write " + std::to_string(seq) + " of " + std::to_string(capacity) + " x " + std::to_string(width) + suffix(half);
    const size_t n = (size_t)(batch * seq * width), all = (size_t)(batch * capacity * width);
    Numbers k = random(n), v = random(n), kc = random(all), vc = random(all);
    Ints past((size_t)batch);
    for (auto &p : past) p = below(capacity);
    Tensor tk(n, half), tv(n, half), tkc(all, half), tvc(all, half), tp((size_t)batch, false);
    tk.set(k), tv.set(v), tkc.set(kc), tvc.set(vc), tp.set(past);
    for (int b = 0; b < batch; b++)
        for (int i = 0; i < seq && past[(size_t)b] + i < capacity; i++)
            for (int c = 0; c < width; c++) {
                const size_t to = (size_t)((b * capacity + past[(size_t)b] + i) * width + c), from = (size_t)((b * seq + i) * width + c);
                kc[to] = k[from], vc[to] = v[from];
            }
    launch_elements(std::string("cache_write") + suffix(half), CacheWriteArgs{tk, tv, tp, tkc, tvc, batch, seq, capacity, width}, n);
    compare("kcache", tkc.numbers(), kc, 0);
    compare("vcache", tvc.numbers(), vc, 0);
}

void test_elementwise() {
    for (size_t n : sizes) {
        casts(n);
        for (bool half : {false, true}) sums(n, half), swiglu(n, half);
    }
    for (bool half : {false, true}) {
        bias(1, 1, half), bias(5, 3, half), bias(7, 64, half), bias(300, 20, half);
        for (bool inverse : {false, true}) rope(1, 1, 1, inverse, half), rope(5, 3, 5, inverse, half), rope(33, 2, 32, inverse, half), rope(9, 5, 12, inverse, half);
        cache_write(1, 1, 1, 1, half), cache_write(3, 5, 9, 6, half), cache_write(2, 17, 40, 64, half);
    }
}
