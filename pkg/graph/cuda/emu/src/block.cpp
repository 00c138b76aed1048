// Blocks of fibers, and the threads that run them.
#include <atomic>
#include <condition_variable>
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "emu.h"
#include "launch.h"

namespace emu {

thread_local Fiber *self;

enum { READY, AT_COLLECTIVE, AT_BARRIER, AT_PHASE, DONE };
enum { MAX_THREADS = 1024, STACK = 256 << 10, SHARED_LIMIT = 232448, BAND = 256 };

// switch_stack saves what a callee must keep, and the stack pointer in *from, and goes on where `to` was saved.
extern "C" void meap_emu_switch(void **from, void *to);
#if defined(__x86_64__)
asm(R"(
.text
.globl meap_emu_switch
.hidden meap_emu_switch
.type meap_emu_switch,@function
meap_emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size meap_emu_switch,.-meap_emu_switch
)");
static void *first_frame(char *top, void (*entry)()) {
  void **sp = (void **)((uintptr_t)top & ~(uintptr_t)15);
  *--sp = nullptr; // entry's return address: there is none
  *--sp = (void *)entry;
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  return sp;
}
#elif defined(__aarch64__)
asm(R"(
.text
.globl meap_emu_switch
.hidden meap_emu_switch
.type meap_emu_switch,%function
meap_emu_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size meap_emu_switch,.-meap_emu_switch
)");
static void *first_frame(char *top, void (*entry)()) {
  char *sp = (char *)((uintptr_t)top & ~(uintptr_t)15) - 160;
  memset(sp, 0, 160);
  *(void **)(sp + 88) = (void *)entry;
  return sp;
}
#else
#error "the emulator switches fibers on x86-64 and arm64 only"
#endif

// Group is a collective some lanes of a warp wait for.
struct Group { const char *op; unsigned mask, arrived; };

struct Warp {
  unsigned live; // lanes that exist and have not returned
  unsigned ready;
  int ngroups;
  Group groups[32];
};

struct Declared { const void *key; char *at; unsigned long bytes; };

// Runner is a worker's place for one block at a time.
struct Runner : Block {
  Fiber fibers[MAX_THREADS];
  Warp warps[32];
  int nthreads = 0, nwarps = 0;
  char *stacks = nullptr;
  char *shared_memory = nullptr;
  unsigned dynamic = 0, used = 0;
  std::vector<Declared> declared;
  void *scheduler = nullptr;
  sigjmp_buf escape;
  char message[1024];
  const Kernel *kernel = nullptr;
  const void *args = nullptr;
  unsigned long long rng = 0;
  bool shuffled = false;

  Runner() {
    size_t n = (size_t)MAX_THREADS * STACK;
    stacks = (char *)mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) abort();
    for (int i = 0; i < MAX_THREADS; i++) mprotect(stacks + (size_t)i * STACK, 4096, PROT_NONE);
    shared_memory = (char *)aligned_alloc(1024, SHARED_LIMIT + 64 * BAND);
    for (auto &f : fibers) f.copies = nullptr, f.capacity = 0;
  }
  unsigned random(unsigned n) {
    rng += 0x9e3779b97f4a7c15ull;
    unsigned long long z = rng;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (unsigned)((z ^ z >> 31) % n);
  }
  bool run(unsigned x, unsigned y, unsigned z, const Geometry &g);
  void release();
  int next_lane(Warp &w);
};

static thread_local Runner *runner __attribute__((tls_model("initial-exec")));

void fail(const char *format, ...) {
  Runner *r = runner;
  int n = 0;
  if (self)
    n = snprintf(r->message, sizeof r->message, "%s, block (%u,%u,%u), thread (%u,%u,%u): ", r->kernel->name, r->index.x, r->index.y,
                 r->index.z, self->thread.x, self->thread.y, self->thread.z);
  else
    n = snprintf(r->message, sizeof r->message, "%s, block (%u,%u,%u): ", r->kernel->name, r->index.x, r->index.y, r->index.z);
  va_list ap;
  va_start(ap, format);
  vsnprintf(r->message + n, sizeof r->message - n, format, ap);
  va_end(ap);
  siglongjmp(r->escape, 1);
}

static void to(Fiber *f) {
  Fiber *from = self;
  self = f;
  meap_emu_switch(from ? &from->sp : &runner->scheduler, f ? f->sp : runner->scheduler);
}

// next_lane picks a lane that can run, the one after the running one unless lanes are shuffled; -1 if there is none.
int Runner::next_lane(Warp &w) {
  if (!w.ready) return -1;
  unsigned from = self ? (self->lane + 1) & 31 : 0;
  if (shuffled) from = random(32);
  unsigned rotated = from ? w.ready >> from | w.ready << (32 - from) : w.ready;
  return (int)((__builtin_ctz(rotated) + from) & 31);
}

// leave switches to another lane of the warp that can run, or else to the scheduler.
static void leave() {
  Runner *r = runner;
  Warp &w = r->warps[self->warp];
  w.ready &= ~(1u << self->lane);
  int lane = r->next_lane(w);
  to(lane < 0 ? nullptr : &r->fibers[self->warp * 32 + lane]);
}

static void entry() {
  runner->kernel->call(runner->args);
  Fiber *f = self;
  if (f->ngroups || f->ncopies) cp_async_wait_all();
  f->state = DONE;
  runner->warps[f->warp].live &= ~(1u << f->lane);
  leave();
  abort();
}

void barrier(int id, int threads, const char *file, int line) {
  Fiber *f = self;
  f->state = AT_BARRIER;
  f->barrier = id << 16 | threads;
  f->file = file;
  f->site = line;
  leave();
}

void collective(const char *op, unsigned mask, void *operand, Work work) {
  Fiber *f = self;
  Runner *r = runner;
  Warp &w = r->warps[f->warp];
  unsigned bit = 1u << f->lane;
  if (!(mask & bit)) fail("%s with a mask (%08x) that leaves the calling lane %u out", op, mask, f->lane);
  f->operand = operand;
  Group *g = nullptr;
  for (int i = 0; i < w.ngroups; i++)
    if (w.groups[i].mask == mask && !(w.groups[i].arrived & bit) && !strcmp(w.groups[i].op, op)) g = &w.groups[i];
  if (!g) {
    g = &w.groups[w.ngroups++];
    *g = {op, mask, 0};
  }
  g->arrived |= bit;
  // Lanes that the block never had are not waited for; lanes that have returned are missed.
  int in_warp = r->nthreads - (int)f->warp * 32;
  unsigned exist = in_warp >= 32 ? ~0u : (1u << in_warp) - 1;
  if (g->arrived == (mask & exist)) {
    void *all[32];
    for (int l = 0; l < 32; l++) all[l] = g->arrived >> l & 1 ? r->fibers[f->warp * 32 + l].operand : nullptr;
    unsigned arrived = g->arrived;
    *g = w.groups[--w.ngroups];
    work(all, mask);
    for (int l = 0; l < 32; l++)
      if (arrived >> l & 1) r->fibers[f->warp * 32 + l].state = READY;
    w.ready |= arrived;
    if (!r->shuffled) return;
    // Another lane may come first.
    int lane = r->next_lane(w);
    if (lane != (int)f->lane) to(&r->fibers[f->warp * 32 + lane]);
    return;
  }
  f->state = AT_COLLECTIVE;
  leave();
}

static void must_be_shared(const void *p, unsigned long n, const char *what) {
  Runner *r = runner;
  if ((const char *)p < r->shared_memory || (const char *)p + n > r->shared_memory + r->used)
    fail("%s at %p, outside of the block's shared memory", what, p);
}

struct MBarrier { unsigned short count, pending; unsigned phase; };

static MBarrier *mbarrier(const void *p) {
  must_be_shared(p, sizeof(MBarrier), "mbarrier");
  if ((uintptr_t)p & 7) fail("mbarrier at %p, which is not aligned to 8 bytes", p);
  return (MBarrier *)p;
}

void mbarrier_init(void *p, int count) {
  if (count < 1 || count > MAX_THREADS) fail("mbarrier for %d arrivals", count);
  *mbarrier(p) = {(unsigned short)count, (unsigned short)count, 0};
}

void mbarrier_arrive(void *p) {
  MBarrier *b = mbarrier(p);
  if (b->count == 0xffff) fail("arrival at an mbarrier that was not initialised"); // shared memory begins as 0xff
  if (--b->pending == 0) b->pending = b->count, b->phase++;
}

static bool phase_over(const void *p, int parity) { return (int)(((const MBarrier *)p)->phase & 1) != parity; }

void mbarrier_wait(void *p, int parity) {
  MBarrier *b = mbarrier(p);
  if (b->count == 0xffff) fail("wait at an mbarrier that was not initialised");
  while (!phase_over(p, parity)) {
    self->state = AT_PHASE, self->phased = p, self->parity = parity;
    leave();
  }
}

void *shared(const void *key, unsigned long bytes) {
  Runner *r = runner;
  for (auto &d : r->declared)
    if (d.key == key) return d.at;
  char *at = r->shared_memory + r->used;
  unsigned long padded = (bytes + 127) & ~127ul;
  if (r->used + padded + BAND > SHARED_LIMIT + 64 * BAND) fail("more shared memory than a multiprocessor has");
  unsigned long declared = bytes;
  for (auto &d : r->declared) declared += d.bytes;
  if (r->declared.size() > 0 && declared - r->dynamic > 49152) fail("%lu bytes of static shared memory; 49152 can be had", declared - r->dynamic);
  memset(at, 0xff, bytes); // NaN: shared memory holds anything when a block begins
  memset(at + bytes, 0xa5, padded - bytes + BAND);
  r->used += padded + BAND;
  r->declared.push_back({key, at, bytes});
  return at;
}

void *dynamic_shared() {
  if (!runner->dynamic) fail("dynamic shared memory is used, and none was asked for at the launch");
  return runner->shared_memory;
}

void Runner::release() {
  // Every thread has returned or waits at a barrier of either kind. One barrier at least must be complete.
  bool any = false, waiting = false;
  for (int i = 0; i < nthreads; i++) {
    Fiber &f = fibers[i];
    if (f.state != AT_PHASE || !phase_over(f.phased, f.parity)) continue;
    f.state = READY, warps[f.warp].ready |= 1u << f.lane, any = true;
  }
  for (int i = 0; i < nthreads; i++) {
    Fiber &f = fibers[i];
    if (f.state != AT_BARRIER) continue;
    waiting = true;
    int want = f.barrier & 0xffff, id = f.barrier >> 16, come = 0, live = 0, votes = 0;
    for (int j = 0; j < nthreads; j++) {
      Fiber &o = fibers[j];
      live += o.state != DONE;
      if (o.state != AT_BARRIER || o.barrier >> 16 != id) continue;
      come++, votes += o.vote;
      if ((o.barrier & 0xffff) != want) fail("threads wait at barrier %d for different numbers of threads", id);
      if (!want && (o.site != f.site || strcmp(o.file, f.file)))
        fail("thread %d waits at %s:%d, thread %d at %s:%d", i, f.file, f.site, j, o.file, o.site);
    }
    if (come < (want ? want : live)) continue;
    if (want && come > want) fail("%d threads at barrier %d, which takes %d", come, id, want);
    any = true;
    votes_count = votes;
    for (int j = 0; j < nthreads; j++) {
      Fiber &o = fibers[j];
      if (o.state == AT_BARRIER && o.barrier >> 16 == id) o.state = READY, o.vote = 0, warps[o.warp].ready |= 1u << o.lane;
    }
    break; // what a reducing barrier gave is read before the next one is complete
  }
  if (any) return;
  for (int i = 0; i < nthreads; i++)
    if (fibers[i].state == AT_PHASE)
      fail("thread %d waits for ever at the mbarrier at byte %ld of the shared memory", i, (long)((const char *)fibers[i].phased - shared_memory));
  if (waiting) {
    for (int i = 0; i < nthreads; i++)
      if (fibers[i].state == AT_BARRIER)
        fail("thread %d waits for ever at barrier %d (%s:%d)", i, fibers[i].barrier >> 16, fibers[i].file, fibers[i].site);
  }
}

bool Runner::run(unsigned x, unsigned y, unsigned z, const Geometry &g) {
  index = {x, y, z};
  dim = {g.block[0], g.block[1], g.block[2]};
  grid = {g.grid[0], g.grid[1], g.grid[2]};
  nthreads = (int)(g.block[0] * g.block[1] * g.block[2]);
  nwarps = (nthreads + 31) / 32;
  declared.clear();
  dynamic = g.shared;
  used = 0;
  runner = this;
  self = nullptr;
  if (sigsetjmp(escape, 1)) {
    self = nullptr;
    return false;
  }
  if (dynamic) shared(&dynamic, dynamic);
  for (int i = 0; i < nthreads; i++) {
    Fiber &f = fibers[i];
    f.thread = {(unsigned)i % g.block[0], (unsigned)i / g.block[0] % g.block[1], (unsigned)i / (g.block[0] * g.block[1])};
    f.block = this;
    f.lane = (unsigned)i & 31, f.warp = (unsigned)i >> 5;
    f.state = READY, f.vote = 0, f.ncopies = f.ngroups = 0;
    f.sp = first_frame(stacks + (size_t)(i + 1) * STACK, entry);
  }
  for (int w = 0; w < nwarps; w++) {
    int n = nthreads - w * 32;
    warps[w].live = warps[w].ready = n >= 32 ? ~0u : (1u << n) - 1;
    warps[w].ngroups = 0;
  }
  for (;;) {
    int order[32];
    for (int w = 0; w < nwarps; w++) order[w] = w;
    if (shuffled)
      for (int w = nwarps - 1; w > 0; w--) std::swap(order[w], order[random((unsigned)w + 1)]);
    bool live = false;
    for (int i = 0; i < nwarps; i++) {
      Warp &w = warps[order[i]];
      int lane = next_lane(w);
      if (lane >= 0) to(&fibers[order[i] * 32 + lane]);
      bool phased = false; // some lanes wait for a phase that others have seen end
      for (int l = order[i] * 32; l < nthreads && l < order[i] * 32 + 32; l++) phased = phased || fibers[l].state == AT_PHASE;
      if (w.ngroups && !phased) {
        Group &q = w.groups[0];
        fail("warp %d: %s waits for lanes %08x, which have returned or wait elsewhere (mask %08x)", order[i], q.op, q.mask & ~q.arrived, q.mask);
      }
      live = live || w.live;
    }
    if (!live) break;
    release();
  }
  for (auto &d : declared)
    for (unsigned long i = d.bytes; i < ((d.bytes + 127) & ~127ul) + BAND; i++)
      if ((unsigned char)d.at[i] != 0xa5) fail("wrote %lu bytes behind %lu bytes of shared memory", i - d.bytes, d.bytes);
  return true;
}

void cp_async(void *dst, const void *src, int bytes, int valid) {
  if (bytes != 4 && bytes != 8 && bytes != 16) fail("cp.async of %d bytes", bytes);
  if (((uintptr_t)dst | (valid ? (uintptr_t)src : 0)) & (uintptr_t)(bytes - 1)) fail("cp.async of %d bytes from %p to %p, which are not aligned", bytes, src, dst);
  if (valid < 0 || valid > bytes) fail("cp.async of %d bytes, %d of them valid", bytes, valid);
  must_be_shared(dst, (unsigned long)bytes, "cp.async");
  Fiber *f = self;
  if (f->ncopies == f->capacity) {
    f->capacity = f->capacity ? 2 * f->capacity : 64;
    f->copies = (Copy *)realloc(f->copies, sizeof(Copy) * (size_t)f->capacity);
  }
  f->copies[f->ncopies++] = {dst, src, bytes, valid};
}

void cp_async_commit() {
  Fiber *f = self;
  if (f->ngroups == 64) fail("64 groups of cp.async under way");
  f->groups[f->ngroups++] = f->ncopies;
}

static void copy_until(Fiber *f, int end) {
  for (int i = 0; i < end; i++) {
    Copy &c = f->copies[i];
    memcpy(c.dst, c.src, (size_t)c.valid);
    memset((char *)c.dst + c.valid, 0, (size_t)(c.bytes - c.valid));
  }
  memmove(f->copies, f->copies + end, sizeof(Copy) * (size_t)(f->ncopies - end));
  f->ncopies -= end;
}

void cp_async_wait(int pending) {
  Fiber *f = self;
  int done = f->ngroups - pending;
  if (done <= 0) return;
  int end = f->groups[done - 1];
  copy_until(f, end);
  for (int i = done; i < f->ngroups; i++) f->groups[i - done] = f->groups[i] - end;
  f->ngroups -= done;
}

void cp_async_wait_all() {
  copy_until(self, self->ncopies);
  self->ngroups = 0;
}

void mma_work(void *const all[32], unsigned) {
  float a[16][16], b[16][8], d[16][8];
  for (int l = 0; l < 32; l++) {
    if (!all[l]) fail("mma in a warp of fewer than 32 lanes");
    auto *m = (MMA *)all[l];
    int g = l >> 2, t = l & 3;
    for (int r = 0; r < 4; r++)
      for (int h = 0; h < 2; h++) a[g + 8 * (r & 1)][2 * t + h + 8 * (r >> 1)] = bf16(m->a[r] >> (16 * h) & 0xffff);
    for (int r = 0; r < 2; r++)
      for (int h = 0; h < 2; h++) b[2 * t + h + 8 * r][g] = bf16(m->b[r] >> (16 * h) & 0xffff);
    for (int r = 0; r < 4; r++) d[g + 8 * (r >> 1)][2 * t + (r & 1)] = m->c[r];
  }
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < 16; k++)
      for (int j = 0; j < 8; j++) d[i][j] += a[i][k] * b[k][j];
  for (int l = 0; l < 32; l++) {
    auto *m = (MMA *)all[l];
    int g = l >> 2, t = l & 3;
    for (int r = 0; r < 4; r++) m->d[r] = d[g + 8 * (r >> 1)][2 * t + (r & 1)];
  }
}

void wgmma_work(void *const all[32], unsigned) {
  for (int l = 0; l < 32; l++)
    if (!all[l]) fail("wgmma in a warp of fewer than 32 lanes");
  const WGMMA *first = (WGMMA *)all[0];
  const char *b = (const char *)first->b;
  must_be_shared(b, first->transposed ? 2048 : 7 * 1024 + 7 * 128 + 32, "wgmma");
  float right[16][64];
  for (int k = 0; k < 16; k++)
    for (int n = 0; n < 64; n++) {
      int row = first->transposed ? k : n, column = first->transposed ? n : k;
      uintptr_t at = (uintptr_t)b + (uintptr_t)(row / 8 * 1024 + row % 8 * 128 + 2 * column);
      unsigned short bits;
      memcpy(&bits, (const void *)(at ^ (at >> 7 & 7) << 4), 2);
      right[k][n] = bf16(bits);
    }
  for (int l = 0; l < 32; l++) {
    auto *m = (WGMMA *)all[l];
    if (m->b != first->b || m->add != first->add) fail("lanes of a warp give wgmma different operands");
  }
  for (int l = 0; l < 32; l++) {
    auto *m = (WGMMA *)all[l];
    int g = l >> 2, t = l & 3;
    for (int half = 0; half < 2; half++) {
      float left[16];
      for (int k = 0; k < 16; k++) {
        auto *holder = (WGMMA *)all[4 * g + k % 8 / 2]; // the lane of row g and column k
        left[k] = bf16(holder->a[half + 2 * (k / 8)] >> (16 * (k & 1)) & 0xffff);
      }
      for (int n = 0; n < 8; n++)
        for (int i = 0; i < 2; i++) {
          float &d = m->d[4 * n + 2 * half + i], sum = m->add ? d : 0.0f;
          for (int k = 0; k < 16; k++) sum += left[k] * right[k][8 * n + 2 * t + i];
          d = sum;
        }
    }
  }
}

void ldmatrix_work(void *const all[32], unsigned) {
  int n = 0;
  for (int l = 0; l < 32; l++)
    if (!all[l]) fail("ldmatrix in a warp of fewer than 32 lanes");
  n = ((LdMatrix *)all[0])->n;
  unsigned short m[4][8][8];
  for (int i = 0; i < 8 * n; i++) {
    const void *row = ((LdMatrix *)all[i])->row;
    if ((uintptr_t)row & 15) fail("ldmatrix: row %d of matrix %d at %p is not aligned to 16 bytes", i & 7, i >> 3, row);
    must_be_shared(row, 16, "ldmatrix");
    memcpy(m[i >> 3][i & 7], row, 16);
  }
  for (int l = 0; l < 32; l++) {
    auto *x = (LdMatrix *)all[l];
    int g = l >> 2, t = l & 3;
    for (int i = 0; i < n; i++)
      x->r[i] = x->trans ? m[i][2 * t][g] | (unsigned)m[i][2 * t + 1][g] << 16 : m[i][g][2 * t] | (unsigned)m[i][g][2 * t + 1] << 16;
  }
}

// The worker threads.

static struct sigaction previous[2];

static void on_fault(int sig, siginfo_t *info, void *context) {
  if (runner && self) {
    std::string what = owner(info->si_addr);
    fail("%s %p%s", sig == SIGBUS ? "misaligned or illegal access to" : "illegal access to", info->si_addr, what.c_str());
  }
  struct sigaction &old = previous[sig == SIGBUS];
  if (old.sa_flags & SA_SIGINFO) {
    old.sa_sigaction(sig, info, context);
  } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
    old.sa_handler(sig);
  } else {
    signal(sig, SIG_DFL);
    raise(sig);
  }
}

struct Pool {
  std::mutex lock;
  std::condition_variable wake, idle;
  unsigned long long generation = 0;
  int busy = 0, workers = 0;
  std::function<void(int)> job;

  Pool() {
    unsigned n = std::thread::hardware_concurrency();
    if (const char *e = getenv("MEAP_FAKE_THREADS")) n = (unsigned)atoi(e);
    workers = n < 1 ? 1 : n > 8 ? 8 : (int)n;
    struct sigaction a = {};
    a.sa_sigaction = on_fault;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &a, &previous[0]);
    sigaction(SIGBUS, &a, &previous[1]);
    sigset_t all, old; // signals of the process are for its own threads
    sigfillset(&all);
    for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, s);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    for (int i = 0; i < workers; i++)
      std::thread([this, i] {
        stack_t s = {};
        s.ss_size = 64 << 10;
        s.ss_sp = malloc(s.ss_size);
        sigaltstack(&s, nullptr);
        unsigned long long seen = 0;
        for (;;) {
          std::unique_lock<std::mutex> hold(lock);
          wake.wait(hold, [&] { return generation != seen; });
          seen = generation;
          hold.unlock();
          job(i);
          hold.lock();
          if (--busy == 0) idle.notify_one();
        }
      }).detach();
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
  }
  void run(std::function<void(int)> f) {
    std::unique_lock<std::mutex> hold(lock);
    job = std::move(f);
    busy = workers;
    generation++;
    wake.notify_all();
    idle.wait(hold, [&] { return busy == 0; });
  }
};

static Pool &pool() {
  static Pool *p = new Pool;
  return *p;
}

std::string launch(const Kernel &k, const Geometry &g, const void *args, unsigned long long seed) {
  std::atomic<unsigned long long> next{0};
  std::atomic<bool> failed{false};
  std::mutex lock;
  std::string error;
  unsigned long long blocks = (unsigned long long)g.grid[0] * g.grid[1] * g.grid[2];
  pool().run([&](int) {
    static thread_local Runner *mine = nullptr;
    if (!mine) mine = new Runner;
    mine->kernel = &k;
    mine->args = args;
    mine->shuffled = seed != 0;
    while (!failed) {
      unsigned long long b = next++;
      if (b >= blocks) break;
      if (seed && b < blocks) b = blocks - 1 - b; // the order of blocks is nobody's to rely on either
      mine->rng = seed * 0x9e3779b97f4a7c15ull + b;
      if (mine->run((unsigned)(b % g.grid[0]), (unsigned)(b / g.grid[0] % g.grid[1]), (unsigned)(b / ((unsigned long long)g.grid[0] * g.grid[1])), g)) continue;
      std::lock_guard<std::mutex> hold(lock);
      if (!failed) error = mine->message;
      failed = true;
    }
  });
  return error;
}

void parallel(int n, void (*f)(void *data, int i), void *data) {
  std::atomic<int> next{0};
  pool().run([&](int) {
    for (int i; (i = next++) < n;) f(data, i);
  });
}

} // namespace emu
