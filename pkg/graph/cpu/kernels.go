package cpu

import (
	"fmt"
	"slices"
	"unsafe"
)

//go:generate go run ./gen csrc/gemm_avx512.c gemm_avx512_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
//go:generate go run ./gen csrc/gemm_avx512bf16.c gemm_avx512bf16_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma
//go:generate go run ./gen csrc/gemm_amx.c gemm_amx_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma -mamx-tile -mamx-bf16
//go:generate go run ./gen csrc/gemm_avx2.c gemm_avx2_amd64.s clang-19 -mavx2 -mfma
//go:generate go run ./gen csrc/gemv_avx2.c gemv_avx2_amd64.s clang-19 -mavx2 -mfma
//go:generate go run ./gen csrc/vec_avx512.c vec_avx512_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
//go:generate go run ./gen csrc/vec_avx2.c vec_avx2_amd64.s clang-19 -mavx2 -mfma
//go:generate go run ./gen csrc/gemm_neon.c gemm_neon_arm64.s clang-19
//go:generate go run ./gen csrc/gemv_neon.c gemv_neon_arm64.s clang-19
//go:generate go run ./gen csrc/vec_neon.c vec_neon_arm64.s clang-19

// Kernels computes with one instruction set on one pool. The methods that take
// whole matrices (Mul, NT, NN, TN, attention) run on the pool and keep scratch
// space in the struct: one goroutine at a time may use them, and not from an
// item of the same pool. The methods on rows and vectors keep nothing, run on
// the goroutine that calls them, and may be called from anywhere.
type Kernels struct {
	pool      *Pool
	isa       ISA
	vec       ISA // of the kernels on rows and vectors, which AMX has none of
	gemm      gemm
	attention attention
	sharedBuf []float32
}

// NewKernels returns kernels of the given level that run on pool. It fails where
// this machine does not run that level; see [AvailableISAs].
func NewKernels(pool *Pool, isa ISA) (*Kernels, error) {
	available := AvailableISAs()
	if !slices.Contains(available, isa) {
		return nil, fmt.Errorf("cpu-isa %s is not available on this processor: choose one of %s", isa, joinISAs(available))
	}
	k := &Kernels{pool: pool, isa: isa, vec: min(isa, AVX512)}
	k.gemm.init(pool, isa, k.vec)
	k.attention.init(k)
	return k, nil
}

// shared returns n floats of memory that kernels share, of which one runs at a time.
func (k *Kernels) shared(n int) []float32 { return scratch(&k.sharedBuf, n) }

// Pool is the pool that the kernels run on.
func (k *Kernels) Pool() *Pool { return k.pool }

// ISA is the level of the kernels.
func (k *Kernels) ISA() ISA { return k.isa }

// The arguments of the machine-code kernels, laid out as the structs of
// csrc/args.h. Pointers are kept as such, not as integers, because a slice of
// the caller may live on a stack, and stacks move.
type (
	gemmArgs struct {
		a, b, c         unsafe.Pointer
		ldc, k, m, cols int64
		acc             int64
	}
	tilesArgs struct {
		gemmArgs
		aStride, bStride int64
		//lint:ignore U1000 for AMX, thus on amd64 only
		edge, config unsafe.Pointer
	}
	gemvArgs struct {
		a, b, c               unsafe.Pointer
		k, cols, acc, mr, ldb int64
	}
	packArgs struct {
		src, dst                   unsafe.Pointer
		ld, have, lanes, k, stride int64
	}
	vecArgs struct {
		a, b, c, d, e unsafe.Pointer
		n             int64
		s             [8]float32
		sum           float64
	}
	tileArgs struct {
		s, dp, ranges, max, sum, out, lse, delta unsafe.Pointer
		rows, cols, ld, width                    int64
		scale, _                                 float32
	}
)

// vecOp is a kernel on rows and vectors. What each does to the fields of vecArgs
// stands in csrc/vec.h, and runVec, one per architecture, calls it.
type vecOp int

const (
	opExp vecOp = iota
	opExpScale
	opExpSum
	opMax
	opSwiGLU
	opSwiGLUGrad
	opAxpy
	opAdd
	opScale
	opDot
	opScaleMul
	opDot3
	opRMSNormGrad
	opRoPE
	opAdamW
	opWiden
	opNarrow
)

// tileOp is a kernel on tiles of attention scores, called by runTile.
type tileOp int

const (
	opSoftmaxTile tileOp = iota
	opSoftmaxTileGrad
)

func ptr(x []float32) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(x)) }

// scratch returns n floats that start on a cache line, from a buffer that grows
// when it must and is kept.
func scratch(buf *[]float32, n int) []float32 {
	const line = 16
	if cap(*buf) < n+line {
		*buf = make([]float32, n+line)
	}
	b := (*buf)[:n+line]
	skip := int(-uintptr(unsafe.Pointer(&b[0]))&63) / 4
	return b[skip : skip+n]
}
