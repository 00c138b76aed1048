//go:build gpu && linux

package cuda

import (
	"errors"
	"slices"
	"unsafe"

	"meap/pkg/graph"
)

// gradNorm sums the squares of all tensors in blocks of fixed size and joins them in order. Which tensors they are stands in a table
// on the device, written when they are first seen.
func (d *Device) gradNorm(s graph.GradNorm, in []graph.Desc) (graph.Kernel, error) {
	count := len(in)
	sizes, first := make([]int64, count), make([]int32, count+1)
	for i, g := range in {
		sizes[i] = int64(g.Elems())
		first[i+1] = first[i] + int32(ceilDiv(g.Elems(), normChunk))
	}
	blocks := normBlocks(in)
	var table layout
	gradsAt, sizesAt, firstAt := layGradNormTable(&table, count)
	base, err := d.take(ownLabel+"table of GradNorm", table.bytes)
	if err != nil {
		return nil, err
	}
	write := func(at int, raw []byte) error {
		return d.Upload(graph.Buffer{Desc: graph.Of(graph.I32, len(raw)/4), Addr: base + addr(at)}, raw)
	}
	if err := errors.Join(write(sizesAt, bytesOf(sizes)), write(firstAt, bytesOf(first))); err != nil {
		return nil, err
	}
	var l layout
	partialAt, totalAt := l.add(8*blocks), l.add(8*count)
	a := &gradNormArgs{grads: base + addr(gradsAt), sizes: base + addr(sizesAt), first: base + addr(firstAt), count: int32(count)}
	var known []addr
	grads := make([]addr, count)
	return func(in, out []graph.Buffer) error {
		for i, g := range in {
			grads[i] = g.Addr
		}
		if !slices.Equal(grads, known) {
			if d.capturing {
				return errors.New("the gradients have moved since the run before")
			}
			if err := write(gradsAt, bytesOf(grads)); err != nil {
				return err
			}
			known = append(known[:0], grads...)
		}
		a.partial, a.total = d.scratch+addr(partialAt), d.scratch+addr(totalAt)
		a.norm, a.squares = out[0].Addr, out[1].Addr
		if err := d.launch("grad_norm_partial_f32", grid{x: blocks}, 256, 0, unsafe.Pointer(a)); err != nil {
			return err
		}
		return d.launch("grad_norm_total_f32", grid{x: 1}, 1024, 0, unsafe.Pointer(a))
	}, d.reserve(s, l.bytes)
}

func bytesOf[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}

func (d *Device) stepReport() (graph.Kernel, error) {
	a := &stepReportArgs{}
	return func(in, out []graph.Buffer) error {
		a.loss, a.norm, a.halted, a.report = in[0].Addr, in[1].Addr, in[2].Addr, out[0].Addr
		return d.launch("step_report_f32", grid{x: 1}, 32, 0, unsafe.Pointer(a))
	}, nil
}

func (d *Device) adamW(s graph.AdamW, in []graph.Desc) (graph.Kernel, error) {
	a := &adamWArgs{n: int64(in[0].Elems()), beta1: float32(s.Beta1), beta2: float32(s.Beta2), beta1c: float32(1 - s.Beta1), beta2c: float32(1 - s.Beta2),
		epsilon: float32(s.Epsilon), decay: float32(s.WeightDecay), clip: float32(s.Clip)}
	return func(in, _ []graph.Buffer) error {
		a.p, a.g, a.m, a.v, a.report, a.hyper = in[0].Addr, in[1].Addr, in[2].Addr, in[3].Addr, in[4].Addr, in[5].Addr
		return d.launch("adamw_f32", d.elements(int(a.n)), blockThreads, 0, unsafe.Pointer(a))
	}, nil
}
