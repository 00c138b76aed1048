package cpu

import "meap/pkg/graph"

func (d *Device) linear(s graph.Linear, x, w, y graph.Desc) graph.Kernel {
	bf16 := s.Precision == graph.BF16Operands
	d.k.gemm.reserve(x.Shape[0], w.Shape[0], w.Shape[1], bf16, y.Dtype == graph.BF16)
	return func(in, out []graph.Buffer) error {
		x, w := in[0], in[1]
		n, dim, outDim := x.Shape[0], x.Shape[1], w.Shape[0]
		var start Mat
		switch {
		case s.Bias:
			start = Mat{Data: in[2].F32()}
		case s.Sum:
			start = mat(in[2], false)
		}
		d.k.mulFrom(floatsOf(out[0]), outDim, start, mat(x, false), mat(w, true), n, outDim, dim, bf16)
		return nil
	}
}

func (d *Device) linearDX(s graph.LinearDX, dy, w, dx graph.Desc) graph.Kernel {
	bf16 := s.Precision == graph.BF16Operands
	d.k.gemm.reserve(dy.Shape[0], w.Shape[1], w.Shape[0], bf16, dx.Dtype == graph.BF16)
	return func(in, out []graph.Buffer) error {
		dy, w := in[0], in[1]
		n, outDim, dim := dy.Shape[0], dy.Shape[1], w.Shape[1]
		var start Mat
		if s.Sum {
			start = mat(in[2], false)
		}
		d.k.mulFrom(floatsOf(out[0]), dim, start, mat(dy, false), mat(w, false), n, dim, outDim, bf16)
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
