package cpu

import "meap/pkg/graph"

// floatsOf returns the numbers of a tensor in fp32 or bf16.
func floatsOf(b graph.Buffer) floats {
	if b.Dtype == graph.BF16 {
		return floats{half: b.BF16()}
	}
	return floats{full: b.F32()}
}

// mat is an operand of a product: a tensor [rows, width] as it lies, or its transpose.
func mat(b graph.Buffer, trans bool) Mat {
	x := floatsOf(b)
	return Mat{Data: x.full, Half: x.half, LD: b.Shape[1], Trans: trans}
}

// halfPiece is how many elements make a piece of element-wise work on bf16 tensors: five of them in fp32 stay in the L2 cache.
const halfPiece = 1 << 12

// grain returns how many elements make a piece of element-wise work whose result is out, and reserves so many places for one.
func (d *Device) grain(places int, out graph.Desc) int {
	if out.Dtype != graph.BF16 {
		return pieceElems
	}
	d.reservePlaces(places * halfPiece)
	return halfPiece
}

// reservePlaces makes each worker's memory hold at least n floats.
func (d *Device) reservePlaces(n int) {
	for i := range d.pieces {
		if n > len(d.pieces[i]) {
			d.pieces[i] = make([]float32, n)
		}
	}
}

// places gives out a worker's memory for pieces of bf16 tensors.
type places struct {
	k    *Kernels
	free []float32
}

func (d *Device) places(worker int) places { return places{d.k, d.pieces[worker]} }

// result returns where the elements lo to hi of x are to be computed: in x, or in a place from which settle rounds them.
func (p *places) result(x floats, lo, hi int) []float32 {
	if x.half == nil {
		return x.full[lo:hi]
	}
	return p.take(hi - lo)
}

// take returns a place for n numbers.
func (p *places) take(n int) []float32 {
	place := p.free[:n]
	p.free = p.free[n:]
	return place
}

// operand returns the elements lo to hi of x in fp32.
func (p *places) operand(x floats, lo, hi int) []float32 {
	place := p.result(x, lo, hi)
	if x.half != nil {
		p.k.Widen(place, x.half[lo:hi])
	}
	return place
}

// settle rounds what was computed of x, from element lo on, where x is bf16.
func (d *Device) settle(x floats, lo int, computed []float32) {
	if x.half != nil {
		d.k.Narrow(x.half[lo:lo+len(computed)], computed)
	}
}
