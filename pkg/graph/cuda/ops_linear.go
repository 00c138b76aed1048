//go:build gpu && linux

package cuda

import (
	"unsafe"

	"meap/pkg/graph"
)

// whole says that the addresses of a product's operands are those of whole tensors.
var whole = [3]int{alignment, alignment, alignment}

// bias returns what writes y [n, width], the sum of x in fp32 and a bias; without an address of x, the bias alone.
func (d *Device) bias(y graph.Desc) func(bias, x, y addr) error {
	name, a := "bias_f32", &biasArgs{n: int64(y.Shape[0]), width: int32(y.Shape[1])}
	if y.Dtype == graph.BF16 {
		name = "bias_f32_bf16"
	}
	elems := y.Elems()
	return func(bias, x, y addr) error {
		a.bias, a.x, a.y = bias, x, y
		return d.launch(name, d.elements(elems), blockThreads, 0, unsafe.Pointer(a))
	}
}

// linear adds a product in fp32 to its bias. A result in bf16 is rounded once: with a bias, the product is fp32 at first.
func (d *Device) linear(s graph.Linear, in, out []graph.Desc) (graph.Kernel, error) {
	t, y := s.Precision.Operands(), out[0]
	var l layout
	x, w := d.convert(&l, in[0], t), d.convert(&l, in[1], t)
	p := product{form: nt, m: in[0].Shape[0], n: in[1].Shape[0], k: in[0].Shape[1], in: t, out: y.Dtype, aligned: whole}
	before, after, at := s.Bias && y.Dtype == graph.F32, s.Bias && y.Dtype == graph.BF16, 0
	if after {
		p.out, at = graph.F32, l.add(4*y.Elems())
	}
	multiply, err := d.multiply(p)
	if err != nil {
		return nil, err
	}
	bias := d.bias(y)
	return func(in, out []graph.Buffer) error {
		xs, err := x.read(in[0])
		if err != nil {
			return err
		}
		ws, err := w.read(in[1])
		if err != nil {
			return err
		}
		dst, plus := out[0].Addr, addr(0)
		switch {
		case s.Sum:
			plus = in[2].Addr
		case before:
			plus = dst
			if err := bias(in[2].Addr, 0, dst); err != nil {
				return err
			}
		case after:
			dst = d.scratch + addr(at)
		}
		if err := multiply(xs, ws, plus, dst); err != nil {
			return err
		}
		if after {
			return bias(in[2].Addr, dst, out[0].Addr)
		}
		return nil
	}, d.reserve(s, l.bytes)
}

func (d *Device) linearDX(s graph.LinearDX, in, out []graph.Desc) (graph.Kernel, error) {
	t := s.Precision.Operands()
	var l layout
	dy, w := d.convert(&l, in[0], t), d.convert(&l, in[1], t)
	multiply, err := d.multiply(product{form: nn, m: in[0].Shape[0], n: in[1].Shape[1], k: in[0].Shape[1], in: t, out: out[0].Dtype, aligned: whole})
	if err != nil {
		return nil, err
	}
	return d.twoOperands(dy, w, multiply, func(in, _ []graph.Buffer) addr {
		if s.Sum {
			return in[2].Addr
		}
		return 0
	}), d.reserve(s, l.bytes)
}

func (d *Device) linearDW(s graph.LinearDW, in, out []graph.Desc) (graph.Kernel, error) {
	t := s.Precision.Operands()
	var l layout
	dy, x := d.convert(&l, in[0], t), d.convert(&l, in[1], t)
	multiply, err := d.multiply(product{form: tn, m: in[0].Shape[1], n: in[1].Shape[1], k: in[0].Shape[0], in: t, out: out[0].Dtype, aligned: whole})
	if err != nil {
		return nil, err
	}
	return d.twoOperands(dy, x, multiply, func(_, out []graph.Buffer) addr {
		if s.Acc {
			return out[0].Addr
		}
		return 0
	}), d.reserve(s, l.bytes)
}

// twoOperands is a kernel that multiplies its first two operands and adds what plus says.
func (d *Device) twoOperands(a, b *converted, multiply multiplier, plus func(in, out []graph.Buffer) addr) graph.Kernel {
	return func(in, out []graph.Buffer) error {
		x, err := a.read(in[0])
		if err != nil {
			return err
		}
		y, err := b.read(in[1])
		if err != nil {
			return err
		}
		return multiply(x, y, plus(in, out), out[0].Addr)
	}
}
