#include "harness.h"

static void rmsnorm(size_t n, size_t dim, bool half, double scale = 1) {
    where = "rmsnorm " + std::to_string(n) + "x" + std::to_string(dim) + suffix(half);
    Numbers x = random(n * dim, scale), w = random(dim), dy = random(n * dim), y(n * dim), rstd(n), dx(n * dim), dw(dim), dx_size(n * dim), dw_size(dim);
    Tensor tx(n * dim, half), tw(dim, false), tdy(n * dim, half), ty(n * dim, half), tr(n, false), tdx(n * dim, half), tdw(dim, false);
    tx.set(x), tw.set(w), tdy.set(dy);
    for (size_t r = 0; r < n; r++) {
        double sum = 0, dot = 0, size = 0;
        for (size_t c = 0; c < dim; c++) sum += x[r * dim + c] * x[r * dim + c];
        rstd[r] = 1 / sqrt(sum / (double)dim + 1e-5f);
        for (size_t c = 0; c < dim; c++) {
            const double t = dy[r * dim + c] * w[c] * x[r * dim + c] * rstd[r] / (double)dim;
            dot += t, size += fabs(t);
        }
        for (size_t c = 0; c < dim; c++) {
            const size_t i = r * dim + c;
            const double u = x[i] * rstd[r];
            y[i] = u * w[c], dx[i] = rstd[r] * (dy[i] * w[c] - u * dot), dx_size[i] = rstd[r] * (fabs(dy[i] * w[c]) + fabs(u) * size);
            dw[c] += dy[i] * u, dw_size[c] += fabs(dy[i] * u);
        }
    }
    launch(std::string("rmsnorm") + suffix(half), RMSNormArgs{tx, tw, ty, tr, (long long)n, (int)dim, 1e-5f}, pieces(n, 4), 1, 1, 128);
    compare("y", ty.numbers(), y, unit(half));
    compare("rstd", tr.numbers(), rstd, 2e-6);
    const size_t rows = n > 40 ? 9 : 8;
    Tensor partial(pieces(n, rows) * dim, false);
    RMSNormGradArgs a{tx, tw, tr, tdy, nullptr, tdx, nullptr, partial, (long long)n, (int)dim, (int)rows};
    const unsigned block = 32 * std::min(8u, pieces(dim, 256));
    launch(std::string("rmsnorm_grad") + suffix(half), a, pieces(n, rows), 1, 1, block, (unsigned)(4 * dim));
    launch("reduce_rows_f32", ReduceRowsArgs{partial, tdw, (int)pieces(n, rows), (int)dim, 0}, pieces(dim, 32), 1, 1, 256);
    compare("dx", tdx.numbers(), dx, unit(half) + 1e-5, &dx_size);
    compare("dw", tdw.numbers(), dw, 1e-5, &dw_size);
    Tensor more(n * dim, half), sum(n * dim, half);
    Numbers with_more = random(n * dim), sum_size = dx_size;
    more.set(with_more);
    for (size_t i = 0; i < n * dim; i++) with_more[i] += dx[i], sum_size[i] += fabs(with_more[i]);
    Tensor again(n * dim, half);
    a.more = more, a.dx = sum, a.y = again;
    launch(std::string("rmsnorm_grad") + suffix(half), a, pieces(n, rows), 1, 1, block, (unsigned)(4 * dim));
    compare("dx and more", sum.numbers(), with_more, unit(half) + 1e-5, &sum_size);
    compare("y again", again.numbers(), ty.numbers(), 0);
    a.more = nullptr, a.dx = tdy, a.y = nullptr;
    launch(std::string("rmsnorm_grad") + suffix(half), a, pieces(n, rows), 1, 1, block, (unsigned)(4 * dim));
    compare("dx in place", tdy.numbers(), tdx.numbers(), 0);
    launch("reduce_rows_f32", ReduceRowsArgs{partial, tdw, (int)pieces(n, rows), (int)dim, 1}, pieces(dim, 32), 1, 1, 256);
    for (double &v : dw) v *= 2;
    compare("dw added", tdw.numbers(), dw, 1e-5, &dw_size);
}

static void column_sum(size_t n, size_t width, size_t rows, bool half) {
    where = "column_sum " + std::to_string(n) + "x" + std::to_string(width) + suffix(half);
    Numbers dy = random(n * width), want(width), size(width);
    Tensor tdy(n * width, half), partial(pieces(n, rows) * width, false), out(width, false);
    tdy.set(dy);
    for (size_t i = 0; i < n * width; i++) want[i % width] += dy[i], size[i % width] += fabs(dy[i]);
    launch(std::string("column_sum") + suffix(half), ColumnSumArgs{tdy, partial, (long long)n, (int)width, (int)rows}, pieces(width, 256), pieces(n, rows), 1, 256);
    launch("reduce_rows_f32", ReduceRowsArgs{partial, out, (int)pieces(n, rows), (int)width, 0}, pieces(width, 32), 1, 1, 256);
    compare("sums", out.numbers(), want, 1e-5, &size);
}

static void weighted_sum(size_t n) {
    where = "weighted_sum of " + std::to_string(n);
    Numbers x = random(n), scale{0.37}, want{0};
    Tensor tx(n, false), ts(1, false), ty(1, false);
    tx.set(x), ts.set(scale);
    for (double v : x) want[0] += v;
    want[0] *= scale[0];
    launch("weighted_sum_f32", WeightedSumArgs{tx, ts, ty, (long long)n}, 1, 1, 1, 1024);
    compare("sum", ty.numbers(), want, 1e-7);
}

// half gives the gradient in bf16; gap is what a row's stride exceeds the vocabulary by, shared the logits that shared memory has room for.
static void cross_entropy(size_t n, size_t vocab, size_t gap, bool half, double scale = 5, unsigned shared = 2048) {
    where = "cross_entropy " + std::to_string(n) + "x" + std::to_string(vocab) + "+" + std::to_string(gap) + ", " + std::to_string(shared) + suffix(half);
    const size_t stride = vocab + gap;
    Numbers z = random(n * stride, scale), g = random(n), nll(n), dz, size;
    Ints labels(n);
    for (size_t r = 0; r < n; r++) labels[r] = r % 5 == 2 ? -100 : r % 5 == 4 ? -1 : below((int)vocab);
    Tensor tz(n * stride, false), tl(n, false), tg(n, false), tn(n, false), td(n * stride, half);
    tz.set(z), tl.set(labels), tg.set(g);
    dz = td.numbers(), size = Numbers(n * stride);
    Numbers inplace = z;
    for (size_t r = 0; r < n; r++) {
        double top = -INFINITY, sum = 0;
        for (size_t c = 0; c < vocab; c++) top = std::max(top, z[r * stride + c]);
        for (size_t c = 0; c < vocab; c++) sum += exp(z[r * stride + c] - top);
        nll[r] = labels[r] < 0 ? 0 : top + log(sum) - z[r * stride + (size_t)labels[r]];
        for (size_t c = 0; c < vocab; c++) {
            const size_t i = r * stride + c;
            const double p = exp(z[i] - top) / sum;
            dz[i] = labels[r] < 0 ? 0 : (p - (labels[r] == (int)c)) * g[r];
            size[i] = labels[r] < 0 ? 0 : (p + (labels[r] == (int)c)) * fabs(g[r]);
            inplace[i] = dz[i];
        }
    }
    Numbers nll_size(n, 1 + scale);
    CrossEntropyArgs a{tz, tl, tg, tn, nullptr, (long long)n, (long long)stride, 0, (int)vocab, (int)shared};
    launch("cross_entropy_f32", a, (unsigned)n, 1, 1, 512, 4 * shared);
    compare("nll", tn.numbers(), nll, 2e-6, &nll_size);
    a.dlogits = td, a.dlogits_stride = (long long)stride;
    Tensor again(n, false);
    a.nll = again;
    const std::string name = half ? "cross_entropy_grad_f32_bf16" : "cross_entropy_grad_f32";
    launch(name, a, (unsigned)n, 1, 1, 512, 4 * shared);
    compare("nll of grad", again.numbers(), nll, 2e-6, &nll_size);
    const double allowed = (half ? 0x1p-8 : 0) + 5e-6;
    compare("dlogits", td.numbers(), dz, allowed, &size);
    if (half) return;
    a.dlogits = tz;
    launch(name, a, (unsigned)n, 1, 1, 512, 4 * shared);
    for (size_t i = 0; i < size.size(); i++)
        if (i % stride >= vocab) size[i] = 0;
    compare("dlogits in place", tz.numbers(), inplace, allowed, &size);
}

void test_rows() {
    for (bool half : {false, true}) {
        for (size_t dim : {1, 7, 64, 100, 768, 2048, 2056}) rmsnorm(5, dim, half);
        rmsnorm(1, 33, half), rmsnorm(75, 256, half), rmsnorm(3, 5001, half), rmsnorm(3, 4104, half);
        rmsnorm(4, 65, half, 1e-4);
        column_sum(1, 1, 256, half), column_sum(70, 300, 9, half), column_sum(33, 64, 256, half);
    }
    rmsnorm(3, 65, false, 1e12);
    for (size_t n : {1, 3, 1000, 5000}) weighted_sum(n);
    for (bool half : {false, true}) {
        for (size_t vocab : {1, 3, 64, 259, 4099}) cross_entropy(6, vocab, 0, half);
        cross_entropy(6, 1000, 24, half), cross_entropy(5, 61, 3, half);
        for (unsigned shared : {2048, 4096, 18432}) cross_entropy(2, 33001, 7, half, 5, shared), cross_entropy(2, 33000, 0, half, 5, shared);
        cross_entropy(4, 500, 4, half, 100);
    }
    where = "cross_entropy of a label outside of the vocabulary";
    Numbers z = random(8), g{1}, nan(8, NAN);
    Tensor tz(8, false), tl(1, false), tg(1, false), tn(1, false), td(8, false);
    launch("cross_entropy_grad_f32", CrossEntropyArgs{tz.set(z), tl.set(Ints{8}), tg.set(g), tn, td, 1, 8, 8, 8, 2048}, 1, 1, 1, 512, 8192);
    compare("nll", tn.numbers(), Numbers{NAN}, 0);
    compare("dlogits", td.numbers(), nan, 0);
}
