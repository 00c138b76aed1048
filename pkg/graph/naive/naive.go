// Package naive computes every operator of package graph in plain loops, in float32 or float64. It is the specification: what
// an operator means is what this package does, and every other device is tested against it. Sums are taken in T, in index
// order.
package naive

import (
	"fmt"
	"math"

	"meap/pkg/graph"
)

// Float is the type that a device computes in.
type Float interface{ float32 | float64 }

// Device is a graph.Device in host memory.
type Device[T Float] struct{ graph.HostMemory }

// Name implements graph.Device.
func (Device[T]) Name() string { return "naive" }

// kernel works on the operands as slices of T (f) or int32 (i).
type kernel[T Float] func(in, out []arg[T])

type arg[T Float] struct {
	f []T
	i []int32
	s []int
}

// Kernel implements graph.Device.
func (Device[T]) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	k := kernelFor[T](op)
	if k == nil {
		return nil, fmt.Errorf("naive: no kernel for %T", op)
	}
	ins, outs := make([]arg[T], len(in)), make([]arg[T], len(out))
	return func(in, out []graph.Buffer) error {
		fill(ins, in)
		fill(outs, out)
		k(ins, outs)
		return nil
	}, nil
}

func fill[T Float](args []arg[T], bufs []graph.Buffer) {
	for i, b := range bufs {
		args[i] = arg[T]{s: b.Shape}
		switch b.Dtype {
		case graph.I32:
			args[i].i = b.I32()
		case graph.F32:
			args[i].f = any(b.F32()).([]T)
		case graph.F64:
			args[i].f = any(b.F64()).([]T)
		}
	}
}

func kernelFor[T Float](op graph.Spec) kernel[T] {
	switch s := op.(type) {
	case graph.Linear:
		return linear[T](s)
	case graph.LinearDX:
		return linearDX[T](s)
	case graph.LinearDW:
		return linearDW[T](s)
	case graph.ColumnSum:
		return columnSum[T](s)
	case graph.RMSNorm:
		return rmsNorm[T](s)
	case graph.RMSNormGrad:
		return rmsNormGrad[T](s)
	case graph.RoPE:
		return rope[T](s)
	case graph.Attention:
		return attention[T](s)
	case graph.AttentionGrad:
		return attentionGrad[T](s)
	case graph.CachedAttention:
		return cachedAttention[T](s)
	case graph.Add:
		return func(in, out []arg[T]) {
			for i := range out[0].f {
				out[0].f[i] = in[0].f[i] + in[1].f[i]
			}
		}
	case graph.SwiGLU:
		return swiGLU[T]
	case graph.SwiGLUGrad:
		return swiGLUGrad[T](s)
	case graph.Embedding:
		return embedding[T]
	case graph.EmbeddingGrad:
		return embeddingGrad[T](s)
	case graph.LinearCrossEntropy:
		return crossEntropy[T](s)
	case graph.LinearCrossEntropyGrad:
		return crossEntropyGrad[T](s)
	case graph.WeightedSum:
		return func(in, out []arg[T]) {
			sum := 0.0
			for _, v := range in[0].f {
				sum += float64(v)
			}
			out[0].f[0] = T(sum * float64(in[1].f[0]))
		}
	case graph.WeightedSumGrad:
		return func(in, out []arg[T]) {
			for i := range out[0].f {
				out[0].f[i] = in[0].f[0] * in[1].f[0]
			}
		}
	case graph.Accumulate:
		return func(in, _ []arg[T]) {
			for i, g := range in[1].f {
				in[0].f[i] += g
			}
		}
	case graph.GradNorm:
		return gradNorm[T]
	case graph.StepReport:
		return stepReport[T]
	case graph.AdamW:
		return adamW[T](s)
	case graph.Cast:
		return cast[T](s)
	}
	return nil
}

// round is the value that a matrix product of the given precision sees of an operand.
func round[T Float](v T, p graph.Precision) T {
	if p == graph.BF16Operands {
		return T(graph.RoundBF16(float32(v)))
	}
	return v
}

// cast gives the values that a tensor of another type would hold.
func cast[T Float](s graph.Cast) kernel[T] {
	p := graph.FP32
	if s.To == graph.BF16 {
		p = graph.BF16Operands
	}
	return func(in, out []arg[T]) {
		for i, v := range in[0].f {
			out[0].f[i] = round(v, p)
		}
	}
}

func exp[T Float](v T) T { return T(math.Exp(float64(v))) }
