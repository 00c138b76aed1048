// The table of the project's kernels, from csrc/args.h.
#include "emu.h"

#include "args.h"
#include "launch.h"

// Weak, so that what csrc does not define yet is missing when it is asked for, not when this is linked.
#define X(name, Args) extern "C" __attribute__((weak)) void meap_##name(const Args);
MEAP_KERNELS(X)
#undef X

namespace emu {

static const struct { Kernel kernel; bool defined; } table[] = {
#define X(name, Args) {{"meap_" #name, [](const void *p) { meap_##name(*(const Args *)p); }, sizeof(Args)}, meap_##name != nullptr},
    MEAP_KERNELS(X)
#undef X
};

const Kernel *find(const char *name) {
  for (auto &k : table)
    if (k.defined && !strcmp(k.kernel.name, name)) return &k.kernel;
  return nullptr;
}

} // namespace emu
