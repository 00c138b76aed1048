// How the fake driver runs a kernel.
#pragma once

#include <cstddef>
#include <string>

namespace emu {

struct Kernel {
  const char *name;
  void (*call)(const void *args); // copies the one parameter out of args and calls the kernel
  size_t args_size;
};

// find returns the kernel of that name, or null. The table is MEAP_KERNELS of csrc/args.h.
const Kernel *find(const char *name);

struct Geometry {
  unsigned grid[3], block[3];
  unsigned shared; // bytes of dynamic shared memory
};

// launch runs every block. The error is empty, or says what the kernel did wrong, and where.
std::string launch(const Kernel &k, const Geometry &g, const void *args, unsigned long long seed);

// parallel calls f(data, i) for i in 0..n-1 on the worker threads.
void parallel(int n, void (*f)(void *data, int i), void *data);

// owner describes an address of device memory, for messages; the driver knows.
std::string owner(const void *p);

} // namespace emu
