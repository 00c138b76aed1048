package cpu

import (
	"fmt"

	"meap/pkg/graph"
)

// Device runs graphs on this machine's processor. The files ops_*.go bind graph's operators to the kernels of this package.
type Device struct {
	graph.HostMemory
	k       *Kernels
	buffer  []float32
	scratch []float32 // see reserve
}

// NewDevice returns a device with a pool of its own: threads 0 takes one per core, isa "auto" or "" the best there is.
func NewDevice(threads int, isa string) (*Device, error) {
	level, err := ParseISA(isa)
	if err != nil {
		return nil, err
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
	case graph.ColumnSum:
		return d.columnSum(s), nil
	case graph.RMSNorm:
		return d.rmsNorm(s), nil
	case graph.RMSNormGrad:
		return d.rmsNormGrad(s, in[0]), nil
	case graph.RoPE:
		return d.rope(s), nil
	case graph.Attention:
		return d.attention(s, in[0]), nil
	case graph.AttentionGrad:
		return d.attentionGrad(s, in[0]), nil
	case graph.CachedAttention:
		return d.cachedAttention(s, in[0], in[3]), nil
	case graph.Add:
		return d.add(), nil
	case graph.SwiGLU:
		return d.swiGLU(), nil
	case graph.SwiGLUGrad:
		return d.swiGLUGrad(), nil
	case graph.Embedding:
		return d.embedding(), nil
	case graph.EmbeddingGrad:
		return d.embeddingGrad(s), nil
	case graph.LinearCrossEntropy:
		return d.crossEntropy(s, in[0], in[1]), nil
	case graph.LinearCrossEntropyGrad:
		return d.crossEntropyGrad(s, in[0], in[1]), nil
	case graph.WeightedSum:
		return weightedSum, nil
	case graph.WeightedSumGrad:
		return weightedSumGrad, nil
	case graph.Accumulate:
		return d.accumulate(), nil
	case graph.GradNorm:
		return d.gradNorm(in), nil
	case graph.StepReport:
		return stepReport, nil
	case graph.AdamW:
		return d.adamW(s), nil
	}
	return nil, fmt.Errorf("the cpu device has no kernel for %T", op)
}

// reserve makes the scratch memory that kernels share hold at least n floats. One kernel runs at a time, and each reads
// d.scratch when it runs.
func (d *Device) reserve(n int) {
	if n > len(d.scratch) {
		d.scratch = scratch(&d.buffer, n)
	}
}
