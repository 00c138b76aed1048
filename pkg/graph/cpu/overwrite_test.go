package cpu

import (
	"fmt"
	"slices"
	"testing"

	"meap/pkg/graph"
)

// The operators of Overwrites give the same bits wherever their results lie: apart, or each in the place of an operand.
func TestResultsOverOperands(t *testing.T) {
	const n, dim = 150, 46
	wide, vector := graph.Of(graph.F32, n, dim), graph.Of(graph.F32, dim)
	ops := map[graph.Spec][]graph.Desc{
		graph.Add{}: {wide, wide}, graph.SwiGLU{}: {wide, wide}, graph.SwiGLUGrad{}: {wide, wide, wide},
		graph.RMSNorm{Eps: 1e-5}: {wide, vector}, graph.RMSNormGrad{}: {wide, vector, graph.Of(graph.F32, n), wide},
		graph.RoPE{}: {wide, graph.Of(graph.F32, 9, dim/2), graph.Of(graph.F32, 9, dim/2), graph.Of(graph.I32, n)},
	}
	for _, isa := range AvailableISAs() {
		dev := open(t, 2, isa)
		for op, descs := range ops {
			if !dev.Overwrites(op) {
				t.Errorf("%T may not overwrite operands", op)
			}
			for _, storage := range []graph.Dtype{graph.F32, graph.BF16} {
				ins, outs := graph.Stored(op, descs, storage)
				apart := runOver(t, dev, op, ins, outs, nil)
				var tried int
				for a := range ins {
					for b := range ins {
						over := []int{a, b}[:len(outs)]
						if len(outs) == 1 && b > 0 || len(outs) == 2 && a == b {
							continue
						}
						if !slices.ContainsFunc(over, func(u int) bool { return ins[u].Equal(outs[0]) }) {
							continue
						}
						tried++
						for i, got := range runOver(t, dev, op, ins, outs, over) {
							if !slices.Equal(got, apart[i]) {
								t.Errorf("%v, %T in %v: result %d differs in the places of operands %v", isa, op, storage, i, over)
							}
						}
					}
				}
				if tried == 0 {
					t.Errorf("%T: no operand is like the result", op)
				}
			}
		}
	}
}

// runOver returns the bytes of an operator's results, each in the place of the operand that over names if that is like it.
func runOver(t *testing.T, dev *Device, op graph.Spec, ins, outs []graph.Desc, over []int) (results [][]byte) {
	t.Helper()
	memory := func(d graph.Desc) graph.Buffer {
		m, err := dev.Alloc("test", d.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return m.At(0, d)
	}
	var in, out []graph.Buffer
	for i, d := range ins {
		b := memory(d)
		switch d.Dtype {
		case graph.F32:
			copy(b.F32(), normals(uint64(i+1), d.Elems()))
		case graph.BF16:
			dev.k.Narrow(b.BF16(), normals(uint64(i+1), d.Elems()))
		default:
			for r, p := 0, b.I32(); r < len(p); r++ {
				p[r] = int32(r % 9)
			}
		}
		in = append(in, b)
	}
	for i, d := range outs {
		if over != nil && ins[over[i]].Equal(d) {
			out = append(out, in[over[i]])
		} else {
			out = append(out, memory(d))
		}
	}
	k, err := dev.Kernel(op, ins, outs)
	if err != nil {
		t.Fatal(fmt.Errorf("%T: %w", op, err))
	}
	if err := k(in, out); err != nil {
		t.Fatal(err)
	}
	for _, b := range out {
		raw := make([]byte, b.Bytes())
		if err := dev.Download(raw, b); err != nil {
			t.Fatal(err)
		}
		results = append(results, raw)
	}
	return results
}
