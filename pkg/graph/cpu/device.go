package cpu

import (
	"fmt"
	"os"
	"unsafe"

	"meap/pkg/graph"
)

// Device runs graphs on this machine's processor. The files ops_*.go bind graph's operators to the kernels of this package.
type Device struct {
	graph.HostMemory
	k      *Kernels
	pieces [][]float32 // per worker; see places
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
	return &Device{k: k, pieces: make([][]float32, pool.Threads())}, nil
}

// Name implements graph.Device.
func (d *Device) Name() string {
	return fmt.Sprintf("cpu (%s, threads %d)", d.k.ISA(), d.k.Pool().Threads())
}

// Kernels are what the device computes with.
func (d *Device) Kernels() *Kernels { return d.k }

// Close ends the pool's goroutines.
func (d *Device) Close() { d.k.Pool().Close() }

// Touch implements graph.Toucher.
func (d *Device) Touch(m graph.Memory) {
	const piece = 4 << 20
	bytes, page := unsafe.Slice((*byte)(m.Host), m.Bytes), os.Getpagesize()
	newSpread(d.k.pool, func(lo, hi, _ int) {
		for i := lo; i < hi; i += page {
			bytes[i] = 0
		}
	}).run(m.Bytes, piece)
}

// Storage implements graph.Storer: where products round their operands to bf16, activations are stored in it.
func (d *Device) Storage(p graph.Precision) graph.Dtype { return p.Operands() }

// PlainWeights implements graph.WeightReader: products round weights while they pack them.
func (d *Device) PlainWeights() {}

// Adds implements graph.Adder.
func (d *Device) Adds(op graph.Spec) bool { return Planner{}.Adds(op) }

// Overwrites implements graph.Overwriter.
func (d *Device) Overwrites(op graph.Spec, operand int) bool {
	return Planner{}.Overwrites(op, operand)
}

// Planner is a graph.Planner of a Device. The memory of kernels, a few blocks of a matrix for each thread and the logits that exist at a
// time, is not in it.
type Planner struct{}

// Storage implements graph.Planner.
func (Planner) Storage(p graph.Precision) graph.Dtype { return p.Operands() }

// Adds implements graph.Adder: the sums of a product begin with the operand that is added.
func (Planner) Adds(graph.Spec) bool { return true }

// Overwrites implements graph.Overwriter.
func (Planner) Overwrites(op graph.Spec, operand int) bool { return graph.ReadBefore(op, operand) }

// PlainWeights implements graph.WeightReader.
func (Planner) PlainWeights() {}

// KernelBytes implements graph.Planner.
func (Planner) KernelBytes(graph.Spec, []graph.Desc, []graph.Desc) (own, scratch int) { return 0, 0 }

// DeviceBytes implements graph.Planner.
func (Planner) DeviceBytes() int { return 0 }

// Kernel implements graph.Device. It computes in fp32; the bf16 precision of an operator rounds the operands of its products. Activations
// and the weights of products may be stored in bf16.
func (d *Device) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	if err := checkTypes(op, in, out); err != nil {
		return nil, err
	}
	if graph.Remakes(op) {
		return nil, fmt.Errorf("the cpu device makes results again by their own kernels, not in %s", graph.Kind(op))
	}
	switch s := op.(type) {
	case graph.Linear:
		return d.linear(s, in[0], in[1], out[0]), nil
	case graph.LinearDX:
		return d.linearDX(s, in[0], in[1], out[0]), nil
	case graph.LinearDW:
		return d.linearDW(s, in[0], in[1]), nil
	case graph.ColumnSum:
		return d.columnSum(s, in[0]), nil
	case graph.RMSNorm:
		return d.rmsNorm(s, in[0]), nil
	case graph.RMSNormGrad:
		return d.rmsNormGrad(s, in[0]), nil
	case graph.RoPE:
		return d.rope(s, in[0]), nil
	case graph.Attention:
		return d.attention(s, in[0]), nil
	case graph.AttentionGrad:
		return d.attentionGrad(s, in[0]), nil
	case graph.CachedAttention:
		return d.cachedAttention(s, in[0], in[3]), nil
	case graph.Add:
		return d.pairwise(out[0], d.k.Add), nil
	case graph.SwiGLU:
		return d.pairwise(out[0], d.k.SwiGLU), nil
	case graph.SwiGLUGrad:
		return d.swiGLUGrad(out[0]), nil
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
	case graph.Cast:
		return d.cast(), nil
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

// checkTypes refuses what is not fp32 or int32, but where an activation or the weight of a product may be bf16 as well.
func checkTypes(op graph.Spec, in, out []graph.Desc) error {
	stored := func(ds []graph.Desc) []graph.Desc {
		wide := append([]graph.Desc(nil), ds...)
		for i := range wide {
			if wide[i].Dtype == graph.BF16 {
				wide[i].Dtype = graph.F32
			}
		}
		return wide
	}
	ins, outs := graph.Stored(op, stored(in), graph.BF16)
	check := func(have, may []graph.Desc) error {
		for i, d := range have {
			_, isCast := op.(graph.Cast)
			if d.Dtype == graph.F32 || d.Dtype == graph.I32 || d.Dtype == graph.BF16 && (isCast || may[i].Dtype == graph.BF16) {
				continue
			}
			return fmt.Errorf("the cpu device takes no %v here", d.Dtype)
		}
		return nil
	}
	if err := check(in, ins); err != nil {
		return err
	}
	return check(out, outs)
}

// reserve makes the memory that kernels share hold at least n floats, so that it need not grow when they run.
func (d *Device) reserve(n int) { d.k.shared(n) }
