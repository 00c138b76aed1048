//go:build gpu && linux

package cuda

import (
	"unsafe"

	"meap/pkg/graph"
)

// pieces calls f for each piece of the tokens, with the number of its first.
func pieces(n, step int, f func(first, m int) error) error {
	for first := 0; first < n; first += step {
		if err := f(first, min(step, n-first)); err != nil {
			return err
		}
	}
	return nil
}

// multiplyPieces plans the products of whole pieces and of the last.
func (d *Device) multiplyPieces(n, step int, of func(m int) product) (map[int]multiplier, error) {
	products := map[int]multiplier{}
	err := pieces(n, step, func(_, m int) (err error) {
		if products[m] == nil {
			products[m], err = d.multiply(of(m))
		}
		return err
	})
	return products, err
}

// logits plans x headᵀ for pieces of the tokens, in fp32.
func (d *Device) logits(x, head graph.Desc, t graph.Dtype, step int) (map[int]multiplier, error) {
	return d.multiplyPieces(x.Shape[0], step, func(m int) product {
		return product{form: nt, m: m, n: head.Shape[0], k: x.Shape[1], in: t, out: graph.F32, aligned: whole}
	})
}

// moreLogits is how many logits of a row cross-entropy keeps in shared memory, behind those that it keeps in registers: so that a
// multiprocessor can have two rows.
func (d *Device) moreLogits(vocab int) int {
	const sweep = 2048 // logits that a block's threads have in a vector each
	return sweep * max(1, min(ceilDiv(vocab-logitsHeld, sweep), d.Shared/2/(4*sweep)))
}

// crossEntropy goes through the tokens in pieces, each a product with the head, then row by row.
func (d *Device) crossEntropy(s graph.LinearCrossEntropy, in []graph.Desc) (graph.Kernel, error) {
	n, dim, vocab := in[0].Shape[0], in[0].Shape[1], in[1].Shape[0]
	t, step := s.Precision.Operands(), logitRows(in[0].Shape[0], in[1].Shape[0])
	var l layout
	x, head := d.convert(&l, in[0], t), d.convert(&l, in[1], t)
	logitsAt := l.add(4 * step * vocab)
	logits, err := d.logits(in[0], in[1], t, step)
	if err != nil {
		return nil, err
	}
	a := &crossEntropyArgs{logitsStride: int64(vocab), vocab: int32(vocab), more: int32(d.moreLogits(vocab))}
	return func(in, out []graph.Buffer) error {
		xs, err := x.read(in[0])
		if err != nil {
			return err
		}
		w, err := head.read(in[1])
		if err != nil {
			return err
		}
		a.logits = d.scratch + addr(logitsAt)
		return pieces(n, step, func(first, m int) error {
			if err := logits[m](xs+addr(first*dim*t.Size()), w, 0, a.logits); err != nil {
				return err
			}
			a.labels, a.nll, a.n = in[2].Addr+addr(4*first), out[0].Addr+addr(4*first), int64(m)
			return d.launch("cross_entropy_f32", grid{x: m}, 512, 4*int(a.more), unsafe.Pointer(a))
		})
	}, d.reserve(s, l.bytes)
}

// crossEntropyGrad turns each piece's logits into their gradient, in the type of the products' operands, and multiplies it with the
// head and with the tokens.
func (d *Device) crossEntropyGrad(s graph.LinearCrossEntropyGrad, in, out []graph.Desc) (graph.Kernel, error) {
	n, dim, vocab := in[0].Shape[0], in[0].Shape[1], in[1].Shape[0]
	t, step := s.Precision.Operands(), logitRows(in[0].Shape[0], in[1].Shape[0])
	var l layout
	x, head := d.convert(&l, in[0], t), d.convert(&l, in[1], t)
	logitsAt := l.add(4 * step * vocab)
	dlogitsAt, name := logitsAt, "cross_entropy_grad_f32" // in place
	if t == graph.BF16 {
		dlogitsAt, name = l.add(2*step*vocab), "cross_entropy_grad_f32_bf16"
	}
	logits, err := d.logits(in[0], in[1], t, step)
	if err != nil {
		return nil, err
	}
	dx, err := d.multiplyPieces(n, step, func(m int) product {
		return product{form: nn, m: m, n: dim, k: vocab, in: t, out: out[0].Dtype, aligned: whole}
	})
	if err != nil {
		return nil, err
	}
	dhead, err := d.multiplyPieces(n, step, func(m int) product {
		return product{form: tn, m: vocab, n: dim, k: m, in: t, out: graph.F32, aligned: whole}
	})
	if err != nil {
		return nil, err
	}
	a := &crossEntropyArgs{logitsStride: int64(vocab), dlogitsStride: int64(vocab), vocab: int32(vocab), more: int32(d.moreLogits(vocab))}
	width := dim * out[0].Dtype.Size()
	return func(in, out []graph.Buffer) error {
		xs, err := x.read(in[0])
		if err != nil {
			return err
		}
		w, err := head.read(in[1])
		if err != nil {
			return err
		}
		a.logits, a.dlogits = d.scratch+addr(logitsAt), d.scratch+addr(dlogitsAt)
		return pieces(n, step, func(first, m int) error {
			piece := xs + addr(first*dim*t.Size())
			if err := logits[m](piece, w, 0, a.logits); err != nil {
				return err
			}
			at := addr(4 * first)
			a.labels, a.dnll, a.nll, a.n = in[2].Addr+at, in[3].Addr+at, out[2].Addr+at, int64(m)
			if err := d.launch(name, grid{x: m}, 512, 4*int(a.more), unsafe.Pointer(a)); err != nil {
				return err
			}
			if err := dx[m](a.dlogits, w, 0, out[0].Addr+addr(first*width)); err != nil {
				return err
			}
			before := addr(0)
			if s.AccHead || first > 0 {
				before = out[1].Addr
			}
			return dhead[m](a.dlogits, piece, before, out[1].Addr)
		})
	}, d.reserve(s, l.bytes)
}

func (d *Device) weightedSum(in []graph.Desc) (graph.Kernel, error) {
	a := &weightedSumArgs{n: int64(in[0].Elems())}
	return func(in, out []graph.Buffer) error {
		a.x, a.scale, a.y = in[0].Addr, in[1].Addr, out[0].Addr
		return d.launch("weighted_sum_f32", grid{x: 1}, 1024, 0, unsafe.Pointer(a))
	}, nil
}

func (d *Device) weightedSumGrad(out []graph.Desc) (graph.Kernel, error) {
	a := &weightedSumGradArgs{n: int64(out[0].Elems())}
	return func(in, out []graph.Buffer) error {
		a.scale, a.dy, a.y = in[0].Addr, in[1].Addr, out[0].Addr
		return d.launch("weighted_sum_grad_f32", d.elements(int(a.n)), blockThreads, 0, unsafe.Pointer(a))
	}, nil
}
