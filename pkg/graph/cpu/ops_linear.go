package cpu

import "meap/pkg/graph"

func (d *Device) linear(s graph.Linear) graph.Kernel {
	bf16 := s.Precision == graph.BF16Operands
	return func(in, out []graph.Buffer) error {
		x, w, y := in[0], in[1], out[0].F32()
		n, dim, outDim := x.Shape[0], x.Shape[1], w.Shape[0]
		if s.Bias {
			bias := in[2].F32()
			for r := range n {
				copy(y[r*outDim:], bias)
			}
		}
		d.k.NT(y, x.F32(), w.F32(), n, outDim, dim, bf16, s.Bias)
		return nil
	}
}

func (d *Device) linearDX(s graph.LinearDX) graph.Kernel {
	bf16 := s.Precision == graph.BF16Operands
	return func(in, out []graph.Buffer) error {
		dy, w := in[0], in[1]
		d.k.NN(out[0].F32(), dy.F32(), w.F32(), dy.Shape[0], dy.Shape[1], w.Shape[1], bf16, false)
		return nil
	}
}

func (d *Device) linearDW(s graph.LinearDW) graph.Kernel {
	bf16 := s.Precision == graph.BF16Operands
	return func(in, out []graph.Buffer) error {
		dy, x := in[0], in[1]
		d.k.TN(out[0].F32(), dy.F32(), x.F32(), dy.Shape[0], dy.Shape[1], x.Shape[1], bf16, s.Acc)
		return nil
	}
}
