package cpu

import "meap/pkg/graph"

func (d *Device) linear(s graph.Linear, x, w, y graph.Desc) graph.Kernel {
	bf16 := s.Precision == graph.BF16Operands
	d.k.gemm.reserve(x.Shape[0], w.Shape[0], w.Shape[1], bf16, y.Dtype == graph.BF16)
	return func(in, out []graph.Buffer) error {
		x, w, y := in[0], in[1], floatsOf(out[0])
		n, dim, outDim := x.Shape[0], x.Shape[1], w.Shape[0]
		var bias []float32
		if s.Bias {
			bias = in[2].F32()
		}
		if y.half != nil {
			d.k.MulHalf(y.half, outDim, mat(x, false), mat(w, true), bias, n, outDim, dim)
			return nil
		}
		if s.Bias {
			for r := range n {
				copy(y.full[r*outDim:], bias)
			}
		}
		d.k.Mul(y.full, outDim, mat(x, false), mat(w, true), n, outDim, dim, bf16, s.Bias)
		return nil
	}
}

func (d *Device) linearDX(s graph.LinearDX, dy, w, dx graph.Desc) graph.Kernel {
	bf16 := s.Precision == graph.BF16Operands
	d.k.gemm.reserve(dy.Shape[0], w.Shape[1], w.Shape[0], bf16, dx.Dtype == graph.BF16)
	return func(in, out []graph.Buffer) error {
		dy, w, dx := in[0], in[1], floatsOf(out[0])
		n, outDim, dim := dy.Shape[0], dy.Shape[1], w.Shape[1]
		if dx.half != nil {
			d.k.MulHalf(dx.half, dim, mat(dy, false), mat(w, false), nil, n, dim, outDim)
			return nil
		}
		d.k.Mul(dx.full, dim, mat(dy, false), mat(w, false), n, dim, outDim, bf16, false)
		return nil
	}
}

func (d *Device) linearDW(s graph.LinearDW, dy, x graph.Desc) graph.Kernel {
	bf16 := s.Precision == graph.BF16Operands
	d.k.gemm.reserve(dy.Shape[1], x.Shape[1], x.Shape[0], bf16, false)
	return func(in, out []graph.Buffer) error {
		dy, x := in[0], in[1]
		n, outDim, dim := dy.Shape[0], dy.Shape[1], x.Shape[1]
		d.k.Mul(out[0].F32(), dim, mat(dy, true), mat(x, false), outDim, dim, n, bf16, s.Acc)
		return nil
	}
}
