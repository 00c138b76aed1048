//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"fmt"
	"unsafe"

	"meap/pkg/graph"
)

// product is a matrix product in row-major order, of one of three forms:
//
//	nt: d [m, n] = a [m, k] b [n, k]ᵀ
//	nn: d [m, n] = a [m, k] b [k, n]
//	tn: d [m, n] = a [k, m]ᵀ b [k, n]
//
// a and b have one type, F32 or BF16; d that type or F32. Sums are taken in fp32.
type product struct {
	form    form
	m, n, k int
	in, out graph.Dtype
	// aligned is what the addresses of a, b and d are multiples of.
	aligned [3]int
}

type form uint8

const (
	nt form = iota
	nn
	tn
)

func cudaType(t graph.Dtype) C.int {
	if t == graph.BF16 {
		return 14 // CUDA_R_16BF
	}
	return 0 // CUDA_R_32F
}

func (p product) String() string {
	return fmt.Sprintf("%v %dx%dx%d of %v", [...]string{"nt", "nn", "tn"}[p.form], p.m, p.n, p.k, p.in)
}

// plan chooses an algorithm for a product, once for each; nil where cuBLASLt has none.
func (d *Device) plan(p product) (*C.meap_lt_plan, error) {
	if plan, ok := d.plans[p]; ok {
		return plan, nil
	}
	// cuBLASLt is column-major: it computes dᵀ [n, m], with b as its first operand and a as its second.
	c := C.meap_product{
		m: C.uint64_t(p.n), n: C.uint64_t(p.m), k: C.uint64_t(p.k),
		_type: cudaType(p.in), dtype: cudaType(p.out),
		lda: C.int64_t(p.n), ldb: C.int64_t(p.k), ldd: C.int64_t(p.n),
		aligna: C.uint(p.aligned[1]), alignb: C.uint(p.aligned[0]), alignd: C.uint(p.aligned[2]), workspace: workspaceBytes,
	}
	switch p.form {
	case nt:
		c.transa, c.lda = 1, C.int64_t(p.k)
	case tn:
		c.transb, c.ldb = 1, C.int64_t(p.m)
	}
	var plan *C.meap_lt_plan
	if st := C.meap_lt_plan_new(d.lt, d.ctx, &c, &plan); st != 0 {
		return nil, fmt.Errorf("plan the product %v: %w", p, ltError(st))
	}
	d.plans[p] = plan
	return plan, nil
}

// multiplier queues a product: d = a b, plus c unless that is 0. c is of d's shape and type, and may be d. Where d is bf16, a library may
// round the product before c is added.
type multiplier func(a, b, c, d addr) error

// multiply returns what queues a product. Where cuBLASLt has no algorithm, as it may for sizes that
// are no multiples of 8, a slower kernel of our own computes it.
func (d *Device) multiply(p product) (multiplier, error) {
	plan, err := d.plan(p)
	if err != nil {
		return nil, err
	}
	if plan == nil {
		d.warnOnce(fmt.Errorf("cuBLASLt (%s) has no algorithm for the product %v; it is computed without tensor cores, which is slower: "+
			"make the model's sizes multiples of 8", d.ltPath, p))
		return d.multiplyAnyhow(p), nil
	}
	return func(a, b, c, dst addr) error {
		if d.lost != nil {
			return d.lost
		}
		st := C.meap_lt_run(d.lt, d.ctx, plan, C.uint64_t(b), C.uint64_t(a), C.uint64_t(c), C.uint64_t(dst), C.uint64_t(d.workspace), workspaceBytes, d.compute)
		if st != 0 {
			return fmt.Errorf("queue the product %v: %w", p, ltError(st))
		}
		return nil
	}, nil
}

// multiplyAnyhow is multiply by a kernel that takes any shape and alignment.
func (d *Device) multiplyAnyhow(p product) multiplier {
	name := "product" + suffix(p.in)
	if p.in != p.out {
		name += suffix(p.out)
	}
	a := &productArgs{m: int32(p.m), n: int32(p.n), k: int32(p.k), aRow: int64(p.k), aColumn: 1, bRow: int64(p.n), bColumn: 1}
	switch p.form {
	case nt:
		a.bRow, a.bColumn = 1, int64(p.k)
	case tn:
		a.aRow, a.aColumn = 1, int64(p.m)
	}
	g := grid{x: ceilDiv(p.n, productTile), y: ceilDiv(p.m, productTile)}
	return func(x, y, c, dst addr) error {
		a.a, a.b, a.c, a.d = x, y, c, dst
		return d.launch(name, g, blockThreads, 0, unsafe.Pointer(a))
	}
}

// ltError names a cublasStatus_t.
func ltError(st C.int) error {
	names := map[C.int]string{1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR", 13: "EXECUTION_FAILED",
		14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED"}
	if name, ok := names[st]; ok {
		return fmt.Errorf("CUBLAS_STATUS_%s (%d)", name, int(st))
	}
	return fmt.Errorf("cuBLASLt status %d", int(st))
}
