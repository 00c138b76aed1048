// Attention with heads of 64 elements on compute capability 9.0. The algorithms are those of attention_forward.cu and
// attention_backward.cu; a warpgroup has 64 queries, or keys, as the left operands of its products, in registers, and the tiles that
// go by are right operands. Warpgroups do not wait for each other, so that one computes exponentials while another multiplies.
#include "hopper.cuh"

// copy_keys copies tiles of 64 keys of a kv head, and their values, from key `begin` on.
template <typename Args>
MEAP_DEVICE void copy_keys(const Args &a, const Pipe &pipe, bf16 *stages, int b, int kv, int begin, int tiles) {
    const long long kv_rows = (long long)b * a.seq * a.kv_stride + kv * 64;
    for (int i = 0; i < tiles; i++) {
        bf16 *stage = stages + i % STAGES * STAGE_ELEMS;
        pipe_room(pipe, i);
        copy_tile(stage, (const bf16 *)a.k + kv_rows, a.kv_stride, begin + 64 * i, a.seq);
        copy_tile(stage + 64 * 64, (const bf16 *)a.v + kv_rows, a.kv_stride, begin + 64 * i, a.seq);
        pipe_copied(pipe, i);
    }
    pipe_close(pipe, tiles);
}

// W warpgroups of 64 queries of one head. Tiles are 64 keys and their values.
template <int W>
MEAP_DEVICE void attention_wg(const AttentionArgs &a) {
    MEAP_DYN_SHARED(bf16, shared);
    const int TILE = 64 * W, warp = uniform(threadIdx.x / 32);
    const int h = blockIdx.x % a.heads, b = blockIdx.x / a.heads, first = (gridDim.y - 1 - blockIdx.y) * TILE;
    const int end = min(first + TILE, a.seq);
    const Span span = span_of(a.spans, b, a.seq, first, TILE);
    const int begin = uniform(span.least / 64 * 64), tiles = (end - begin + 63) / 64;
    const Pipe pipe = pipe_open<W>(shared + STAGES * STAGE_ELEMS);
    if (warp >= 4 * W) {
        give_registers<W>();
        copy_keys(a, pipe, shared, b, h / (a.heads / a.kv_heads), begin, tiles);
        return;
    }
    take_registers<W>();

    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = first + 16 * warp, last = first + 64 * (warp / 4) + 63;
    const int mine = max(0, min(tiles, (last - begin) / 64 + 1)); // the tiles that this warpgroup's queries may see
    const long long q_rows = (long long)b * a.seq * a.q_stride + h * 64;
    u32 qa[4][4], p[4][4];
    read_left(qa, (const bf16 *)a.q + q_rows, a.q_stride, row, a.seq);
    int from[2];
    float o[8][4], s[8][4], top[2] = {-MEAP_INFINITY, -MEAP_INFINITY}, sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 2; i++) from[i] = row + g + 8 * i < a.seq ? a.starts[(long long)b * a.seq + row + g + 8 * i] : 0;
    zero(o);
    const float scale2 = a.scale * MEAP_LOG2E;
    const Operand tiles_at = operand(shared);
    // Scores of tile i become probabilities; what was summed before is `old` times as much relative to the new top.
    float old[2];
    auto probabilities = [&](int i) {
        const int key = begin + 64 * i;
        if (key + 63 > row || key < span.greatest) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const int c = key + 8 * n + 2 * t + (j & 1), r = row + g + 8 * (j >> 1);
                    if (c > r || c < from[j >> 1]) s[n][j] = -MEAP_INFINITY;
                }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float best = top[r], more = 0.0f;
#pragma unroll
            for (int n = 0; n < 8; n++) best = fmaxf(best, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
            best = quad_max(best);
            // Before its first visible key a query's best is minus infinity, whose difference to itself is no number.
            const float base = best == -MEAP_INFINITY ? 0.0f : best * scale2;
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int j = 2 * r; j < 2 * r + 2; j++) {
                    s[n][j] = exp2_fast(s[n][j] * scale2 - base);
                    more += s[n][j];
                }
            old[r] = exp2_fast(top[r] * scale2 - base);
            sum[r] = sum[r] * old[r] + more, top[r] = best;
        }
    };
    pipe_wait(pipe, 0);
    wgmma_fence();
    times_rows(s, qa, tiles_at);
    wgmma_commit();
    wgmma_wait<0>();
    pin(s);
    probabilities(0);
    left64(p, s);
    for (int i = 1; i < mine; i++) {
        // The product with the values of the tile before is under way while this tile's scores become probabilities.
        pipe_wait(pipe, i);
        wgmma_fence();
        times_rows(s, qa, behind(tiles_at, i % STAGES * STAGE_ELEMS));
        wgmma_commit();
        add_times(o, p, behind(tiles_at, (i - 1) % STAGES * STAGE_ELEMS + 64 * 64));
        wgmma_commit();
        wgmma_wait<1>();
        pin(s);
        probabilities(i);
        pin(s);
        wgmma_wait<0>();
        pin(o);
        pipe_done(pipe, i - 1);
        if (__any_sync(MEAP_ALL_LANES, old[0] < 1.0f || old[1] < 1.0f)) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) o[n][j] *= old[j >> 1];
        }
        left64(p, s);
    }
    wgmma_fence();
    add_times(o, p, behind(tiles_at, (mine - 1) % STAGES * STAGE_ELEMS + 64 * 64));
    wgmma_commit();
    wgmma_wait<0>();
    pin(o);
    pipe_leave(pipe, mine, tiles);
    float share[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float all = quad_sum(sum[i]);
        const int r = row + g + 8 * i;
        share[i] = 1.0f / all;
        if (t == 0 && r < a.seq) a.lse[((long long)b * a.heads + h) * a.seq + r] = top[i] * a.scale + logf(all);
    }
    store_rows<64>((bf16 *)a.out + q_rows, a.q_stride, row, a.seq, o, share[0], share[1]);
}

// As attention_wg: dq.
template <int W>
MEAP_DEVICE void attention_grad_q_wg(const AttentionGradArgs &a) {
    MEAP_DYN_SHARED(bf16, shared);
    const int TILE = 64 * W, warp = uniform(threadIdx.x / 32);
    const int h = blockIdx.x % a.heads, b = blockIdx.x / a.heads, first = (gridDim.y - 1 - blockIdx.y) * TILE;
    const int end = min(first + TILE, a.seq);
    const Span span = span_of(a.spans, b, a.seq, first, TILE);
    const int begin = uniform(span.least / 64 * 64), tiles = (end - begin + 63) / 64;
    const Pipe pipe = pipe_open<W>(shared + STAGES * STAGE_ELEMS);
    if (warp >= 4 * W) {
        give_registers<W>();
        copy_keys(a, pipe, shared, b, h / (a.heads / a.kv_heads), begin, tiles);
        return;
    }
    take_registers<W>();

    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = first + 16 * warp, last = first + 64 * (warp / 4) + 63;
    const int mine = max(0, min(tiles, (last - begin) / 64 + 1));
    const long long q_rows = (long long)b * a.seq * a.q_stride + h * 64;
    u32 qa[4][4], doa[4][4], ds[4][4];
    read_left(qa, (const bf16 *)a.q + q_rows, a.q_stride, row, a.seq);
    read_left(doa, (const bf16 *)a.dout + q_rows, a.q_stride, row, a.seq);
    int from[2];
    float dq[8][4], s[8][4], dp[8][4], lse2[2], delta[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = row + g + 8 * i;
        const long long at = ((long long)b * a.heads + h) * a.seq + r;
        from[i] = r < a.seq ? a.starts[(long long)b * a.seq + r] : 0;
        lse2[i] = r < a.seq ? a.lse[at] * MEAP_LOG2E : 0.0f, delta[i] = r < a.seq ? a.delta[at] : 0.0f;
    }
    zero(dq);
    const float scale2 = a.scale * MEAP_LOG2E;
    const Operand tiles_at = operand(shared);
    // Scores of tile i become probabilities, and those, with dp, the scores' gradients.
    auto probabilities = [&](int i) {
        const int key = begin + 64 * i;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) s[n][j] = exp2_fast(s[n][j] * scale2 - lse2[j >> 1]);
        if (key + 63 > row || key < span.greatest) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const int c = key + 8 * n + 2 * t + (j & 1), r = row + g + 8 * (j >> 1);
                    if (c > r || c < from[j >> 1]) s[n][j] = 0.0f;
                }
        }
    };
    auto gradients = [&]() {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) s[n][j] *= dp[n][j] - delta[j >> 1];
    };
    pipe_wait(pipe, 0);
    wgmma_fence();
    times_rows(s, qa, tiles_at);
    times_rows(dp, doa, behind(tiles_at, 64 * 64));
    wgmma_commit();
    wgmma_wait<0>();
    pin(s), pin(dp);
    probabilities(0);
    gradients();
    left64(ds, s);
    for (int i = 1; i < mine; i++) {
        // The product of the tile before is under way while this tile's scores become gradients.
        const Operand kt = behind(tiles_at, i % STAGES * STAGE_ELEMS);
        pipe_wait(pipe, i);
        wgmma_fence();
        times_rows(s, qa, kt);
        wgmma_commit();
        times_rows(dp, doa, behind(kt, 64 * 64));
        wgmma_commit();
        add_times(dq, ds, behind(tiles_at, (i - 1) % STAGES * STAGE_ELEMS));
        wgmma_commit();
        wgmma_wait<2>();
        pin(s);
        probabilities(i);
        pin(s);
        wgmma_wait<1>();
        pin(dp);
        gradients();
        pin(s);
        wgmma_wait<0>();
        pin(dq);
        pipe_done(pipe, i - 1);
        left64(ds, s);
    }
    wgmma_fence();
    add_times(dq, ds, behind(tiles_at, (mine - 1) % STAGES * STAGE_ELEMS));
    wgmma_commit();
    wgmma_wait<0>();
    pin(dq);
    pipe_leave(pipe, mine, tiles);
    store_rows<64>((bf16 *)a.dq + q_rows, a.q_stride, row, a.seq, dq, a.scale, a.scale);
}

// W warpgroups of 64 keys of one kv head go through the query heads that read it, and through their queries, in order; tiles are 64
// queries and their rows of dout. The products are those of the transposed matrices, keys by queries.
template <int W>
MEAP_DEVICE void attention_grad_kv_wg(const AttentionGradArgs &a) {
    MEAP_DYN_SHARED(bf16, shared);
    const int TILE = 64 * W, warp = uniform(threadIdx.x / 32);
    const int kv = blockIdx.x % a.kv_heads, b = blockIdx.x / a.kv_heads, first = blockIdx.y * TILE, group = a.heads / a.kv_heads;
    const int *span = a.spans + (long long)b * ((a.seq + MEAP_SPAN - 1) / MEAP_SPAN) * 2;
    float *lses = (float *)(shared + STAGES * STAGE_ELEMS), *deltas = lses + STAGES * 64;
    const Pipe pipe = pipe_open<W>(deltas + STAGES * 64);
    const int heads_end = (kv + 1) * group;
    bool documents = false; // some query begins behind the first key
    for (int i = first / MEAP_SPAN + threadIdx.x % 32; i < (a.seq + MEAP_SPAN - 1) / MEAP_SPAN; i += 32) documents = documents || span[2 * i + 1] > first;
    documents = __any_sync(MEAP_ALL_LANES, documents);
    // The next tile of which some query may see some of the keys, in h and query.
    auto advance = [&](int &h, int &query) {
        do {
            query += 64;
            if (query >= a.seq) query = first, h++;
        } while (documents && h < heads_end && span[query / MEAP_SPAN * 2] >= first + TILE);
    };

    if (warp >= 4 * W) {
        give_registers<W>();
        const int j = threadIdx.x % 64;
        int i = 0;
        for (int h = kv * group, query = first; h < heads_end; advance(h, query), i++) {
            const int stage = i % STAGES;
            const long long q_rows = (long long)b * a.seq * a.q_stride + h * 64, scalars = ((long long)b * a.heads + h) * a.seq + query;
            pipe_room(pipe, i);
            copy_tile(shared + stage * STAGE_ELEMS, (const bf16 *)a.q + q_rows, a.q_stride, query, a.seq);
            copy_tile(shared + stage * STAGE_ELEMS + 64 * 64, (const bf16 *)a.dout + q_rows, a.q_stride, query, a.seq);
            if (threadIdx.x % 128 < 64) copy4(lses + stage * 64 + j, a.lse + scalars + j, query + j < a.seq);
            else copy4(deltas + stage * 64 + j, a.delta + scalars + j, query + j < a.seq);
            pipe_copied(pipe, i);
        }
        pipe_close(pipe, i);
        return;
    }
    take_registers<W>();

    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = first + 16 * warp, group_row = first + 64 * (warp / 4);
    const long long kv_rows = (long long)b * a.seq * a.kv_stride + kv * 64;
    const int *starts = a.starts + (long long)b * a.seq;
    u32 ka[4][4], va[4][4];
    read_left(ka, (const bf16 *)a.k + kv_rows, a.kv_stride, row, a.seq);
    read_left(va, (const bf16 *)a.v + kv_rows, a.kv_stride, row, a.seq);
    float dk[8][4], dv[8][4];
    zero(dk), zero(dv);
    const float scale2 = a.scale * MEAP_LOG2E;
    const Operand tiles_at = operand(shared);
    float s[8][4], dp[8][4];
    u32 p[4][4], ds[4][4]; // of the tile before
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) p[i][j] = ds[i][j] = 0;
    int tile = 0, before = -1;
    for (int h = kv * group, query = first; h < heads_end; advance(h, query), tile++) {
        const int stage = tile % STAGES;
        pipe_wait(pipe, tile);
        if (query + 63 < group_row) { // these queries come before this warpgroup's keys
            pipe_done(pipe, tile);
            continue;
        }
        // The products with the tile before are under way while this tile's scores become gradients.
        const Operand qt = behind(tiles_at, stage * STAGE_ELEMS), q_before = before < 0 ? qt : behind(tiles_at, before % STAGES * STAGE_ELEMS);
        wgmma_fence();
        times_rows(s, ka, qt);
        wgmma_commit();
        times_rows(dp, va, behind(qt, 64 * 64));
        wgmma_commit();
        add_times(dv, p, behind(q_before, 64 * 64));
        add_times(dk, ds, q_before);
        wgmma_commit();
        wgmma_wait<2>();
        pin(s);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float2 lse = *(const float2 *)(lses + stage * 64 + 8 * n + 2 * t);
            const float lse2[2] = {lse.x * MEAP_LOG2E, lse.y * MEAP_LOG2E};
#pragma unroll
            for (int i = 0; i < 4; i++) s[n][i] = exp2_fast(s[n][i] * scale2 - lse2[i & 1]);
        }
        if (query < row + 15) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (row + g + 8 * (i >> 1) > query + 8 * n + 2 * t + (i & 1)) s[n][i] = 0.0f;
        }
        if (documents && span[query / MEAP_SPAN * 2 + 1] > row) { // some query begins behind this warp's first key
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int q = query + 8 * n + 2 * t + i, from = q < a.seq ? starts[q] : 0;
                    if (row + g < from) s[n][i] = 0.0f;
                    if (row + g + 8 < from) s[n][i + 2] = 0.0f;
                }
        }
        pin(s);
        wgmma_wait<1>();
        pin(dp);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float2 delta = *(const float2 *)(deltas + stage * 64 + 8 * n + 2 * t);
            const float deltas2[2] = {delta.x, delta.y};
#pragma unroll
            for (int i = 0; i < 4; i++) dp[n][i] = s[n][i] * (dp[n][i] - deltas2[i & 1]);
        }
        pin(dp);
        wgmma_wait<0>();
        pin(dv), pin(dk);
        if (before >= 0) pipe_done(pipe, before);
        left64(p, s), left64(ds, dp);
        before = tile;
    }
    const Operand q_before = behind(tiles_at, max(before, 0) % STAGES * STAGE_ELEMS);
    wgmma_fence();
    add_times(dv, p, behind(q_before, 64 * 64));
    add_times(dk, ds, q_before);
    wgmma_commit();
    wgmma_wait<0>();
    pin(dv), pin(dk);
    if (before >= 0) pipe_done(pipe, before);
    store_rows<64>((bf16 *)a.dk + kv_rows, a.kv_stride, row, a.seq, dk, a.scale, a.scale);
    store_rows<64>((bf16 *)a.dv + kv_rows, a.kv_stride, row, a.seq, dv, 1.0f, 1.0f);
}

extern "C" __global__ void __launch_bounds__(512, 1) meap_attention_bf16_64_sm90(const AttentionArgs a) { attention_wg<3>(a); }
extern "C" __global__ void __launch_bounds__(384, 1) meap_attention_grad_q_bf16_64_sm90(const AttentionGradArgs a) { attention_grad_q_wg<2>(a); }
extern "C" __global__ void __launch_bounds__(384, 1) meap_attention_grad_kv_bf16_64_sm90(const AttentionGradArgs a) { attention_grad_kv_wg<2>(a); }
