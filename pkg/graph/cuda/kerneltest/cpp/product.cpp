#include "harness.h"

// A product with both operands lying either way.
static void product(size_t m, size_t n, size_t k, bool a_turned, bool b_turned, bool plus, bool half, bool half_result) {
    const std::string name = std::string("product") + (half && !half_result ? "_bf16_f32" : suffix(half));
    where = name + " " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + (a_turned ? " a turned" : "") + (b_turned ? " b turned" : "");
    Numbers a = random(m * k), b = random(k * n), d = random(m * n), want(m * n), magnitude(m * n);
    Tensor ta(m * k, half), tb(k * n, half), tc(m * n, half_result), td(m * n, half_result);
    ta.set(a), tb.set(b), tc.set(d);
    const size_t a_row = a_turned ? 1 : k, a_column = a_turned ? m : 1, b_row = b_turned ? 1 : n, b_column = b_turned ? k : 1;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = plus ? d[i * n + j] : 0, size = fabs(sum);
            for (size_t p = 0; p < k; p++) {
                const double term = a[i * a_row + p * a_column] * b[p * b_row + j * b_column];
                sum += term, size += fabs(term);
            }
            want[i * n + j] = sum, magnitude[i * n + j] = half_result ? fabs(sum) + size * 0x1p-8 : size;
        }
    launch(name, ProductArgs{ta, tb, plus ? (const void *)tc : nullptr, td, (long long)a_row, (long long)a_column, (long long)b_row, (long long)b_column,
                             (int)m, (int)n, (int)k},
           pieces(n, MEAP_PRODUCT_TILE), pieces(m, MEAP_PRODUCT_TILE), 1, MEAP_BLOCK);
    compare("d", td.numbers(), want, unit(half_result), &magnitude);
}

void test_product() {
    const size_t sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {64, 64, 16}, {65, 63, 17}, {130, 7, 100}, {5, 129, 33}};
    for (auto &s : sizes)
        for (int turned = 0; turned < 4; turned++)
            for (int types = 0; types < 3; types++)
                for (bool plus : {false, true}) product(s[0], s[1], s[2], turned & 1, turned & 2, plus, types > 0, types > 1);
}
