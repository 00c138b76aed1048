#include "harness.h"

#include <algorithm>

static void lookup(size_t n, int vocab, size_t dim, bool from, bool to) {
    where = "embedding of " + std::to_string(n) + " in " + std::to_string(vocab) + "x" + std::to_string(dim) + suffix(from) + suffix(to);
    Numbers table = random((size_t)vocab * dim), want(n * dim);
    Ints ids(n);
    for (auto &id : ids) id = below(vocab);
    if (n > 4) ids[1] = -1, ids[2] = vocab;
    Tensor tt(table.size(), from), ti(n, false), y(n * dim, to);
    tt.set(table), ti.set(ids);
    for (size_t i = 0; i < want.size(); i++) {
        const int id = ids[i / dim];
        want[i] = id < 0 || id >= vocab ? NAN : table[(size_t)id * dim + i % dim];
        if (to) want[i] = from_bf16(to_bf16(want[i]));
    }
    launch_elements(std::string("embedding") + suffix(from) + (from == to ? "" : suffix(to)), EmbeddingArgs{tt, ti, y, (long long)n, vocab, (int)dim}, n * dim);
    compare("y", y.numbers(), want, 0);
}

static void gradient(const Ints &ids, int vocab, size_t dim, bool half) {
    const size_t n = ids.size();
    where = "embedding_grad of " + std::to_string(n) + " in " + std::to_string(vocab) + "x" + std::to_string(dim) + suffix(half);
    Ints sorted, order(n);
    for (size_t i = 0; i < n; i++) order[i] = (int)i;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return ids[(size_t)a] < ids[(size_t)b]; });
    for (int i : order) sorted.push_back(ids[(size_t)i]);
    const unsigned blocks = pieces(n, MEAP_SORT_TILE);
    Tensor ti(n, false), counts((1 << MEAP_SORT_BITS) * blocks, false), k0(n, false), k1(n, false), t0(n, false), t1(n, false);
    ti.set(ids);
    SortArgs a{ti, nullptr, k0, t0, counts, (int)n, 0, (int)blocks};
    do {
        launch("sort_count", a, blocks, 1, 1, 256);
        launch("sort_scan", a, 1, 1, 1, 1024);
        launch("sort_scatter", a, blocks, 1, 1, 256);
        const bool odd = a.keys_out == (int *)k1;
        a.keys_in = odd ? k1 : k0, a.tokens_in = odd ? t1 : t0, a.keys_out = odd ? k0 : k1, a.tokens_out = odd ? t0 : t1;
        a.shift += MEAP_SORT_BITS;
    } while ((vocab - 1) >> a.shift);
    const bool last = a.keys_in == (int *)k1;
    equal("ids", (last ? k1 : k0).ints(), sorted);
    equal("tokens", (last ? t1 : t0).ints(), order);

    Numbers dy = random(n * dim), table = random((size_t)vocab * dim), size = table;
    Tensor td(n * dim, half), tt(table.size(), false);
    td.set(dy), tt.set(table);
    for (auto &v : size) v = fabs(v);
    for (size_t i = 0; i < n * dim; i++) {
        const size_t to = (size_t)ids[i / dim] * dim + i % dim;
        table[to] += dy[i], size[to] += fabs(dy[i]);
    }
    launch(std::string("embedding_grad") + suffix(half), EmbeddingGradArgs{td, a.keys_in, a.tokens_in, tt, (int)n, vocab, (int)dim}, 
           pieces(n, MEAP_FEW_PLACES) * pieces(dim, 256) + pieces(n, 8), 1, 1, 256);
    compare("dtable", tt.numbers(), table, 1e-5, &size);
}

// common is a share of the ids in percent that are all the same, as [MASK] is.
static void gradient(size_t n, int vocab, size_t dim, bool half, int common) {
    Ints ids(n);
    for (auto &id : ids) id = below(100) < common ? vocab / 2 : below(vocab);
    gradient(ids, vocab, dim, half);
}

void test_embedding() {
    Ints once_to_often; // each id once more than the one before
    for (int id = 0; id < 70; id++)
        for (int i = 0; i <= id; i++) once_to_often.push_back((id * 31) % 70);
    for (bool half : {false, true}) gradient(once_to_often, 70, 40, half);

    for (size_t dim : {1, 7, 64, 300}) lookup(9, 11, dim, false, false), lookup(9, 11, dim, true, true), lookup(9, 11, dim, false, true);
    lookup(1, 1, 8, true, true);
    for (bool half : {false, true}) {
        gradient(1, 1, 1, half, 0), gradient(129, 2, 64, half, 0), gradient(65, 259, 33, half, 30), gradient(2500, 70000, 3, half, 15);
        gradient(1025, 300, 264, half, 50);
    }
}
