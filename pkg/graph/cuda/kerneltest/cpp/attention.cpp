#include "harness.h"

#include <algorithm>

// Case is one shape of attention. Rows may lie further apart than they are wide.
struct Case {
    int batch, seq, heads, kv_heads, dim;
    bool half, documents;
    int more = 0; // what strides exceed widths by
    double scale = 1;
    bool sm90 = false; // by the kernels for compute capability 9.0
};

static bool tensor_cores(const Case &c) { return c.half && (c.dim == 64 || c.dim == 128) && shift == 0 && c.more % 8 == 0; }

static std::string family(const Case &c) {
    if (tensor_cores(c)) return "_bf16_" + std::to_string(c.dim) + (c.sm90 ? "_sm90" : "");
    return std::string(suffix(c.half)) + (c.dim > 128 ? "_wide" : "");
}

static int general_tile(const Case &c) { return c.dim > 128 ? 16 : 32; }

static std::string name_of(const Case &c) {
    return "attention" + family(c) + " " + std::to_string(c.batch) + "x" + std::to_string(c.seq) + ", " + std::to_string(c.heads) + " heads, " +
           std::to_string(c.kv_heads) + " kv, of " + std::to_string(c.dim) + (c.documents ? ", documents" : "") + (shift ? ", shifted" : "");
}

static void attention(const Case &c) {
    where = name_of(c);
    const bool tensor = tensor_cores(c);
    const size_t d = (size_t)c.dim, seq = (size_t)c.seq, heads = (size_t)c.heads, kvs = (size_t)c.kv_heads, batch = (size_t)c.batch, n = batch * seq;
    const size_t qw = heads * d + (size_t)c.more, kw = kvs * d + (size_t)c.more;
    const double scale = 1 / sqrt((double)d);
    Numbers q = random(n * qw, c.scale), k = random(n * kw, c.scale), v = random(n * kw), dout = random(n * qw);
    Ints starts(n);
    for (size_t r = 0; r < n; r++) {
        const size_t i = r % seq;
        starts[r] = i == 0 || !c.documents ? 0 : below(std::max(2, c.seq / 3)) == 0 ? (int)i : starts[r - 1];
    }
    Tensor tq(n * qw, c.half), tk(n * kw, c.half), tv(n * kw, c.half), tdo(n * qw, c.half), ts(n, false);
    tq.set(q), tk.set(k), tv.set(v), tdo.set(dout), ts.set(starts);

    // The definition, with the sums of absolute terms that errors are measured by.
    Tensor to(n * qw, c.half), tdq(n * qw, c.half), tdk(n * kw, c.half), tdv(n * kw, c.half);
    Numbers out = to.numbers(), dq = tdq.numbers(), dk = tdk.numbers(), dv = tdv.numbers();
    Numbers out_size(n * qw), dq_size(n * qw), dk_size(n * kw), dv_size(n * kw), lse(n * heads), delta(n * heads), lse_size(n * heads, 1);
    for (size_t i = 0; i < n * kw; i++)
        if (i % kw < kvs * d) dk[i] = dv[i] = 0;
    for (size_t b = 0; b < batch; b++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < seq; i++) {
                const size_t r = b * seq + i, at = r * qw + h * d, s = (b * heads + h) * seq + i;
                auto key = [&](size_t j) { return (b * seq + j) * kw + h / (heads / kvs) * d; };
                const size_t from = (size_t)starts[r];
                Numbers p(i + 1), dp(i + 1), dp_size(i + 1);
                double top = -INFINITY, sum = 0, terms = 0;
                for (size_t j = from; j <= i; j++) {
                    double t = 0;
                    for (size_t x = 0; x < d; x++) {
                        p[j] += q[at + x] * k[key(j) + x] * scale, t += fabs(q[at + x] * k[key(j) + x]) * scale;
                        dp[j] += dout[at + x] * v[key(j) + x], dp_size[j] += fabs(dout[at + x] * v[key(j) + x]);
                    }
                    top = std::max(top, p[j]), terms = std::max(terms, t);
                }
                for (size_t j = from; j <= i; j++) sum += exp(p[j] - top);
                lse[s] = top + log(sum), lse_size[s] += terms;
                double mean = 0, mean_size = 0;
                for (size_t j = from; j <= i; j++) {
                    p[j] = exp(p[j] - lse[s]);
                    mean += p[j] * dp[j], mean_size += p[j] * dp_size[j];
                }
                for (size_t x = 0; x < d; x++) {
                    out[at + x] = dq[at + x] = 0;
                    for (size_t j = from; j <= i; j++) {
                        const double ds = p[j] * (dp[j] - mean) * scale, ds_size = p[j] * (dp_size[j] + mean_size) * scale * (1 + terms);
                        out[at + x] += p[j] * v[key(j) + x], out_size[at + x] += p[j] * fabs(v[key(j) + x]) * (1 + terms);
                        dq[at + x] += ds * k[key(j) + x], dq_size[at + x] += ds_size * fabs(k[key(j) + x]);
                        dk[key(j) + x] += ds * q[at + x], dk_size[key(j) + x] += ds_size * fabs(q[at + x]);
                        dv[key(j) + x] += p[j] * dout[at + x], dv_size[key(j) + x] += p[j] * fabs(dout[at + x]) * (1 + terms);
                    }
                }
                delta[s] = mean;
            }
    // Rounding the result, and the probabilities before their products, to bf16.
    const double allowed = c.half ? 3 * 0x1p-8 : 2e-5;

    Tensor spans(batch * pieces(seq, MEAP_SPAN) * 2, false), tl(n * heads, false), tdelta(n * heads, false);
    launch("attention_spans", AttentionSpansArgs{ts, spans, c.batch, c.seq}, pieces(seq, MEAP_SPAN), (unsigned)c.batch, 1, MEAP_SPAN);
    Ints ends;
    for (size_t b = 0; b < batch; b++)
        for (size_t i = 0; i < seq; i += MEAP_SPAN) {
            const auto from = starts.begin() + (long)(b * seq + i), to = starts.begin() + (long)(b * seq + std::min(seq, i + MEAP_SPAN));
            ends.push_back(*std::min_element(from, to)), ends.push_back(*std::max_element(from, to));
        }
    equal("spans", spans.ints(), ends);

    // How a kernel is launched: by tiles of so many queries or keys.
    struct Launch { size_t tile; unsigned threads, shared; };
    auto on = [&](size_t tile64, size_t tile128, size_t sm90, unsigned shared, unsigned shared_sm90, unsigned general) {
        if (!tensor) return Launch{(size_t)general_tile(c), MEAP_GENERAL_THREADS, general};
        if (c.sm90) return Launch{sm90, (unsigned)MEAP_SM90_THREADS(sm90), shared_sm90};
        return Launch{d == 64 ? tile64 : tile128, MEAP_TENSOR_THREADS, shared};
    };
    const unsigned general_grad = MEAP_GENERAL_GRAD_SHARED(general_tile(c), c.dim);
    const Launch forward = on(MEAP_FORWARD_TILE_64, MEAP_FORWARD_TILE_128, MEAP_FORWARD_TILE_SM90, MEAP_FORWARD_SHARED(c.dim), MEAP_FORWARD_SHARED_SM90,
                              MEAP_GENERAL_FORWARD_SHARED(general_tile(c), c.dim));
    launch("attention" + family(c), AttentionArgs{tq, tk, tv, ts, spans, to, tl, (long long)qw, (long long)kw, c.batch, c.seq, c.heads, c.kv_heads, c.dim, (float)scale},
           (unsigned)(c.heads * c.batch), pieces(seq, forward.tile), 1, forward.threads, forward.shared);
    compare("out", to.numbers(), out, allowed, &out_size);
    compare("lse", tl.numbers(), lse, 2e-6, &lse_size);

    // The gradient starts from the rounded output, as it does in training.
    Numbers delta_size(n * heads, (double)d);
    launch(std::string("attention_delta") + suffix(c.half), AttentionDeltaArgs{to, tdo, tdelta, (long long)qw, c.batch, c.seq, c.heads, c.dim}, 
           (unsigned)(c.heads * c.batch), pieces(seq, MEAP_DELTA_TILE), 1, 256);
    compare("delta", tdelta.numbers(), delta, c.half ? 2 * 0x1p-8 : 1e-5, &delta_size);
    tl.set(lse), tdelta.set(delta);
    AttentionGradArgs a{tq, tk, tv, tdo, tl, tdelta, ts, spans, tdq, tdk, tdv, (long long)qw, (long long)kw, c.batch, c.seq, c.heads, c.kv_heads, c.dim, (float)scale};
    const Launch grad_q = on(MEAP_GRAD_Q_TILE_64, MEAP_GRAD_Q_TILE_128, MEAP_GRAD_Q_TILE_SM90, MEAP_GRAD_Q_SHARED(c.dim), MEAP_GRAD_Q_SHARED_SM90, general_grad);
    launch("attention_grad_q" + family(c), a, (unsigned)(c.heads * c.batch), pieces(seq, grad_q.tile), 1, grad_q.threads, grad_q.shared);
    compare("dq", tdq.numbers(), dq, allowed, &dq_size);
    const Launch grad_kv = on(MEAP_GRAD_KV_TILE_64, MEAP_GRAD_KV_TILE_128, MEAP_GRAD_KV_TILE_SM90, MEAP_GRAD_KV_SHARED(c.dim), MEAP_GRAD_KV_SHARED_SM90, general_grad);
    launch("attention_grad_kv" + family(c), a, (unsigned)(c.kv_heads * c.batch), pieces(seq, grad_kv.tile), 1, grad_kv.threads, grad_kv.shared);
    compare("dk", tdk.numbers(), dk, allowed, &dk_size);
    compare("dv", tdv.numbers(), dv, allowed, &dv_size);
}

void test_attention() {
    for (bool half : {false, true})
        for (bool documents : {false, true}) {
            for (int dim : {64, 128}) {
                attention({1, 1, 1, 1, dim, half, documents});
                attention({2, 65, 4, 2, dim, half, documents});
                attention({1, 200, 3, 1, dim, half, documents, 8});
                attention({1, 130, 2, 2, dim, half, documents});
                attention({1, 300, 1, 1, dim, half, documents});
            }
            attention({1, 17, 2, 1, 2, half, documents});
            attention({2, 33, 6, 2, 10, half, documents, 3});
            attention({1, 70, 2, 1, 80, half, documents});
            attention({2, 35, 2, 1, 136, half, documents});
            attention({1, 40, 1, 1, 256, half, documents});
        }
    for (bool documents : {false, true}) {
        attention({1, 1, 1, 1, 64, true, documents, 0, 1, true});
        attention({2, 65, 4, 2, 64, true, documents, 0, 1, true});
        attention({1, 200, 3, 1, 64, true, documents, 8, 1, true});
        attention({1, 130, 2, 2, 64, true, documents, 0, 1, true});
        attention({1, 700, 2, 1, 64, true, documents, 0, 1, true}); // more tiles than stages
    }
    attention({1, 100, 2, 1, 64, true, false, 0, 8, true});
    // Scores up to some hundreds: one key takes all the weight.
    attention({1, 100, 2, 1, 64, false, false, 0, 8});
    attention({1, 100, 2, 1, 64, true, false, 0, 8});
}

static void cached(const Case &c, int capacity, const Ints &past) {
    where = "cached " + name_of(c);
    const bool tensor = tensor_cores(c);
    const size_t d = (size_t)c.dim, seq = (size_t)c.seq, heads = (size_t)c.heads, kvs = (size_t)c.kv_heads, batch = (size_t)c.batch, group = heads / kvs;
    const size_t n = batch * seq * heads * d, all = batch * (size_t)capacity * kvs * d;
    const double scale = 1 / sqrt((double)d);
    Numbers q = random(n, c.scale), k = random(all, c.scale), v = random(all), out(n), size(n);
    for (size_t b = 0; b < batch; b++) // what lies behind the new tokens is nobody's business
        for (size_t i = (b * (size_t)capacity + (size_t)past[b] + seq) * kvs * d; i < (b + 1) * (size_t)capacity * kvs * d; i++) k[i] = v[i] = NAN;
    Tensor tq(n, c.half), tk(all, c.half), tv(all, c.half), tp(batch, false), to(n, c.half);
    tq.set(q), tk.set(k), tv.set(v), tp.set(past);
    for (size_t b = 0; b < batch; b++)
        for (size_t i = 0; i < seq; i++)
            for (size_t h = 0; h < heads; h++) {
                const size_t at = ((b * seq + i) * heads + h) * d, keys = (size_t)past[b] + i + 1;
                auto key = [&](size_t j) { return ((b * (size_t)capacity + j) * kvs + h / group) * d; };
                Numbers p(keys);
                double top = -INFINITY, sum = 0, terms = 0;
                for (size_t j = 0; j < keys; j++) {
                    double t = 0;
                    for (size_t x = 0; x < d; x++) p[j] += q[at + x] * k[key(j) + x] * scale, t += fabs(q[at + x] * k[key(j) + x]) * scale;
                    top = std::max(top, p[j]), terms = std::max(terms, t);
                }
                for (double &x : p) sum += x = exp(x - top);
                for (size_t j = 0; j < keys; j++)
                    for (size_t x = 0; x < d; x++) out[at + x] += p[j] / sum * v[key(j) + x], size[at + x] += p[j] / sum * fabs(v[key(j) + x]) * (1 + terms);
            }
    const double allowed = c.half ? 3 * 0x1p-8 : 2e-5;
    CachedAttentionArgs a{tq, tk, tv, tp, to, nullptr, c.batch, c.seq, c.heads, c.kv_heads, c.dim, capacity, 1, (float)scale};
    if (!tensor) {
        launch("cached_attention" + family(c), a, (unsigned)(c.heads * c.batch), pieces(seq, (size_t)general_tile(c)), 1, MEAP_GENERAL_THREADS,
               MEAP_GENERAL_FORWARD_SHARED(general_tile(c), c.dim));
        compare("out", to.numbers(), out, allowed, &size);
        return;
    }
    launch("cached_attention" + family(c), a, (unsigned)(c.kv_heads * c.batch), pieces(seq * group, 64), 1, MEAP_TENSOR_THREADS, MEAP_CACHED_SHARED(c.dim));
    compare("out", to.numbers(), out, allowed, &size);
    a.splits = (int)pieces((size_t)*std::max_element(past.begin(), past.end()) + seq, 64);
    if (a.splits == 1) return;
    Tensor partial((size_t)a.splits * batch * heads * seq * (d + 2), false), split(n, true);
    a.partial = partial, a.out = split;
    launch("cached_attention" + family(c), a, (unsigned)(c.kv_heads * c.batch), pieces(seq * group, 64), (unsigned)a.splits, MEAP_TENSOR_THREADS, MEAP_CACHED_SHARED(c.dim));
    launch("cached_attention_merge_bf16", a, (unsigned)(batch * heads * seq), 1, 1, 64);
    compare("the same in splits", split.numbers(), to.numbers(), 0);
}

void test_cached_attention() {
    for (bool half : {false, true}) {
        for (int dim : {64, 128, 24, 160}) {
            cached({1, 1, 1, 1, dim, half, false}, 1, {0});
            cached({3, 1, 8, 2, dim, half, false}, 200, {0, 199, 63});
            cached({2, 5, 3, 3, dim, half, false}, 140, {64, 130});
            cached({1, 70, 4, 1, dim, half, false}, 150, {77});
        }
    }
}
