package cpu

import (
	"fmt"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// Device runs graphs on this machine's processor. The files ops_*.go bind graph's operators to the kernels of this package.
type Device struct {
	graph.HostMemory
	k *Kernels
}

// NewDevice returns a device with a pool of its own: threads 0 takes one per core, isa "auto" or "" the best there is.
func NewDevice(threads int, isa string) (*Device, error) {
	level := DetectISA()
	if isa != "" && isa != "auto" {
		var err error
		if level, err = ParseISA(isa); err != nil {
			return nil, err
		}
	}
	pool := NewPool(threads)
	k, err := NewKernels(pool, level)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &Device{k: k}, nil
}

// Name implements graph.Device.
func (d *Device) Name() string {
	return fmt.Sprintf("cpu (%s, threads %d)", d.k.ISA(), d.k.Pool().Threads())
}

// Kernels are what the device computes with.
func (d *Device) Kernels() *Kernels { return d.k }

// Close ends the pool's goroutines.
func (d *Device) Close() { d.k.Pool().Close() }

// Kernel implements graph.Device. It computes in fp32; the bf16 precision of an operator rounds the operands of its products.
func (d *Device) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	for _, t := range append(append([]graph.Desc(nil), in...), out...) {
		if t.Dtype != graph.F32 && t.Dtype != graph.I32 {
			return nil, fmt.Errorf("the cpu device computes in fp32, not in %v", t.Dtype)
		}
	}
	switch s := op.(type) {
	case graph.Linear:
		return d.linear(s), nil
	case graph.LinearDX:
		return d.linearDX(s), nil
	case graph.LinearDW:
		return d.linearDW(s), nil
	}
	return naive.Device[float32]{}.Kernel(op, in, out)
}
