//go:build gpu && linux

package cuda

import (
	"unsafe"

	"meap/pkg/graph"
)

// whole says that the addresses of a product's operands are those of whole tensors.
var whole = [3]int{alignment, alignment, alignment}

// bias returns what writes a bias into the rows of y [n, width], or adds it to them.
func (d *Device) bias(y graph.Desc, add bool) func(bias, y addr) error {
	name, a := "bias"+suffix(y.Dtype), &biasArgs{n: int64(y.Shape[0]), width: int32(y.Shape[1])}
	if add {
		a.add = 1
	}
	elems := y.Elems()
	return func(bias, y addr) error {
		a.bias, a.y = bias, y
		return d.launch(name, d.elements(elems), blockThreads, 0, unsafe.Pointer(a))
	}
}

func (d *Device) linear(s graph.Linear, in, out []graph.Desc) (graph.Kernel, error) {
	t := operands(s.Precision)
	var l layout
	x, w := d.convert(&l, in[0], t), d.convert(&l, in[1], t)
	multiply, err := d.multiply(product{form: nt, m: in[0].Shape[0], n: in[1].Shape[0], k: in[0].Shape[1], in: t, out: out[0].Dtype, aligned: whole})
	if err != nil {
		return nil, err
	}
	// A product in fp32 is added to its bias, which rounds once less; in bf16 the bias is added to the product, whose sum is then
	// rounded no more often than the product.
	before := s.Bias && out[0].Dtype == graph.F32
	bias := d.bias(out[0], !before)
	return func(in, out []graph.Buffer) error {
		xs, err := x.read(in[0])
		if err != nil {
			return err
		}
		ws, err := w.read(in[1])
		if err != nil {
			return err
		}
		beta := float32(0)
		if before {
			beta = 1
			if err := bias(in[2].Addr, out[0].Addr); err != nil {
				return err
			}
		}
		if err := multiply(xs, ws, out[0].Addr, beta); err != nil {
			return err
		}
		if s.Bias && !before {
			return bias(in[2].Addr, out[0].Addr)
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
