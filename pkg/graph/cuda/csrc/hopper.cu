// The kernels for compute capability 9.0 alone as one module; the emulator compiles each file by itself.
#ifndef MEAP_EMULATE
#include "attention_hopper.cu"
#endif
