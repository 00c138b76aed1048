// What the files of the fake CUDA driver (libcuda.so.1), whose device is the CPU, share: knobs (../README.md), errors, memory, streams.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

typedef int CUresult;
typedef unsigned long long CUdeviceptr;

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209, INVALID_PTX = 218, UNSUPPORTED_PTX_VERSION = 222, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
  ILLEGAL_ADDRESS = 700, LAUNCH_OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903, CAPTURE_UNJOINED = 904, CAPTURE_IMPLICIT = 906, UNKNOWN = 999,
};

namespace driver {

// driver.cpp: knobs, the log, errors, the device.

extern std::recursive_mutex big_lock;
#define LOCK std::lock_guard<std::recursive_mutex> hold(driver::big_lock)

// Knobs are read when they are needed, so that a test may change them.
const char *knob(const char *name, const char *otherwise = "");
unsigned long long size_knob(const char *name, unsigned long long otherwise);
void record(const char *format, ...) __attribute__((format(printf, 1, 2)));

extern std::string detail; // what cuGetErrorString adds to the last failure
extern CUresult sticky;    // an error of a kernel stays until the process ends, as on a GPU
CUresult refuse(CUresult code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// told_to_fail answers MEAP_FAKE_FAIL: NAME[@N][=CODE],... makes the N-th (first, if not given) call of a driver's function, or
// launch of a kernel, fail with that code.
CUresult told_to_fail(const char *name, CUresult otherwise);

// Every entry point begins with this.
#define ENTER(name)                                                                    \
  LOCK;                                                                                \
  if (sticky) return sticky;                                                           \
  if (CUresult told = told_to_fail(name, OUT_OF_MEMORY)) return refuse(told, name ": told to fail by MEAP_FAKE_FAIL")

extern thread_local void *current; // context
#define NEED_CONTEXT(name) \
  if (!current) return refuse(INVALID_CONTEXT, name " on a thread without a context")

int capability(); // compute capability, 80 for 8.0

// memory.cpp

size_t total_memory();
bool inside(CUdeviceptr p, size_t n); // whether n bytes from p belong to one allocation
std::string broken_guard();           // what is wrong with the bytes around allocations, or nothing

// streams.cpp

struct Graph;
struct Stream;
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

Stream *legacy();         // the stream 0
Stream *of(void *handle); // a driver's handle
CUresult add(Stream *s, Op op);
CUresult drain(Stream *s); // does what is queued
CUresult drain_all();
CUresult drain_blocking(); // what the host waits for in a call on the legacy stream
bool capturing_strictly();
void invalidate(); // ends the captures that are under way

} // namespace driver

using namespace driver;
