// The self-test's kernels, declared as csrc/args.h declares the project's.
#pragma once
struct SaxpyArgs { float *y; const float *x; float a; int n; };
struct BufferArgs { float *out; const float *in; int n, mode; };
struct MmaArgs { float *d; const unsigned short *a, *b; const float *c; };
struct WordsArgs { unsigned *out; const unsigned short *in; int n, trans; };
#define MEAP_KERNELS(X) \
  X(saxpy, SaxpyArgs)   \
  X(blocksum, BufferArgs) \
  X(warpsum, BufferArgs) \
  X(mma, MmaArgs) \
  X(ldmatrix, WordsArgs) \
  X(pipeline, BufferArgs) \
  X(wrong, BufferArgs)
