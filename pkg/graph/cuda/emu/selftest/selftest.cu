// Small kernels whose results are known, and ones that do what they must not.
#include "args.h"

extern "C" __global__ void meap_saxpy(const SaxpyArgs a) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < a.n) a.y[i] += a.a * a.x[i];
}

// One block: a tree over shared memory. Mode 1 leaves a barrier out.
extern "C" __global__ void meap_blocksum(const BufferArgs a) {
  MEAP_SHARED(float, sums, 256);
  int t = threadIdx.x;
  sums[t] = t < a.n ? a.in[t] : 0;
  if (a.mode != 1) __syncthreads();
  for (int s = 128; s > 0; s >>= 1) {
    if (t < s) sums[t] += sums[t + s];
    if (a.mode != 1) __syncthreads();
  }
  if (t == 0) a.out[0] = sums[0];
}

extern "C" __global__ void meap_warpsum(const BufferArgs a) {
  float v = a.in[threadIdx.x];
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1);
  float up = __shfl_up_sync(0xffffffffu, a.in[threadIdx.x], 1), down = __shfl_down_sync(0xffffffffu, a.in[threadIdx.x], 3, 8);
  a.out[threadIdx.x] = odd == 0xaaaaaaaau ? v : -1;
  a.out[32 + threadIdx.x] = up;
  a.out[64 + threadIdx.x] = down;
}

// d[16,8] = a[16,16] b[16,8] + c, a and b row by row: fragments loaded by hand as the PTX ISA lays them out.
extern "C" __global__ void meap_mma(const MmaArgs x) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned a[4], b[2];
  for (int r = 0; r < 4; r++) {
    const unsigned short *p = x.a + (g + 8 * (r & 1)) * 16 + 2 * t + 8 * (r >> 1);
    a[r] = p[0] | (unsigned)p[1] << 16;
  }
  for (int r = 0; r < 2; r++) {
    const unsigned short *p = x.b + (2 * t + 8 * r) * 8 + g;
    b[r] = p[0] | (unsigned)p[8] << 16;
  }
  float c[4], d[4];
  for (int r = 0; r < 4; r++) c[r] = x.c[(g + 8 * (r >> 1)) * 8 + 2 * t + (r & 1)];
  emu::mma_m16n8k16_bf16(d, a, b, c);
  for (int r = 0; r < 4; r++) x.d[(g + 8 * (r >> 1)) * 8 + 2 * t + (r & 1)] = d[r];
}

// Four 8 x 8 matrices, one after another in memory.
extern "C" __global__ void meap_ldmatrix(const WordsArgs a) {
  MEAP_DYN_SHARED(unsigned short, tile);
  for (int i = threadIdx.x; i < 256; i += 32) tile[i] = a.in[i];
  __syncwarp();
  unsigned r[4];
  if (a.trans)
    emu::ldmatrix<4, true>(r, tile + 8 * threadIdx.x);
  else
    emu::ldmatrix<4, false>(r, tile + 8 * threadIdx.x);
  for (int i = 0; i < 4; i++) a.out[32 * i + threadIdx.x] = r[i];
}

// Copies n tiles of 128 floats through two buffers. Mode 1 reads a tile before it has arrived.
extern "C" __global__ void meap_pipeline(const BufferArgs a) {
  MEAP_SHARED(float, tile, 256);
  int t = threadIdx.x; // 32 threads, 16 bytes each
  emu::cp_async(tile + 4 * t, a.in + 4 * t, 16);
  emu::cp_async_commit();
  for (int i = 0; i < a.n; i++) {
    if (i + 1 < a.n) emu::cp_async(tile + 128 * ((i + 1) & 1) + 4 * t, a.in + 128 * (i + 1) + 4 * t, 16);
    emu::cp_async_commit();
    emu::cp_async_wait(a.mode == 1 ? 2 : 1);
    __syncthreads();
    for (int j = t; j < 128; j += 32) a.out[128 * i + j] = tile[128 * (i & 1) + (j ^ 64)];
    __syncthreads();
  }
}

extern "C" __global__ void meap_wrong(const BufferArgs a) {
  MEAP_SHARED(float, buffer, 32);
  switch (a.mode) {
  case 0: // out of bounds
    a.out[a.n + threadIdx.x] = 1;
    break;
  case 1: // some lanes shuffle, others wait
    if (threadIdx.x < 16)
      __shfl_sync(0xffffffffu, 1, 0);
    else
      __syncthreads();
    break;
  case 2: // barriers at different places
    if (threadIdx.x < 32)
      __syncthreads();
    else
      __syncthreads();
    break;
  case 3: // a lane has gone
    if (threadIdx.x == 5) return;
    __shfl_sync(0xffffffffu, 1, 0);
    break;
  case 4: // behind shared memory
    (&buffer[0])[a.n - 38 + threadIdx.x % 4] = 1;
    break;
  case 5: // the mask leaves the caller out
    __shfl_sync(0xffff0000u, 1, 16);
    break;
  case 6: // just behind the allocation
    if (threadIdx.x == 0) a.out[a.n] = 1;
    break;
  case 7: // a named barrier for more threads than come
    if (threadIdx.x < 32) emu::barrier(1, 64, __FILE__, __LINE__);
    break;
  }
}
