// Device memory: every allocation ends at a page that cannot be touched, and lies between bytes that must not change. Pinned host memory,
// copies, and what fills memory.
#include "driver.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

#include "launch.h"

namespace {

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

std::map<void *, size_t> pinned;

} // namespace

size_t driver::total_memory() { return size_knob("MEAP_FAKE_MEMORY", 8ull << 30); }

bool driver::inside(CUdeviceptr p, size_t n) {
  auto i = allocations.upper_bound((uintptr_t)p);
  if (i == allocations.begin()) return n == 0;
  --i;
  return (uintptr_t)p + n <= i->first + i->second.bytes;
}

std::string driver::broken_guard() {
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
