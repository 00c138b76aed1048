// Modules and launches: what a loader and a launch complain about, and kernels on emulated blocks.
#include "driver.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "launch.h"

API CUresult cuDeviceGetAttribute(int *v, int attribute, int device);

namespace {

struct Entry { long params = -1; int max_threads = 1024; };
struct Module { std::map<std::string, Entry> entries; std::map<std::string, struct Function *> functions; };
struct Function { std::string name; Entry entry; const emu::Kernel *kernel; int dynamic_limit = 49152; };

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
  if (target[11 + strspn(target + 11, "0123456789")] == 'a' && sm != capability()) {
    log = "PTX for sm_" + std::to_string(sm) + " alone on a device of compute capability " + std::to_string(capability());
    return NO_BINARY_FOR_GPU;
  }
  if (atoi(version + 9) >= 8 && atoi(knob("MEAP_FAKE_DRIVER", "12040")) < 12000) {
    log = "PTX of version 8 or later needs a driver for CUDA 12";
    return UNSUPPORTED_PTX_VERSION;
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

} // namespace

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
