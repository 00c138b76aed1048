package graph_test

import (
	"math"
	"testing"

	"meap/pkg/graph"
)

// optimiser is AdamW over two parameters as a trainer builds it: norm of both gradients, report, updates.
type optimiser struct {
	*net
	program *graph.Program
	report  *graph.Node
	squares *graph.Node
}

var adamW = graph.AdamW{Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0.1, Clip: 1}

func newOptimiser(t *testing.T, spec graph.AdamW) *optimiser {
	t.Helper()
	n := newNet(graph.F64)
	ga, gb := n.input("g.a", 1, 3), n.input("g.b", 1, 2)
	norm := n.GradNorm(ga, gb)
	o := &optimiser{net: n, squares: n.Aux(norm, 1)}
	loss, halted := n.FloatInput("loss"), n.FloatInput("halted")
	o.report = n.StepReport(loss, norm, halted)
	hyper := n.FloatInput("hyper", 3)
	roots := []*graph.Node{o.report, o.squares,
		n.AdamW(spec, n.input("p.a", 1, 3), ga, n.input("m.a", 0, 3), n.input("v.a", 0, 3), o.report, hyper),
		n.AdamW(spec, n.input("p.b", 1, 2), gb, n.input("m.b", 0, 2), n.input("v.b", 0, 2), o.report, hyper)}
	n.feed["loss"], n.feed["halted"], n.feed["hyper"] = []float64{2.5}, []float64{0}, []float64{0, 1, 1}
	o.program = n.compile(t, graph.Options{}, roots...)
	return o
}

func (o *optimiser) set(t *testing.T, name string, v ...float64) {
	t.Helper()
	o.feed[name] = v
	o.uploadOne(t, deviceFor(graph.F64), o.program, name)
}

func (o *optimiser) get(name string) []float64 {
	b, _ := o.program.Input(name)
	return read(b)
}

// One step by hand. Gradients (3, 0, 0) and (0, 4) have the norm 5 and are clipped to a fifth: 0.6 and 0.8. At t = 1 the
// corrected moments are g' and g'², so a parameter moves by lr (g'/|g'| + decay p), and one without a gradient by lr decay p.
func TestAdamWByHand(t *testing.T) {
	o := newOptimiser(t, adamW)
	o.set(t, "p.a", 1, 2, -1)
	o.set(t, "p.b", 0, -3)
	o.set(t, "g.a", 3, 0, 0)
	o.set(t, "g.b", 0, 4)
	o.set(t, "hyper", 0.01, 1/(1-0.9), 1/(1-0.95))
	run(t, o.program)
	closeTo(t, "report", read(o.program.Output(o.report)), []float64{2.5, 5, 0}, 0)
	closeTo(t, "squares", read(o.program.Output(o.squares)), []float64{9, 16}, 0)
	closeTo(t, "p.a", o.get("p.a"), []float64{1 - 0.01*(1+0.1), 2 - 0.01*0.2, -1 + 0.01*0.1}, 1e-9)
	closeTo(t, "p.b", o.get("p.b"), []float64{0, -3 - 0.01*(1-0.3)}, 1e-9)
	closeTo(t, "m.a", o.get("m.a"), []float64{0.06, 0, 0}, 1e-15)
	closeTo(t, "v.b", o.get("v.b"), []float64{0, 0.05 * 0.64}, 1e-15)
	for _, name := range []string{"g.a", "g.b", "loss"} {
		for _, v := range o.get(name) {
			if v != 0 {
				t.Errorf("%s is %v after the step, want zeros", name, v)
			}
		}
	}
}

// Several steps against the algorithm of the paper (arXiv 1711.05101, algorithm 2), written down once more: with a decoupled
// decay and moments corrected by 1-beta^t.
func TestAdamWOverSteps(t *testing.T) {
	for _, clip := range []float64{0, 1} {
		spec := adamW
		spec.Clip = clip
		o := newOptimiser(t, spec)
		p := append(o.get("p.a"), o.get("p.b")...)
		m, v := make([]float64, 5), make([]float64, 5)
		for step := 1; step <= 6; step++ {
			lr := 0.1 / float64(step)
			g := make([]float64, 5)
			norm := 0.0
			for i := range g {
				g[i] = o.rng.NormFloat64() * float64(step) / 4
				norm += g[i] * g[i]
			}
			norm = math.Sqrt(norm)
			o.set(t, "g.a", g[:3]...)
			o.set(t, "g.b", g[3:]...)
			o.set(t, "hyper", lr, 1/(1-math.Pow(0.9, float64(step))), 1/(1-math.Pow(0.95, float64(step))))
			run(t, o.program)
			for i := range p {
				c := g[i]
				if clip > 0 && norm > clip {
					c /= norm / clip
				}
				m[i] = m[i]*0.9 + c*(1-0.9)
				v[i] = v[i]*0.95 + c*c*(1-0.95)
				mHat, vHat := m[i]/(1-math.Pow(0.9, float64(step))), v[i]/(1-math.Pow(0.95, float64(step)))
				p[i] = p[i] - lr*0.1*p[i] - lr*mHat/(math.Sqrt(vHat)+1e-8)
			}
			closeTo(t, "p", append(o.get("p.a"), o.get("p.b")...), p, 1e-12)
			closeTo(t, "m", append(o.get("m.a"), o.get("m.b")...), m, 1e-12)
			closeTo(t, "v", append(o.get("v.a"), o.get("v.b")...), v, 1e-12)
			closeTo(t, "norm", read(o.program.Output(o.report))[1:2], []float64{norm}, 1e-12)
		}
	}
}

// A loss or a gradient that is not finite halts the optimiser: that step and all after it leave everything as it was, until
// the host clears the flag.
func TestABadStepChangesNothing(t *testing.T) {
	for _, bad := range []struct {
		name  string
		input string
		v     []float64
	}{
		{"NaN gradient", "g.b", []float64{1, math.NaN()}},
		{"infinite gradient", "g.a", []float64{0, math.Inf(-1), 0}},
		{"NaN loss", "loss", []float64{math.NaN()}},
		{"infinite loss", "loss", []float64{math.Inf(1)}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			o := newOptimiser(t, adamW)
			o.set(t, "hyper", 0.1, 10, 20)
			run(t, o.program)
			names := []string{"p.a", "p.b", "m.a", "m.b", "v.a", "v.b"}
			before := map[string][]float64{}
			for _, name := range names {
				before[name] = o.get(name)
			}
			o.set(t, "g.a", 1, 2, 3)
			o.set(t, "g.b", 4, 5)
			good := o.feed[bad.input].([]float64)
			o.set(t, bad.input, bad.v...)
			for step := range 2 {
				run(t, o.program)
				if halted := read(o.program.Output(o.report))[2]; halted != 1 {
					t.Fatalf("step %d: halted is %v", step, halted)
				}
				for _, name := range names {
					sameBits(t, name, o.get(name), before[name])
				}
				o.set(t, bad.input, good...) // the next step would be fine
			}
			o.set(t, "halted", 0)
			run(t, o.program)
			if read(o.program.Output(o.report))[2] != 0 || o.get("p.a")[0] == before["p.a"][0] {
				t.Error("the optimiser does not go on after the flag has been cleared")
			}
		})
	}
}
