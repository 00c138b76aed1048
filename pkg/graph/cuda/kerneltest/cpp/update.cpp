#include "harness.h"

static void grad_norm(const std::vector<size_t> &sizes, double scale, double special) {
    where = "grad_norm of " + std::to_string(sizes.size()) + " tensors";
    const size_t count = sizes.size();
    std::vector<Tensor *> tensors;
    std::vector<unsigned long long> at, elements;
    Ints first{0};
    Numbers squares(count), norm(1);
    double total = 0;
    for (size_t t = 0; t < count; t++) {
        Numbers g = random(sizes[t], scale);
        if (special != 0 && t == count / 2) g[sizes[t] / 2] = special;
        tensors.push_back(new Tensor(sizes[t], false));
        tensors.back()->set(g);
        for (double v : g) squares[t] += v * v;
        total += squares[t];
        squares[t] = (float)squares[t]; // which may be beyond it
        at.push_back(tensors.back()->at), elements.push_back(sizes[t]);
        first.push_back(first.back() + (int)pieces(sizes[t], MEAP_NORM_CHUNK));
    }
    norm[0] = (float)sqrt(total);
    Tensor64 table(at), counts(elements), partial((size_t)first.back()), sums(count);
    Tensor tf(count + 1, false), tn(1, false), ts(count, false);
    tf.set(first);
    GradNormArgs a{(const float *const *)table.at, (const long long *)counts.at, tf, (double *)partial.at, (double *)sums.at, tn, ts, (int)count};
    launch("grad_norm_partial_f32", a, (unsigned)first.back(), 1, 1, 256);
    launch("grad_norm_total_f32", a, 1, 1, 1, 1024);
    compare("norm", tn.numbers(), norm, 2e-7);
    compare("squares", ts.numbers(), squares, 2e-7);
    for (auto t : tensors) delete t;
}

static void step_report() {
    where = "step_report";
    Tensor loss(1, false), norm(1, false), halted(1, false), report(3, false);
    double stopped = 0;
    const double steps[][2] = {{2.5, 1}, {NAN, 1}, {1, 2}, {3, INFINITY}, {-INFINITY, 0}};
    for (int i = 0; i < 5; i++) {
        Numbers l{steps[i][0]}, n{steps[i][1]}, h{i == 3 ? 0 : stopped};
        loss.set(l), norm.set(n), halted.set(h);
        stopped = std::isfinite(l[0]) && std::isfinite(n[0]) ? h[0] : 1;
        launch("step_report_f32", StepReportArgs{loss, norm, halted, report}, 1, 1, 1, 32);
        compare("report", report.numbers(), Numbers{l[0], n[0], stopped}, 0);
        compare("loss", loss.numbers(), Numbers{0}, 0);
        compare("halted", halted.numbers(), Numbers{stopped}, 0);
    }
}

static void adamw(size_t n, double clip, double norm, double halted, bool shadow) {
    where = "adamw of " + std::to_string(n);
    Numbers p = random(n), g = random(n), m = random(n, 0.1), v = random(n, 0.1), report{2.5, norm, halted}, hyper{4e-3, 1 / (1 - 0.81), 1 / (1 - 0.9025)};
    for (double &x : v) x = fabs(x);
    Tensor tp(n, false), tg(n, false), tm(n, false), tv(n, false), tr(3, false), th(3, false), t16(n, true);
    tp.set(p), tg.set(g), tm.set(m), tv.set(v), tr.set(report), th.set(hyper);
    Numbers half = t16.numbers(), magnitude(n, 1);
    launch_elements("adamw_f32", AdamWArgs{tp, tg, tm, tv, shadow ? t16.get() : nullptr, tr, th, (long long)n, 0.9f, 0.95f, (float)(1 - 0.9), (float)(1 - 0.95), 1e-8f, 0.05f, (float)clip}, n);
    if (halted == 0) {
        const double scale = clip > 0 && norm > clip ? clip / norm : 1;
        for (size_t i = 0; i < n; i++) {
            const double gr = g[i] * scale;
            m[i] = 0.9 * m[i] + 0.1 * gr;
            v[i] = 0.95 * v[i] + 0.05 * gr * gr;
            p[i] -= hyper[0] * (m[i] * hyper[1] / (sqrt(v[i] * hyper[2]) + 1e-8) + 0.05 * p[i]);
            g[i] = 0;
        }
        if (shadow) half = p;
    }
    compare("p", tp.numbers(), p, 1e-6, &magnitude);
    compare("m", tm.numbers(), m, 1e-6, &magnitude);
    compare("v", tv.numbers(), v, 1e-6, &magnitude);
    compare("g", tg.numbers(), g, 0);
    compare("p16", t16.numbers(), half, 0x1p-8, &magnitude);
}

void test_update() {
    grad_norm({1}, 1, 0);
    grad_norm({561, 1, 40000, 15, 16384, 16385}, 1, 0);
    grad_norm({100, 5000}, 1e-30, 0), grad_norm({100, 5000}, 1e25, 0);
    grad_norm({100, 5000}, 1, NAN), grad_norm({100, 5000}, 1, -INFINITY);
    std::vector<size_t> many;
    for (size_t i = 0; i < 100; i++) many.push_back(1 + i * 7);
    grad_norm(many, 1, 0);
    step_report();
    for (size_t n : {1, 3, 1000, 8199})
        for (bool shadow : {false, true}) adamw(n, 1, 7.5, 0, shadow), adamw(n, 1, 0.25, 0, shadow), adamw(n, 0, 7.5, 0, shadow), adamw(n, 1, NAN, 1, shadow);
}
