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
	t, y := operands(s.Precision), out[0]
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
		dst, beta := out[0].Addr, float32(0)
		if before {
			beta = 1
			if err := bias(in[2].Addr, 0, dst); err != nil {
				return err
			}
		}
		if after {
			dst = d.scratch + addr(at)
		}
		if err := multiply(xs, ws, dst, beta); err != nil {
			return err
		}
		if after {
			return bias(in[2].Addr, dst, out[0].Addr)
		}
		return nil
	}, d.reserve(s, l.bytes)
}

func (d *Device) linearDX(s graph.LinearDX, in, out []graph.Desc) (graph.Kernel, error) {
	t := operands(s.Precision)
	var l layout
	dy, w := d.convert(&l, in[0], t), d.convert(&l, in[1], t)
	multiply, err := d.multiply(product{form: nn, m: in[0].Shape[0], n: in[1].Shape[1], k: in[0].Shape[1], in: t, out: out[0].Dtype, aligned: whole})
	if err != nil {
		return nil, err
	}
	return d.twoOperands(dy, w, multiply, 0), d.reserve(s, l.bytes)
}

func (d *Device) linearDW(s graph.LinearDW, in, out []graph.Desc) (graph.Kernel, error) {
	t := operands(s.Precision)
	var l layout
	dy, x := d.convert(&l, in[0], t), d.convert(&l, in[1], t)
	multiply, err := d.multiply(product{form: tn, m: in[0].Shape[1], n: in[1].Shape[1], k: in[0].Shape[0], in: t, out: out[0].Dtype, aligned: whole})
	if err != nil {
		return nil, err
	}
	beta := float32(0)
	if s.Acc {
		beta = 1
	}
	return d.twoOperands(dy, x, multiply, beta), d.reserve(s, l.bytes)
}

// twoOperands is a kernel that multiplies its first two operands.
func (d *Device) twoOperands(a, b *converted, multiply func(a, b, dst uintptr, beta float32) error, beta float32) graph.Kernel {
	return func(in, out []graph.Buffer) error {
		x, err := a.read(in[0])
		if err != nil {
			return err
		}
		y, err := b.read(in[1])
		if err != nil {
			return err
		}
		return multiply(x, y, out[0].Addr, beta)
	}
}
