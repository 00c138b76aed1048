//go:build gpu && linux

package cuda

import (
	"fmt"
	"unsafe"

	"meap/pkg/graph"
)

// Kernel implements graph.Device. Floating-point operands are fp32 or, for activations and the weights of products, bf16.
func (d *Device) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	if d.lost != nil {
		return nil, d.lost
	}
	for _, t := range append(append([]graph.Desc(nil), in...), out...) {
		if t.Dtype == graph.F64 {
			return nil, fmt.Errorf("the cuda device computes in fp32 and bf16, not in %v", t.Dtype)
		}
	}
	switch s := op.(type) {
	case graph.Linear:
		return d.linear(s, in, out)
	case graph.LinearDX:
		return d.linearDX(s, in, out)
	case graph.LinearDW:
		return d.linearDW(s, in, out)
	case graph.ColumnSum:
		return d.columnSum(s, in)
	case graph.RMSNorm:
		return d.rmsNorm(s, in, out)
	case graph.RMSNormGrad:
		return d.rmsNormGrad(s, in, out)
	case graph.RoPE:
		return d.rope(s, in, out)
	case graph.Attention:
		return d.attention(s, in, out)
	case graph.AttentionGrad:
		return d.attentionGrad(s, in, out)
	case graph.CachedAttention:
		return d.cachedAttention(s, in, out)
	case graph.Add:
		return d.add(s, in, out)
	case graph.SwiGLU:
		return d.swiGLU(s, in, out)
	case graph.SwiGLUGrad:
		return d.swiGLUGrad(s, in, out)
	case graph.Embedding:
		return d.embedding(s, in, out)
	case graph.EmbeddingGrad:
		return d.embeddingGrad(s, in, out)
	case graph.LinearCrossEntropy:
		return d.crossEntropy(s, in)
	case graph.LinearCrossEntropyGrad:
		return d.crossEntropyGrad(s, in, out)
	case graph.WeightedSum:
		return d.weightedSum(in)
	case graph.WeightedSumGrad:
		return d.weightedSumGrad(out)
	case graph.Accumulate:
		return d.accumulate(s, in)
	case graph.GradNorm:
		return d.gradNorm(s, in)
	case graph.StepReport:
		return d.stepReport()
	case graph.AdamW:
		return d.adamW(s, in)
	case graph.Cast:
		return d.cast(s, in, out)
	}
	return nil, fmt.Errorf("the cuda device has no kernel for %T", op)
}

// suffix names the kernels of a storage type.
func suffix(t graph.Dtype) string {
	if t == graph.BF16 {
		return "_bf16"
	}
	return "_f32"
}

// alike returns the common type of tensors that must have one.
func alike(s graph.Spec, ds ...graph.Desc) (graph.Dtype, error) {
	for _, d := range ds {
		if d.Dtype != ds[0].Dtype {
			return 0, fmt.Errorf("the cuda device has no kernel for %s of mixed types %v", graph.Kind(s), ds)
		}
	}
	return ds[0].Dtype, nil
}

// converted is a tensor as a kernel wants its type: itself, or a copy in scratch memory.
type converted struct {
	d    *Device
	at   int       // place in scratch memory, -1 for the tensor itself
	cast *castArgs // by itself: what C is given must not lie beside Go pointers
	load string    // the kernel that makes the copy, and
	save string    // the one that writes the tensor from it
}

// convert plans a tensor's conversion to the type t.
func (d *Device) convert(l *layout, x graph.Desc, t graph.Dtype) *converted {
	c := &converted{d: d, at: -1, cast: &castArgs{}}
	if x.Dtype != t {
		c.at, c.cast.n = l.add(x.Elems()*t.Size()), int64(x.Elems())
		c.load, c.save = "cast_f32_bf16", "cast_bf16_f32"
		if t == graph.F32 {
			c.load, c.save = c.save, c.load
		}
	}
	return c
}

// address returns where the tensor in the kernel's type is, or is to be written.
func (c *converted) address(b graph.Buffer) addr {
	if c.at < 0 {
		return b.Addr
	}
	return c.d.scratch + addr(c.at)
}

// read returns the address of an operand, after its conversion.
func (c *converted) read(b graph.Buffer) (addr, error) {
	a := c.address(b)
	if c.at < 0 {
		return a, nil
	}
	c.cast.x, c.cast.y = b.Addr, a
	return a, c.d.launch(c.load, c.d.elements(int(c.cast.n)), blockThreads, 0, unsafe.Pointer(c.cast))
}

// write converts a result that a kernel has written to address.
func (c *converted) write(b graph.Buffer) error {
	if c.at < 0 {
		return nil
	}
	c.cast.x, c.cast.y = c.address(b), b.Addr
	return c.d.launch(c.save, c.d.elements(int(c.cast.n)), blockThreads, 0, unsafe.Pointer(c.cast))
}

// readAll converts the operands in, of which cs[i] is the i-th, and puts their addresses into to.
func readAll(cs []*converted, in []graph.Buffer, to ...*addr) error {
	for i, c := range cs {
		a, err := c.read(in[i])
		if err != nil {
			return err
		}
		*to[i] = a
	}
	return nil
}

func (d *Device) cast(s graph.Cast, in, out []graph.Desc) (graph.Kernel, error) {
	var name string
	switch {
	case in[0].Dtype == graph.F32 && s.To == graph.BF16:
		name = "cast_f32_bf16"
	case in[0].Dtype == graph.BF16 && s.To == graph.F32:
		name = "cast_bf16_f32"
	default:
		return nil, fmt.Errorf("the cuda device cannot cast %v to %v", in[0].Dtype, s.To)
	}
	a := &castArgs{n: int64(out[0].Elems())}
	return func(in, out []graph.Buffer) error {
		a.x, a.y = in[0].Addr, out[0].Addr
		return d.launch(name, d.elements(int(a.n)), blockThreads, 0, unsafe.Pointer(a))
	}, nil
}
