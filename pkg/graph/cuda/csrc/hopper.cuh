// What only compute capability 9.0 has: products of a warpgroup (four warps) whose right operand stays in shared memory, and barriers
// that threads arrive at without waiting. The code of these kernels is for sm_90a alone.
#ifndef MEAP_HOPPER_CUH
#define MEAP_HOPPER_CUH

#include "attention.cuh"

typedef unsigned long long u64;

// uniform says that a warp's lanes all have the same x, so that the compiler may keep it, and what follows from it, once for the warp.
MEAP_DEVICE int uniform(int x) { return __shfl_sync(MEAP_ALL_LANES, x, 0); }

// Operand is the right operand of a product: 64 rows of 64 elements in shared memory, permuted as piece<64> has them and aligned to 1024
// bytes; or a part of such a tile, `elems` elements behind its begin. On the GPU it is the lower half of a matrix descriptor.
#ifdef MEAP_EMULATE
typedef const bf16 *Operand;
MEAP_DEVICE Operand operand(const bf16 *tile) { return tile; }
MEAP_DEVICE Operand behind(Operand o, int elems) { return o + elems; }
#else
typedef u32 Operand;
MEAP_DEVICE Operand operand(const bf16 *tile) { return (u32)__cvta_generic_to_shared(tile) >> 4 | 1 << 16; }
MEAP_DEVICE Operand behind(Operand o, int elems) { return o + elems / 8; }
#endif

// wgmma starts adding to c [64, 64] the product of a [64, 16] and b [16, 64]; without `add`, c is overwritten. The warpgroup's warp w
// has the rows 16 w.. of a and c, spread over its lanes as mma has them: c[n] are columns 8 n... A tile's rows are b's columns, and b
// begins at their element 16 k; or, transposed, a tile's rows are b's rows, and b begins at row 16 k.
template <bool TRANSPOSED>
MEAP_DEVICE void wgmma(float c[8][4], const u32 a[4], Operand b, bool add) {
#ifdef MEAP_EMULATE
    emu::wgmma_m64n64k16_bf16(&c[0][0], a, b, add, TRANSPOSED);
#else
    // The upper half of the descriptor: groups of eight rows are 64 times 16 bytes apart; the permutation is the one over 128 bytes.
    asm volatile(
        "{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, %37, 0;\nmov.b64 b, {%36, 0x40000040};\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, b, p, 1, 1, %38;\n}"
        : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]),
          "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]),
          "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]),
          "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"((int)add), "n"(TRANSPOSED));
#endif
}

// wgmma_fence comes before products whose registers were last written by something else; wgmma_commit closes a group of them.
MEAP_DEVICE void wgmma_fence() {
#ifndef MEAP_EMULATE
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
MEAP_DEVICE void wgmma_commit() {
#ifndef MEAP_EMULATE
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// wgmma_wait waits until at most `pending` groups are under way.
template <int pending>
MEAP_DEVICE void wgmma_wait() {
#ifndef MEAP_EMULATE
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
#endif
}

// pin keeps the compiler from moving what reads or computes c from one side of this place to the other: products under way, and waits for
// them, are not in its sight.
MEAP_DEVICE void pin(float c[8][4]) {
#ifndef MEAP_EMULATE
#pragma unroll
    for (int n = 0; n < 8; n++) asm volatile("" : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])::"memory");
#endif
}

MEAP_DEVICE void zero(float c[8][4]) {
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) c[n][i] = 0.0f;
}

// A product over the 64 elements of a tile's rows: c = a bᵀ for the tile's rows b.
MEAP_DEVICE void times_rows(float c[8][4], const u32 a[4][4], Operand tile) {
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma<false>(c, a[k], behind(tile, 16 * k), k > 0);
}

// A product over a tile's 64 rows: c += a tile.
MEAP_DEVICE void add_times(float c[8][4], const u32 a[4][4], Operand tile) {
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma<true>(c, a[k], behind(tile, 16 * 64 * k), true);
}

// left64 packs results as the left operand of a product over their columns.
MEAP_DEVICE void left64(u32 a[4][4], const float c[8][4]) {
#pragma unroll
    for (int k = 0; k < 4; k++) left(a[k], c[2 * k], c[2 * k + 1]);
}

// read_left reads a warp's 16 rows of x as a left operand from global memory; zeros from row `limit` on.
MEAP_DEVICE void read_left(u32 a[4][4], const bf16 *x, long long stride, int row, int limit) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const bf16 *p = x + (row + g) * stride + 2 * t;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = row + g + i % 2 * 8 < limit ? *(const u32 *)(p + i % 2 * 8 * stride + 16 * k + i / 2 * 8) : 0;
}

// A barrier in shared memory completes a phase when `count` threads have arrived. The first phase has parity 0.
MEAP_DEVICE void barrier_init(u64 *barrier, int count) {
#ifdef MEAP_EMULATE
    emu::mbarrier_init(barrier, count);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"((u32)__cvta_generic_to_shared(barrier)), "r"(count) : "memory");
#endif
}
MEAP_DEVICE void barrier_arrive(u64 *barrier) {
#ifdef MEAP_EMULATE
    emu::mbarrier_arrive(barrier);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"((u32)__cvta_generic_to_shared(barrier)) : "memory");
#endif
}

// barrier_wait waits for the end of the phase of that parity.
MEAP_DEVICE void barrier_wait(u64 *barrier, int parity) {
#ifdef MEAP_EMULATE
    emu::mbarrier_wait(barrier, parity);
#else
    asm volatile(
        "{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra over;\nbra again;\nover:\n}" ::"r"(
            (u32)__cvta_generic_to_shared(barrier)),
        "r"(parity)
        : "memory");
#endif
}

// A block has W warpgroups that compute, and a last one that copies tiles for them, STAGES at a time. `full` and `empty` tell one side
// what the other has done; tiles are counted, and tile i is in stage i % STAGES.
enum { STAGES = 8, STAGE_ELEMS = 2 * 64 * 64, LAG = 2 };

struct Pipe {
    u64 *full, *empty;
};

// pipe_open has room for its barriers behind `at`; every thread of the block calls it.
template <int W>
MEAP_DEVICE Pipe pipe_open(void *at) {
    Pipe p = {(u64 *)at, (u64 *)at + STAGES};
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) barrier_init(p.full + i, 128), barrier_init(p.empty + i, 4 * W);
    }
    __syncthreads();
    return p;
}

// The copying warpgroup: pipe_room waits until tile i may be copied; pipe_copied, after its copies were started, closes their group and
// hands over the tile LAG before it; pipe_close hands over the last ones of n.
MEAP_DEVICE void pipe_room(const Pipe &p, int i) {
    if (i >= STAGES) barrier_wait(p.empty + i % STAGES, (i / STAGES - 1) & 1);
}
MEAP_DEVICE void pipe_hand_over(const Pipe &p, int i) {
#ifndef MEAP_EMULATE
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); // wgmma reads by another path than the copies were written
#endif
    barrier_arrive(p.full + i % STAGES);
}
MEAP_DEVICE void pipe_copied(const Pipe &p, int i) {
    copy_commit();
    if (i >= LAG) copy_wait<LAG>(), pipe_hand_over(p, i - LAG);
}
MEAP_DEVICE void pipe_close(const Pipe &p, int n) {
    copy_wait<0>();
    for (int i = max(0, n - LAG); i < n; i++) pipe_hand_over(p, i);
}

// The computing warps: pipe_wait waits for tile i, pipe_done gives its place back.
MEAP_DEVICE void pipe_wait(const Pipe &p, int i) { barrier_wait(p.full + i % STAGES, i / STAGES & 1); }
MEAP_DEVICE void pipe_done(const Pipe &p, int i) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(p.empty + i % STAGES);
}

// pipe_leave gives back the last of a warp's tiles, of which the block may have more, and those that are not for it.
MEAP_DEVICE void pipe_leave(const Pipe &p, int mine, int tiles) {
    for (int i = max(0, mine - 1); i < tiles; i++) {
        if (i >= mine) pipe_wait(p, i);
        pipe_done(p, i);
    }
}

// copy_tile starts copying 64 rows first.. of x to a tile, by one warpgroup; zeros from row `limit` on.
MEAP_DEVICE void copy_tile(bf16 *tile, const bf16 *x, long long stride, int first, int limit) {
    const int index = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 64; i += 16) {
        const int row = i + threadIdx.x % 128 / 8;
        copy16(piece<64>(tile, row, index), x + (first + row) * stride + index * 8, first + row < limit);
    }
}

// A multiprocessor has 65536 registers. The launch bounds give each thread the same share; then the warpgroup that copies gives most of its
// own back, and the W that compute take them.
template <int W>
MEAP_DEVICE void give_registers() {
#ifndef MEAP_EMULATE
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(W == 3 ? 32 : 40));
#endif
}
template <int W>
MEAP_DEVICE void take_registers() {
#ifndef MEAP_EMULATE
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(W == 3 ? 160 : 232));
#endif
}

#endif
