// A CUDA driver (libcuda.so.1) whose device is the CPU: memory with guard pages, streams that run eagerly or as late as CUDA
// may, events, graphs, and kernels on emulated blocks. The knobs are in ../README.md.
#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <vector>

#include "launch.h"

#define API extern "C" __attribute__((visibility("default")))

typedef int CUresult;
typedef unsigned long long CUdeviceptr;

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209, INVALID_PTX = 218, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
  ILLEGAL_ADDRESS = 700, LAUNCH_OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903, CAPTURE_UNJOINED = 904, CAPTURE_IMPLICIT = 906, UNKNOWN = 999,
};

namespace {

std::recursive_mutex big_lock;
#define LOCK std::lock_guard<std::recursive_mutex> hold(big_lock)

// Knobs are read when they are needed, so that a test may change them.
const char *knob(const char *name, const char *otherwise = "") {
  const char *v = getenv(name);
  return v && *v ? v : otherwise;
}

unsigned long long size_knob(const char *name, unsigned long long otherwise) {
  const char *v = knob(name);
  if (!*v) return otherwise;
  char *end;
  double n = strtod(v, &end);
  switch (*end | 32) {
  case 'k': n *= 1 << 10; break;
  case 'm': n *= 1 << 20; break;
  case 'g': n *= 1 << 30; break;
  }
  return (unsigned long long)n;
}

void record(const char *format, ...) __attribute__((format(printf, 1, 2)));
void record(const char *format, ...) {
  const char *path = knob("MEAP_FAKE_LOG");
  if (!*path) return;
  static FILE *file;
  static std::string opened;
  if (opened != path) {
    if (file) fclose(file);
    file = fopen(path, "a");
    opened = path;
  }
  if (!file) return;
  va_list ap;
  va_start(ap, format);
  vfprintf(file, format, ap);
  va_end(ap);
  fputc('\n', file);
  fflush(file);
}

std::string detail; // what cuGetErrorString adds to the last failure
CUresult sticky;    // an error of a kernel stays until the process ends, as on a GPU

CUresult refuse(CUresult code, const char *format, ...) __attribute__((format(printf, 2, 3)));
CUresult refuse(CUresult code, const char *format, ...) {
  char text[1024];
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  detail = text;
  record("error %d %s", code, text);
  return code;
}

// told_to_fail answers MEAP_FAKE_FAIL: NAME[@N][=CODE],... makes the N-th (first, if not given) call of a driver's function, or
// launch of a kernel, fail with that code.
CUresult told_to_fail(const char *name, CUresult otherwise) {
  static std::map<std::string, int> calls;
  static std::string seen;
  std::string rules = knob("MEAP_FAKE_FAIL");
  if (rules != seen) calls.clear(), seen = rules;
  if (rules.empty()) return SUCCESS;
  int call = ++calls[name];
  for (size_t from = 0; from < rules.size();) {
    size_t to = std::min(rules.find(',', from), rules.size());
    std::string rule = rules.substr(from, to - from);
    from = to + 1;
    CUresult code = otherwise;
    int at = 1;
    if (size_t i = rule.find('='); i != std::string::npos) code = atoi(rule.c_str() + i + 1), rule.resize(i);
    if (size_t i = rule.find('@'); i != std::string::npos) at = atoi(rule.c_str() + i + 1), rule.resize(i);
    if (rule == name && call == at) return code;
  }
  return SUCCESS;
}

// Every entry point begins with this.
#define ENTER(name)                                                                    \
  LOCK;                                                                                \
  if (sticky) return sticky;                                                           \
  if (CUresult told = told_to_fail(name, OUT_OF_MEMORY)) return refuse(told, name ": told to fail by MEAP_FAKE_FAIL")

// Memory: every allocation ends at a page that cannot be touched, and lies between bytes that must not change.

enum : uintptr_t { PAGE = 4096, GRAIN = 256 };
struct Allocation { size_t bytes, rounded; char *map; size_t mapped; };
std::map<uintptr_t, Allocation> allocations;
std::map<uintptr_t, size_t> freed;
char *arena, *arena_end, *arena_next;
size_t used, peak;
enum : unsigned char { GUARD = 0xa5, DIRT = 0xff };

bool open_arena() {
  if (arena) return true;
  for (size_t n : {(size_t)1 << 40, (size_t)1 << 36, (size_t)1 << 34}) {
    void *p = mmap(nullptr, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    arena = arena_next = (char *)p;
    arena_end = arena + n;
    return true;
  }
  return false;
}

size_t total_memory() { return size_knob("MEAP_FAKE_MEMORY", 8ull << 30); }

CUresult allocate(CUdeviceptr *p, size_t bytes) {
  if (!bytes) return refuse(INVALID_VALUE, "allocation of 0 bytes");
  size_t rounded = (bytes + GRAIN - 1) & ~(GRAIN - 1);
  if (used + rounded > total_memory()) return refuse(OUT_OF_MEMORY, "%zu bytes asked for, %zu of %zu used", bytes, used, total_memory());
  size_t front = PAGE, body = (rounded + PAGE - 1) & ~(PAGE - 1);
  if (!open_arena() || arena_next + front + body + PAGE > arena_end) return refuse(OUT_OF_MEMORY, "no address space left");
  char *map = arena_next;
  arena_next += front + body + PAGE; // the last page stays untouchable
  if (mprotect(map, front + body, PROT_READ | PROT_WRITE)) return refuse(OUT_OF_MEMORY, "the host has no memory for %zu bytes", bytes);
  char *at = map + front + body - rounded;
  memset(map, GUARD, (size_t)(at - map));
  memset(at, DIRT, std::min(bytes, (size_t)64 << 20)); // memory holds anything at first
  memset(at + bytes, GUARD, rounded - bytes);
  allocations[(uintptr_t)at] = {bytes, rounded, map, front + body};
  used += rounded;
  peak = std::max(peak, used);
  *p = (CUdeviceptr)(uintptr_t)at;
  return SUCCESS;
}

const Allocation *holder(uintptr_t p) {
  auto i = allocations.upper_bound(p);
  if (i == allocations.begin()) return nullptr;
  --i;
  return p < i->first + i->second.bytes ? &i->second : nullptr;
}

bool inside(CUdeviceptr p, size_t n) {
  auto i = allocations.upper_bound((uintptr_t)p);
  if (i == allocations.begin()) return n == 0;
  --i;
  return (uintptr_t)p + n <= i->first + i->second.bytes;
}

// broken_guard returns what is wrong with the bytes around allocations, or nothing.
std::string broken_guard() {
  char text[256];
  for (auto &[at, a] : allocations) {
    auto *p = (unsigned char *)at;
    for (size_t i = a.bytes; i < a.rounded; i++)
      if (p[i] != GUARD) {
        snprintf(text, sizeof text, "wrote %zu bytes behind an allocation of %zu bytes", i - a.bytes, a.bytes);
        return text;
      }
    for (size_t i = 1; i <= GRAIN; i++)
      if (p[-(ptrdiff_t)i] != GUARD) {
        snprintf(text, sizeof text, "wrote %zu bytes before an allocation of %zu bytes", i, a.bytes);
        return text;
      }
  }
  return "";
}

std::map<void *, size_t> pinned;

// Streams, events, graphs.

struct Graph;
struct Stream;
struct Event {
  Stream *stream = nullptr;
  unsigned long long seq = 0; // position in the stream of the last record
  bool recorded = false, asked = false;
  std::shared_ptr<Graph> graph; // recorded while capturing
  double time = 0;
};
struct Op {
  std::string what;
  std::function<CUresult()> run;
  Stream *after = nullptr; // wait for this stream
  unsigned long long after_seq = 0;
  unsigned long long seq = 0;
};
struct Graph { std::vector<Op> ops; bool invalid = false; };
struct Stream {
  bool blocking = true;
  std::deque<Op> queue;
  unsigned long long next = 1, done = 0;
  std::shared_ptr<Graph> capture;
  bool origin = false, loose = false; // loose: captured work that nobody has waited for
  int mode = 0;
};
struct GraphHandle { std::shared_ptr<Graph> graph; };
struct GraphExec { std::shared_ptr<Graph> graph; };

std::set<Stream *> streams;
Stream *legacy() {
  static Stream *s = new Stream;
  streams.insert(s);
  return s;
}
Stream *of(void *handle) { return (uintptr_t)handle <= 2 ? legacy() : (Stream *)handle; }
bool known(Stream *s) { return streams.count(s) > 0; }
std::set<Event *> events;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
bool lazy() { return *knob("MEAP_FAKE_LAZY", "0") != '0'; }

CUresult drain(Stream *s, unsigned long long to) {
  while (!s->queue.empty() && s->queue.front().seq <= to) {
    Op op = std::move(s->queue.front());
    s->queue.pop_front();
    if (op.after && known(op.after)) drain(op.after, op.after_seq);
    if (!sticky && op.run) {
      CUresult r = op.run();
      if (r) sticky = r;
    }
    s->done = op.seq;
  }
  return sticky;
}
CUresult drain(Stream *s) { return drain(s, s->next); }
CUresult drain_all() {
  for (auto *s : streams) drain(s);
  return sticky;
}

// What the host waits for in a call on the legacy stream.
CUresult drain_blocking() {
  for (auto *s : streams)
    if (s->blocking) drain(s);
  return sticky;
}

bool capturing_strictly() {
  for (auto *s : streams)
    if (s->capture && s->mode != 2) return true;
  return false;
}
void invalidate() {
  for (auto *s : streams)
    if (s->capture) s->capture->invalid = true;
}

CUresult add(Stream *s, Op op) {
  if (!known(s)) return refuse(INVALID_HANDLE, "%s on a stream that does not exist", op.what.c_str());
  if (s->capture) {
    if (s->capture->invalid) return CAPTURE_INVALIDATED;
    s->loose = true;
    s->capture->ops.push_back(std::move(op));
    return SUCCESS;
  }
  if (s == legacy())
    for (auto *o : streams)
      if (o->capture && o->blocking) {
        invalidate();
        return refuse(CAPTURE_IMPLICIT, "%s on the legacy stream while a blocking stream is captured", op.what.c_str());
      }
  if (s == legacy()) drain_blocking();
  op.seq = s->next++;
  s->queue.push_back(std::move(op));
  return lazy() ? SUCCESS : drain(s);
}

// Modules.

struct Entry { long params = -1; int max_threads = 1024; };
struct Module { std::map<std::string, Entry> entries; std::map<std::string, struct Function *> functions; };
struct Function { std::string name; Entry entry; const emu::Kernel *kernel; int dynamic_limit = 49152; };

int capability() { return atoi(knob("MEAP_FAKE_CC", "80")); }

// parse reads what a loader would complain about: version, target, entries with the bytes of their parameters.
CUresult parse(const char *text, Module &m, std::string &log) {
  if (strncmp(text, "\x7f" "ELF", 4) == 0) {
    log = "a cubin; the emulated device loads PTX only";
    return NO_BINARY_FOR_GPU;
  }
  const char *version = strstr(text, ".version "), *target = strstr(text, ".target sm_");
  if (!version || !target) {
    log = "no .version or no .target: this is not PTX";
    return INVALID_PTX;
  }
  int sm = atoi(target + 11);
  if (sm > capability()) {
    log = "PTX for sm_" + std::to_string(sm) + " on a device of compute capability " + std::to_string(capability());
    return NO_BINARY_FOR_GPU;
  }
  for (const char *p = text; (p = strstr(p, ".entry "));) {
    p += 7;
    while (*p == ' ') p++;
    size_t n = strcspn(p, "( \t\r\n");
    std::string name(p, n);
    const char *body = strchr(p, '{'), *close = strchr(p, ')');
    if (!body || !close) {
      log = "entry " + name + " has no body";
      return INVALID_PTX;
    }
    Entry e;
    std::string head(p, (size_t)(body - p));
    size_t at = head.find(".param");
    if (at != std::string::npos) {
      size_t open = head.find('[', at);
      e.params = open == std::string::npos ? -1 : atol(head.c_str() + open + 1);
      if (head.find(".param", at + 6) != std::string::npos) e.params = -2; // more than one
    }
    if ((at = head.find(".maxntid ")) != std::string::npos) {
      e.max_threads = 1;
      for (const char *q = head.c_str() + at + 9;; q++) {
        e.max_threads *= atoi(q);
        q += strspn(q, " 0123456789");
        if (*q != ',') break;
      }
    }
    m.entries[name] = e;
  }
  if (m.entries.empty()) {
    log = "no .entry";
    return INVALID_PTX;
  }
  return SUCCESS;
}

CUresult load(Module **out, const char *image, unsigned n, const int *options, void *const *values) {
  auto m = std::make_unique<Module>();
  std::string log;
  CUresult r = parse(image, *m, log);
  char *buffer = nullptr;
  size_t size = 0;
  int at = -1;
  for (unsigned i = 0; i < n; i++) {
    if (options[i] == 5) buffer = (char *)values[i];
    if (options[i] == 6) size = (uintptr_t)values[i] & 0xffffffff, at = (int)i;
  }
  if (buffer && size) snprintf(buffer, size, "%s", log.c_str());
  if (at >= 0) ((void **)values)[at] = (void *)(uintptr_t)log.size();
  if (r) return refuse(r, "module: %s", log.c_str());
  record("cuModuleLoadDataEx entries=%zu", m->entries.size());
  *out = m.release();
  return SUCCESS;
}

bool initialised;

} // namespace

std::string emu::owner(const void *p) {
  char text[200];
  auto i = allocations.upper_bound((uintptr_t)p);
  uintptr_t q = (uintptr_t)p;
  if (i != allocations.begin()) {
    auto before = std::prev(i);
    if (q < before->first + before->second.rounded + PAGE) {
      snprintf(text, sizeof text, ", %td bytes into an allocation of %zu bytes", q - before->first, before->second.bytes);
      return text;
    }
  }
  if (i != allocations.end() && i->first - q < 2 * PAGE) {
    snprintf(text, sizeof text, ", %td bytes before an allocation of %zu bytes", i->first - q, i->second.bytes);
    return text;
  }
  auto f = freed.upper_bound(q);
  if (f != freed.begin() && q < std::prev(f)->first + std::prev(f)->second) return ", in memory that was freed";
  return ", which was never allocated";
}

// What the fake cuBLASLt asks of the driver: work on a stream, and threads.
API int meap_fake_enqueue(void *stream, const char *what, int (*f)(void *), const void *data, size_t n) {
  LOCK;
  if (sticky) return sticky;
  std::string copy((const char *)data, n);
  std::string name = what;
  return add(of(stream), {name, [copy, f]() mutable { return f(copy.data()); }});
}
API void meap_fake_parallel(int n, void (*f)(void *, int), void *data) { emu::parallel(n, f, data); }
API int meap_fake_inside(const void *p, size_t n) { return inside((CUdeviceptr)(uintptr_t)p, n); }
API void meap_fake_log(const char *line) {
  LOCK;
  record("%s", line);
}
API int meap_fake_told_to_fail(const char *name, int otherwise) {
  LOCK;
  return told_to_fail(name, otherwise);
}

API CUresult cuInit(unsigned) {
  LOCK;
  if (atoi(knob("MEAP_FAKE_DEVICES", "1")) == 0) return NO_DEVICE;
  initialised = true;
  return SUCCESS;
}
API CUresult cuDriverGetVersion(int *v) {
  *v = atoi(knob("MEAP_FAKE_DRIVER", "12040"));
  return SUCCESS;
}
API CUresult cuGetErrorName(CUresult r, const char **s) {
  static const std::map<int, const char *> names = {
      {0, "CUDA_SUCCESS"}, {1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"}, {3, "CUDA_ERROR_NOT_INITIALIZED"},
      {100, "CUDA_ERROR_NO_DEVICE"}, {101, "CUDA_ERROR_INVALID_DEVICE"}, {200, "CUDA_ERROR_INVALID_IMAGE"}, {201, "CUDA_ERROR_INVALID_CONTEXT"},
      {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"}, {218, "CUDA_ERROR_INVALID_PTX"}, {400, "CUDA_ERROR_INVALID_HANDLE"}, {500, "CUDA_ERROR_NOT_FOUND"},
      {600, "CUDA_ERROR_NOT_READY"}, {700, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
      {719, "CUDA_ERROR_LAUNCH_FAILED"}, {801, "CUDA_ERROR_NOT_SUPPORTED"}, {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
      {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}, {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"}, {904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"},
      {906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"}, {999, "CUDA_ERROR_UNKNOWN"}};
  auto i = names.find(r);
  *s = i == names.end() ? nullptr : i->second;
  return *s ? SUCCESS : INVALID_VALUE;
}
// The emulator's own words are added: what the kernel did, and where.
API CUresult cuGetErrorString(CUresult r, const char **s) {
  LOCK;
  static const std::map<int, const char *> texts = {
      {0, "no error"}, {1, "invalid argument"}, {2, "out of memory"}, {3, "initialization error"}, {100, "no CUDA-capable device is detected"},
      {101, "invalid device ordinal"}, {200, "device kernel image is invalid"}, {201, "invalid device context"},
      {209, "no kernel image is available for execution on the device"}, {218, "a PTX JIT compilation failed"}, {400, "invalid resource handle"},
      {500, "named symbol not found"}, {600, "device not ready"}, {700, "an illegal memory access was encountered"},
      {701, "too many resources requested for launch"}, {719, "unspecified launch failure"}, {801, "operation not supported"},
      {900, "operation not permitted when stream is capturing"}, {901, "operation failed due to a previous error during capture"},
      {903, "capture was not initiated in this stream"}, {904, "capturing stream has unjoined work"},
      {906, "dependency created on uncaptured work in another stream"}, {999, "unknown error"}};
  auto i = texts.find(r);
  *s = nullptr;
  if (i == texts.end()) return INVALID_VALUE;
  static std::map<std::string, bool> kept; // strings live as long as the process
  std::string text = i->second;
  if (r && !detail.empty()) text += " (emulated: " + detail + ")";
  *s = kept.emplace(text, true).first->first.c_str();
  return SUCCESS;
}

// Devices and contexts.

API CUresult cuDeviceGetCount(int *n) {
  *n = atoi(knob("MEAP_FAKE_DEVICES", "1"));
  return SUCCESS;
}
API CUresult cuDeviceGet(int *d, int ordinal) {
  int n;
  cuDeviceGetCount(&n);
  if (ordinal < 0 || ordinal >= n) return INVALID_DEVICE;
  *d = ordinal;
  return SUCCESS;
}
API CUresult cuDeviceGetName(char *s, int n, int) {
  snprintf(s, (size_t)n, "%s", knob("MEAP_FAKE_NAME", "Emulated GPU"));
  return SUCCESS;
}
API CUresult cuDeviceGetUuid(char *u, int d) {
  memset(u, d + 1, 16);
  return SUCCESS;
}
API CUresult cuDeviceGetUuid_v2(char *u, int d) { return cuDeviceGetUuid(u, d); }
API CUresult cuDeviceTotalMem_v2(size_t *n, int) {
  *n = total_memory();
  return SUCCESS;
}
API CUresult cuDeviceGetAttribute(int *v, int attribute, int) {
  switch (attribute) {
  case 1: case 2: case 3: *v = 1024; break;
  case 4: *v = 64; break;
  case 5: *v = 2147483647; break;
  case 6: case 7: *v = 65535; break;
  case 8: *v = 49152; break;
  case 10: *v = 32; break;
  case 12: *v = 65536; break;         // registers per block
  case 13: *v = 1410000; break;       // clock, kHz
  case 16: *v = 4; break;             // multiprocessors
  case 31: case 41: *v = 1; break;    // concurrent kernels, unified addressing
  case 36: *v = 1593000; break;       // memory clock, kHz
  case 37: *v = 5120; break;          // memory bus, bits
  case 38: *v = 40 << 20; break;      // L2
  case 39: *v = 2048; break;          // threads per multiprocessor
  case 75: *v = capability() / 10; break;
  case 76: *v = capability() % 10; break;
  case 81: *v = capability() >= 90 ? 233472 : 167936; break;
  case 82: *v = 65536; break;         // registers per multiprocessor
  case 97: *v = capability() >= 90 ? 232448 : 166912; break;
  case 115: *v = 1; break;
  default: *v = 0;
  }
  return SUCCESS;
}
static char contexts[64]; // handles are addresses: Go's runtime does not bear small numbers as pointers
API CUresult cuDevicePrimaryCtxRetain(void **c, int d) {
  if (!initialised) return NOT_INITIALIZED;
  *c = contexts + d;
  return SUCCESS;
}
API CUresult cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API CUresult cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) {
  *flags = 0, *active = 1;
  return SUCCESS;
}
API CUresult cuDevicePrimaryCtxSetFlags_v2(int, unsigned) { return SUCCESS; }
static thread_local void *current;
API CUresult cuCtxSetCurrent(void *c) {
  current = c;
  return SUCCESS;
}
API CUresult cuCtxGetCurrent(void **c) {
  *c = current;
  return SUCCESS;
}
API CUresult cuCtxPushCurrent_v2(void *c) { return cuCtxSetCurrent(c); }
API CUresult cuCtxPopCurrent_v2(void **c) {
  if (c) *c = current;
  current = nullptr;
  return SUCCESS;
}
API CUresult cuCtxGetDevice(int *d) {
  if (!current) return INVALID_CONTEXT;
  *d = (int)((char *)current - contexts);
  return SUCCESS;
}
API CUresult cuCtxSetLimit(int, size_t) { return SUCCESS; }
API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return SUCCESS;
}
API CUresult cuCtxSynchronize() {
  ENTER("cuCtxSynchronize");
  if (capturing_strictly()) {
    invalidate();
    return refuse(CAPTURE_UNSUPPORTED, "cuCtxSynchronize while a stream is captured");
  }
  return drain_all();
}
#define NEED_CONTEXT(name) \
  if (!current) return refuse(INVALID_CONTEXT, name " on a thread without a context")

// Memory.

API CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t n) {
  ENTER("cuMemAlloc");
  NEED_CONTEXT("cuMemAlloc");
  if (capturing_strictly()) {
    invalidate();
    return refuse(CAPTURE_UNSUPPORTED, "cuMemAlloc while a stream is captured");
  }
  CUresult r = allocate(p, n);
  record("cuMemAlloc bytes=%zu result=%d used=%zu peak=%zu", n, r, used, peak);
  return r;
}
API CUresult cuMemFree_v2(CUdeviceptr p) {
  LOCK;
  if (!sticky) drain_all();
  auto i = allocations.find((uintptr_t)p);
  if (i == allocations.end()) return refuse(INVALID_VALUE, "cuMemFree of %#llx, which is not allocated", p);
  std::string broken = broken_guard();
  Allocation a = i->second;
  allocations.erase(i);
  freed[(uintptr_t)p] = a.rounded;
  used -= a.rounded;
  record("cuMemFree bytes=%zu used=%zu", a.bytes, used);
  // Whoever reads or writes here from now on stops at once.
  mprotect(a.map, a.mapped, PROT_NONE);
  madvise(a.map, a.mapped, MADV_DONTNEED);
  if (!broken.empty()) {
    sticky = ILLEGAL_ADDRESS;
    return refuse(sticky, "%s", broken.c_str());
  }
  return sticky;
}
API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  ENTER("cuMemGetInfo");
  NEED_CONTEXT("cuMemGetInfo");
  *total = total_memory();
  *free_bytes = used < *total ? *total - used : 0;
  return SUCCESS;
}
API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *n, CUdeviceptr p) {
  LOCK;
  auto i = allocations.upper_bound((uintptr_t)p);
  if (!holder((uintptr_t)p)) return NOT_FOUND;
  --i;
  if (base) *base = (CUdeviceptr)i->first;
  if (n) *n = i->second.bytes;
  return SUCCESS;
}
API CUresult cuMemHostAlloc(void **p, size_t n, unsigned) {
  ENTER("cuMemHostAlloc");
  NEED_CONTEXT("cuMemHostAlloc");
  if (capturing_strictly()) {
    invalidate();
    return refuse(CAPTURE_UNSUPPORTED, "cuMemHostAlloc while a stream is captured");
  }
  if (posix_memalign(p, 4096, n ? n : 1)) return refuse(OUT_OF_MEMORY, "the host has no %zu bytes", n);
  memset(*p, DIRT, std::min(n, (size_t)16 << 20));
  pinned[*p] = n;
  record("cuMemHostAlloc bytes=%zu", n);
  return SUCCESS;
}
API CUresult cuMemAllocHost_v2(void **p, size_t n) { return cuMemHostAlloc(p, n, 0); }
API CUresult cuMemFreeHost(void *p) {
  LOCK;
  if (!sticky) drain_all();
  if (!pinned.erase(p)) return refuse(INVALID_VALUE, "cuMemFreeHost of memory that cuMemHostAlloc did not give");
  free(p);
  return SUCCESS;
}

static CUresult copy(void *stream, const char *what, void *dst, const void *src, size_t n, bool to_device, bool from_device) {
  if ((to_device && !inside((CUdeviceptr)(uintptr_t)dst, n)) || (from_device && !inside((CUdeviceptr)(uintptr_t)src, n)))
    return refuse(INVALID_VALUE, "%s of %zu bytes goes beyond the allocation", what, n);
  record("%s bytes=%zu stream=%d", what, n, (uintptr_t)stream > 2);
  // A host buffer that is not pinned is read before the call returns.
  bool host_pinned = false;
  const void *host = to_device ? src : dst;
  auto i = pinned.upper_bound((void *)host);
  if (i != pinned.begin() && (const char *)host < (const char *)std::prev(i)->first + std::prev(i)->second) host_pinned = true;
  if (to_device && !from_device && !host_pinned) {
    std::string bytes((const char *)src, n);
    return add(of(stream), {what, [dst, bytes] { return memcpy(dst, bytes.data(), bytes.size()), SUCCESS; }});
  }
  CUresult r = add(of(stream), {what, [dst, src, n] { return memmove(dst, src, n), SUCCESS; }});
  if (!r && from_device && !to_device && !host_pinned && !of(stream)->capture) r = drain(of(stream)); // waits, as CUDA does
  return r;
}
static CUresult copy_now(const char *what, void *dst, const void *src, size_t n, bool to_device, bool from_device) {
  if (capturing_strictly()) {
    invalidate();
    return refuse(CAPTURE_UNSUPPORTED, "%s while a stream is captured", what);
  }
  drain_blocking();
  if (CUresult r = copy(nullptr, what, dst, src, n, to_device, from_device)) return r;
  return drain(legacy());
}
#define P(x) ((void *)(uintptr_t)(x))
API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr d, const void *s, size_t n, void *stream) {
  ENTER("cuMemcpyHtoDAsync");
  return copy(stream, "cuMemcpyHtoDAsync", P(d), s, n, true, false);
}
API CUresult cuMemcpyDtoHAsync_v2(void *d, CUdeviceptr s, size_t n, void *stream) {
  ENTER("cuMemcpyDtoHAsync");
  return copy(stream, "cuMemcpyDtoHAsync", d, P(s), n, false, true);
}
API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr d, CUdeviceptr s, size_t n, void *stream) {
  ENTER("cuMemcpyDtoDAsync");
  return copy(stream, "cuMemcpyDtoDAsync", P(d), P(s), n, true, true);
}
API CUresult cuMemcpyHtoD_v2(CUdeviceptr d, const void *s, size_t n) {
  ENTER("cuMemcpyHtoD");
  return copy_now("cuMemcpyHtoD", P(d), s, n, true, false);
}
API CUresult cuMemcpyDtoH_v2(void *d, CUdeviceptr s, size_t n) {
  ENTER("cuMemcpyDtoH");
  return copy_now("cuMemcpyDtoH", d, P(s), n, false, true);
}
API CUresult cuMemcpyDtoD_v2(CUdeviceptr d, CUdeviceptr s, size_t n) {
  ENTER("cuMemcpyDtoD");
  return copy_now("cuMemcpyDtoD", P(d), P(s), n, true, true);
}
template <class T> static CUresult set(void *stream, const char *what, CUdeviceptr d, T v, size_t n) {
  if (!inside(d, n * sizeof(T))) return refuse(INVALID_VALUE, "%s of %zu elements goes beyond the allocation", what, n);
  if (d % sizeof(T)) return refuse(INVALID_VALUE, "%s at an address that is not aligned", what);
  record("%s bytes=%zu stream=%d", what, n * sizeof(T), (uintptr_t)stream > 2);
  return add(of(stream), {what, [d, v, n] { return std::fill_n((T *)P(d), n, v), SUCCESS; }});
}
API CUresult cuMemsetD8Async(CUdeviceptr d, unsigned char v, size_t n, void *s) {
  ENTER("cuMemsetD8Async");
  return set<unsigned char>(s, "cuMemsetD8Async", d, v, n);
}
API CUresult cuMemsetD16Async(CUdeviceptr d, unsigned short v, size_t n, void *s) {
  ENTER("cuMemsetD16Async");
  return set<unsigned short>(s, "cuMemsetD16Async", d, v, n);
}
API CUresult cuMemsetD32Async(CUdeviceptr d, unsigned v, size_t n, void *s) {
  ENTER("cuMemsetD32Async");
  return set<unsigned>(s, "cuMemsetD32Async", d, v, n);
}
API CUresult cuMemsetD8_v2(CUdeviceptr d, unsigned char v, size_t n) {
  ENTER("cuMemsetD8");
  return set<unsigned char>(nullptr, "cuMemsetD8", d, v, n);
}
API CUresult cuMemsetD16_v2(CUdeviceptr d, unsigned short v, size_t n) {
  ENTER("cuMemsetD16");
  return set<unsigned short>(nullptr, "cuMemsetD16", d, v, n);
}
API CUresult cuMemsetD32_v2(CUdeviceptr d, unsigned v, size_t n) {
  ENTER("cuMemsetD32");
  return set<unsigned>(nullptr, "cuMemsetD32", d, v, n);
}

// Streams and events.

API CUresult cuStreamCreateWithPriority(Stream **s, unsigned flags, int) {
  ENTER("cuStreamCreate");
  NEED_CONTEXT("cuStreamCreate");
  *s = new Stream;
  (*s)->blocking = !(flags & 1);
  streams.insert(*s);
  return SUCCESS;
}
API CUresult cuStreamCreate(Stream **s, unsigned flags) { return cuStreamCreateWithPriority(s, flags, 0); }
API CUresult cuStreamDestroy_v2(void *s) {
  LOCK;
  if ((uintptr_t)s <= 2 || !known((Stream *)s)) return refuse(INVALID_HANDLE, "cuStreamDestroy of a stream that does not exist");
  drain((Stream *)s);
  streams.erase((Stream *)s);
  delete (Stream *)s;
  return sticky;
}
API CUresult cuStreamSynchronize(void *handle) {
  ENTER("cuStreamSynchronize");
  Stream *s = of(handle);
  if (!known(s)) return refuse(INVALID_HANDLE, "cuStreamSynchronize of a stream that does not exist");
  if (s->capture || capturing_strictly()) {
    invalidate();
    return refuse(CAPTURE_UNSUPPORTED, "cuStreamSynchronize while a stream is captured");
  }
  return s == legacy() ? drain_blocking() : drain(s);
}
API CUresult cuStreamQuery(void *handle) {
  ENTER("cuStreamQuery");
  Stream *s = of(handle);
  if (s->queue.empty()) return SUCCESS;
  drain(s);
  return sticky ? sticky : NOT_READY;
}
API CUresult cuEventCreate(Event **e, unsigned) {
  ENTER("cuEventCreate");
  NEED_CONTEXT("cuEventCreate");
  *e = new Event;
  events.insert(*e);
  return SUCCESS;
}
API CUresult cuEventDestroy_v2(Event *e) {
  LOCK;
  if (!events.erase(e)) return refuse(INVALID_HANDLE, "cuEventDestroy of an event that does not exist");
  delete e;
  return SUCCESS;
}
API CUresult cuEventRecord(Event *e, void *handle) {
  ENTER("cuEventRecord");
  if (!events.count(e)) return refuse(INVALID_HANDLE, "cuEventRecord of an event that does not exist");
  Stream *s = of(handle);
  e->stream = s;
  e->asked = false;
  if (s->capture) {
    e->graph = s->capture;
    return SUCCESS;
  }
  e->graph = nullptr;
  e->recorded = true;
  e->seq = s->next;
  return add(s, {"cuEventRecord", [e] {
                   if (events.count(e)) e->time = now();
                   return SUCCESS;
                 }});
}
API CUresult cuStreamWaitEvent(void *handle, Event *e, unsigned) {
  ENTER("cuStreamWaitEvent");
  if (!events.count(e)) return refuse(INVALID_HANDLE, "cuStreamWaitEvent of an event that does not exist");
  Stream *s = of(handle);
  if (e->graph) {
    if (s->capture && s->capture != e->graph) return refuse(902, "two captures are merged by an event");
    if (!s->capture) s->capture = e->graph, s->mode = e->stream->mode, s->origin = false, s->loose = true;
    if (e->stream != s) e->stream->loose = false;
    return SUCCESS;
  }
  if (s->capture && e->recorded) {
    invalidate();
    return refuse(907, "a captured stream waits for an event from outside of the capture");
  }
  if (!e->recorded) return SUCCESS;
  Op op{"cuStreamWaitEvent", nullptr};
  op.after = e->stream, op.after_seq = e->seq;
  return add(s, op);
}
API CUresult cuEventSynchronize(Event *e) {
  ENTER("cuEventSynchronize");
  if (!events.count(e)) return refuse(INVALID_HANDLE, "cuEventSynchronize of an event that does not exist");
  if (e->graph) return refuse(CAPTURE_UNSUPPORTED, "cuEventSynchronize of an event that was captured");
  return e->recorded && known(e->stream) ? drain(e->stream, e->seq) : SUCCESS;
}
// With lazy streams the first question after a record is answered "not ready", and the second does the work.
API CUresult cuEventQuery(Event *e) {
  ENTER("cuEventQuery");
  if (!events.count(e)) return refuse(INVALID_HANDLE, "cuEventQuery of an event that does not exist");
  if (!e->recorded || !known(e->stream) || e->stream->done >= e->seq) return SUCCESS;
  if (!e->asked) {
    e->asked = true;
    return NOT_READY;
  }
  return drain(e->stream, e->seq);
}
API CUresult cuEventElapsedTime(float *ms, Event *a, Event *b) {
  ENTER("cuEventElapsedTime");
  for (Event *e : {a, b}) {
    if (!events.count(e) || !e->recorded) return refuse(INVALID_HANDLE, "cuEventElapsedTime of an event that was not recorded");
    if (known(e->stream) && e->stream->done < e->seq) return NOT_READY;
  }
  *ms = (float)((b->time - a->time) * 1e3);
  return SUCCESS;
}
API CUresult cuEventElapsedTime_v2(float *ms, Event *a, Event *b) { return cuEventElapsedTime(ms, a, b); }

// Modules and launches.

API CUresult cuModuleLoadDataEx(Module **m, const char *image, unsigned n, const int *options, void *const *values) {
  ENTER("cuModuleLoadDataEx");
  NEED_CONTEXT("cuModuleLoadDataEx");
  return load(m, image, n, options, values);
}
API CUresult cuModuleLoadData(Module **m, const char *image) { return cuModuleLoadDataEx(m, image, 0, nullptr, nullptr); }
API CUresult cuModuleUnload(Module *m) {
  LOCK;
  drain_all();
  for (auto &f : m->functions) delete f.second;
  delete m;
  return sticky;
}
API CUresult cuModuleGetFunction(Function **f, Module *m, const char *name) {
  ENTER("cuModuleGetFunction");
  auto i = m->entries.find(name);
  if (i == m->entries.end()) return refuse(NOT_FOUND, "the PTX has no .entry %s", name);
  if (auto j = m->functions.find(name); j != m->functions.end()) {
    *f = j->second;
    return SUCCESS;
  }
  const emu::Kernel *k = emu::find(name);
  if (!k) return refuse(NOT_FOUND, "%s is not in MEAP_KERNELS of csrc/args.h", name);
  if (i->second.params >= 0 && (size_t)i->second.params != k->args_size)
    return refuse(INVALID_PTX, "%s takes %ld bytes of parameters in the PTX and %zu in csrc/args.h: compile the PTX anew", name, i->second.params, k->args_size);
  if (i->second.params == -2) return refuse(INVALID_PTX, "%s takes more than one parameter", name);
  *f = m->functions[name] = new Function{name, i->second, k};
  return SUCCESS;
}
API CUresult cuModuleGetGlobal_v2(CUdeviceptr *, size_t *, Module *, const char *name) { return refuse(NOT_FOUND, "no global %s", name); }
API CUresult cuFuncGetAttribute(int *v, int attribute, Function *f) {
  LOCK;
  switch (attribute) {
  case 0: *v = f->entry.max_threads; break;
  case 4: *v = 64; break; // registers
  case 5: case 6: *v = capability(); break;
  case 8: *v = f->dynamic_limit; break;
  default: *v = 0;
  }
  return SUCCESS;
}
API CUresult cuFuncSetAttribute(Function *f, int attribute, int v) {
  ENTER("cuFuncSetAttribute");
  if (attribute == 8) {
    int most;
    cuDeviceGetAttribute(&most, 97, 0);
    if (v < 0 || v > most) return refuse(INVALID_VALUE, "%s: %d bytes of dynamic shared memory; a block can have %d", f->name.c_str(), v, most);
    f->dynamic_limit = v;
  }
  record("cuFuncSetAttribute kernel=%s attribute=%d value=%d", f->name.c_str(), attribute, v);
  return SUCCESS;
}
API CUresult cuFuncSetCacheConfig(Function *, int) { return SUCCESS; }
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, Function *f, int threads, size_t shared) {
  LOCK;
  if (threads < 1 || threads > f->entry.max_threads) return INVALID_VALUE;
  *n = std::min(2048 / threads, shared ? (int)(167936 / (shared + 1024)) : 32);
  return SUCCESS;
}
API CUresult cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                            void *stream, void **params, void **extra) {
  LOCK;
  if (sticky) return sticky;
  const char *name = f->name.c_str();
  emu::Geometry g = {{gx, gy, gz}, {bx, by, bz}, shared};
  record("cuLaunchKernel kernel=%s grid=%u,%u,%u block=%u,%u,%u shared=%u stream=%d args=%zu", name, gx, gy, gz, bx, by, bz, shared,
         (uintptr_t)stream > 2, f->kernel->args_size);
  if (!gx || !gy || !gz || !bx || !by || !bz) return refuse(INVALID_VALUE, "%s: a grid of %ux%ux%u blocks of %ux%ux%u threads", name, gx, gy, gz, bx, by, bz);
  if (gx > 2147483647u || gy > 65535 || gz > 65535) return refuse(INVALID_VALUE, "%s: a grid of %ux%ux%u blocks; the limits are 2147483647, 65535, 65535", name, gx, gy, gz);
  unsigned long long threads = (unsigned long long)bx * by * bz;
  if (bx > 1024 || by > 1024 || bz > 64 || threads > 1024) return refuse(INVALID_VALUE, "%s: blocks of %ux%ux%u threads; 1024 can be had", name, bx, by, bz);
  if (threads > (unsigned)f->entry.max_threads)
    return refuse(INVALID_VALUE, "%s: blocks of %llu threads; it was compiled for %d", name, threads, f->entry.max_threads);
  if ((int)shared > f->dynamic_limit)
    return refuse(INVALID_VALUE, "%s: %u bytes of dynamic shared memory; the function is allowed %d", name, shared, f->dynamic_limit);
  const void *args = nullptr;
  if (extra) {
    size_t size = ~(size_t)0;
    for (int i = 0; extra[i]; i += 2) {
      if ((uintptr_t)extra[i] == 1) args = extra[i + 1];
      if ((uintptr_t)extra[i] == 2) size = *(size_t *)extra[i + 1];
    }
    if (size != ~(size_t)0 && size != f->kernel->args_size) return refuse(INVALID_VALUE, "%s: %zu bytes of arguments; it takes %zu", name, size, f->kernel->args_size);
  } else if (params) {
    args = params[0];
  }
  if (!args) return refuse(INVALID_VALUE, "%s: no arguments", name);
  std::string bytes((const char *)args, f->kernel->args_size);
  const emu::Kernel *k = f->kernel;
  return add(of(stream), {f->name, [k, g, bytes]() -> CUresult {
                            if (CUresult r = told_to_fail(k->name, LAUNCH_FAILED)) return refuse(r, "%s: told to fail by MEAP_FAKE_FAIL", k->name);
                            alignas(64) char args[4096];
                            memcpy(args, bytes.data(), bytes.size());
                            std::string error = emu::launch(*k, g, args, strtoull(knob("MEAP_FAKE_SEED", "0"), nullptr, 10));
                            if (error.empty()) {
                              error = broken_guard();
                              if (!error.empty()) error = std::string(k->name) + " " + error;
                            }
                            if (error.empty()) return SUCCESS;
                            fprintf(stderr, "emulated GPU: %s\n", error.c_str());
                            return refuse(error.find("access to") != std::string::npos ? ILLEGAL_ADDRESS : LAUNCH_FAILED, "%s", error.c_str());
                          }});
}

// Graphs.

API CUresult cuStreamBeginCapture_v2(void *handle, int mode) {
  ENTER("cuStreamBeginCapture");
  Stream *s = of(handle);
  if (s == legacy()) return refuse(CAPTURE_UNSUPPORTED, "the legacy stream cannot be captured");
  if (s->capture) return refuse(INVALID_VALUE, "the stream is captured already");
  s->capture = std::make_shared<Graph>();
  s->origin = true, s->mode = mode;
  return SUCCESS;
}
API CUresult cuStreamEndCapture(void *handle, GraphHandle **out) {
  LOCK;
  *out = nullptr;
  Stream *s = of(handle);
  if (!s->capture || !s->origin) return refuse(CAPTURE_UNMATCHED, "cuStreamEndCapture on a stream whose capture did not begin there");
  auto graph = s->capture;
  bool loose = false;
  for (auto *o : streams)
    if (o->capture == graph) {
      if (o != s) loose = loose || o->loose;
      o->capture = nullptr;
      o->origin = o->loose = false;
    }
  if (graph->invalid) return CAPTURE_INVALIDATED;
  if (loose) return refuse(CAPTURE_UNJOINED, "a stream that joined the capture was not waited for");
  *out = new GraphHandle{graph};
  record("cuStreamEndCapture nodes=%zu", graph->ops.size());
  return SUCCESS;
}
API CUresult cuStreamIsCapturing(void *handle, int *status) {
  LOCK;
  Stream *s = of(handle);
  *status = !s->capture ? 0 : s->capture->invalid ? 2 : 1;
  return SUCCESS;
}
API CUresult cuThreadExchangeStreamCaptureMode(int *) { return SUCCESS; }
static CUresult instantiate(GraphExec **e, GraphHandle *g) {
  *e = new GraphExec{g->graph};
  record("cuGraphInstantiate nodes=%zu", g->graph->ops.size());
  return SUCCESS;
}
API CUresult cuGraphInstantiateWithFlags(GraphExec **e, GraphHandle *g, unsigned long long) {
  ENTER("cuGraphInstantiate");
  return instantiate(e, g);
}
API CUresult cuGraphInstantiate_v2(GraphExec **e, GraphHandle *g, void **, char *, size_t) {
  ENTER("cuGraphInstantiate");
  return instantiate(e, g);
}
API CUresult cuGraphInstantiate(GraphExec **e, GraphHandle *g, void **, char *, size_t) {
  ENTER("cuGraphInstantiate");
  return instantiate(e, g);
}
API CUresult cuGraphGetNodes(GraphHandle *g, void **nodes, size_t *n) {
  LOCK;
  if (!nodes) *n = g->graph->ops.size();
  for (size_t i = 0; nodes && i < *n; i++) nodes[i] = i < g->graph->ops.size() ? &g->graph->ops[i] : nullptr;
  return SUCCESS;
}
API CUresult cuGraphUpload(GraphExec *, void *) { return SUCCESS; }
API CUresult cuGraphLaunch(GraphExec *e, void *stream) {
  ENTER("cuGraphLaunch");
  record("cuGraphLaunch nodes=%zu", e->graph->ops.size());
  auto graph = e->graph;
  return add(of(stream), {"cuGraphLaunch", [graph]() -> CUresult {
                            for (auto &op : graph->ops)
                              if (op.run)
                                if (CUresult r = op.run()) return r;
                            return SUCCESS;
                          }});
}
API CUresult cuGraphExecUpdate_v2(GraphExec *e, GraphHandle *g, int *result) {
  ENTER("cuGraphExecUpdate");
  if (result) memset(result, 0, 24);
  if (e->graph->ops.size() != g->graph->ops.size()) return refuse(910, "the graphs differ in their nodes");
  e->graph = g->graph;
  return SUCCESS;
}
API CUresult cuGraphExecDestroy(GraphExec *e) {
  LOCK;
  drain_all();
  delete e;
  return SUCCESS;
}
API CUresult cuGraphDestroy(GraphHandle *g) {
  LOCK;
  delete g;
  return SUCCESS;
}
API CUresult cuProfilerStart() { return SUCCESS; }
API CUresult cuProfilerStop() { return SUCCESS; }
