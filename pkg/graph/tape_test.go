package graph_test

import (
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"meap/pkg/graph"
)

// Gorgonia's TapeMachine orders, plans and runs the same graph by itself, on the same kernels; a Program must agree with it in
// every bit.
func TestProgramAgainstTape(t *testing.T) {
	for _, dtype := range []graph.Dtype{graph.F32, graph.F64} {
		for _, recompute := range []bool{false, true} {
			t.Run(dtype.String(), func(t *testing.T) {
				n := newNet(dtype)
				n.SetOracle(deviceFor(dtype))
				loss, grads, err := n.Grad(n.stack(3), n.params...)
				if err != nil {
					t.Fatal(err)
				}
				roots := append([]*graph.Node{loss}, grads...)
				got := n.values(t, graph.Options{Recompute: recompute}, roots...)

				for name, v := range n.feed {
					for _, in := range n.ExprGraph().ByName(name) {
						if err := G.Let(in, value(in, v)); err != nil {
							t.Fatalf("%s: %v", name, err)
						}
					}
				}
				tape := G.NewTapeMachine(n.ExprGraph())
				defer tape.Close()
				for range 2 { // the second run uses the tape's memory again
					if err := tape.RunAll(); err != nil {
						t.Fatal(err)
					}
					for i, r := range roots {
						what := "loss"
						if i > 0 {
							what = "gradient of " + n.names[i-1]
						}
						sameBits(t, what, got[i], numbers(r.Value()))
					}
					tape.Reset()
				}
			})
		}
	}
}

// value is what Gorgonia takes for an input: Go's own numbers for scalars, dense tensors for the rest.
func value(n *graph.Node, v any) any {
	d := graph.DescOf(n)
	var backing any
	switch x := v.(type) {
	case []int32:
		backing = x
	case []float64:
		if d.Dtype == graph.F64 {
			if len(d.Shape) == 0 {
				return x[0]
			}
			backing = x
			break
		}
		narrow := make([]float32, len(x))
		for i := range x {
			narrow[i] = float32(x[i])
		}
		if len(d.Shape) == 0 {
			return narrow[0]
		}
		backing = narrow
	}
	return tensor.New(tensor.WithShape(d.Shape...), tensor.WithBacking(backing))
}

func numbers(v G.Value) []float64 {
	var out []float64
	switch x := v.Data().(type) {
	case float32:
		return []float64{float64(x)}
	case float64:
		return []float64{x}
	case []float32:
		for _, f := range x {
			out = append(out, float64(f))
		}
	case []float64:
		return x
	}
	return out
}
