// All kernels as one module; the emulator compiles each file by itself.
#ifndef MEAP_EMULATE
#include "elementwise.cu"
#include "norm.cu"
#include "loss.cu"
#include "update.cu"
#include "embedding.cu"
#include "attention_general.cu"
#include "attention_forward.cu"
#include "attention_backward.cu"
#include "attention_cached.cu"
#include "product.cu"
#endif
