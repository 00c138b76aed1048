// The driver itself, its device and contexts.
#include "driver.h"

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "launch.h"

namespace driver {

std::recursive_mutex big_lock;
thread_local void *current;

const char *knob(const char *name, const char *otherwise) {
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

std::string detail;
CUresult sticky;

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

int capability() { return atoi(knob("MEAP_FAKE_CC", "80")); }

} // namespace driver

static bool initialised;

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
      {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"}, {218, "CUDA_ERROR_INVALID_PTX"}, {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
      {400, "CUDA_ERROR_INVALID_HANDLE"}, {500, "CUDA_ERROR_NOT_FOUND"},
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
