package graph_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"meap/pkg/graph"
)

// accumulated is a stack's gradients, each added to a random accumulator.
func accumulated(t *testing.T, layers int) (n *net, roots, grads []*graph.Node) {
	t.Helper()
	n = newNet(graph.F64)
	loss, grads, err := n.Grad(n.stack(layers), n.params...)
	if err != nil {
		t.Fatal(err)
	}
	roots = []*graph.Node{loss}
	for i, g := range grads {
		roots = append(roots, n.Accumulate(n.input("sum of "+n.names[i], 1, graph.DescOf(g).Shape...), g))
	}
	return n, roots, grads
}

func TestAccumulateIsFused(t *testing.T) {
	n, roots, _ := accumulated(t, 2)
	plain, _, grads := accumulated(t, 2)
	want := plain.values(t, graph.Options{}, grads...)

	p := n.compile(t, graph.Options{}, roots...)
	for step := 1; step <= 2; step++ {
		run(t, p)
		for i, name := range n.names {
			sum := slices.Clone(n.feed["sum of "+name].([]float64))
			for j, g := range want[i] {
				sum[j] += float64(step) * g
			}
			closeTo(t, fmt.Sprintf("step %d, %s", step, name), read(p.Output(roots[i+1])), sum, 1e-12)
		}
	}
	if kinds := kindsOf(t, p); kinds["Accumulate"] != 0 {
		t.Errorf("operators %v: every gradient of a weight can be added by its own operator", kinds)
	}
	unfused, err := plain.Plan(nil, graph.Options{}, grads...)
	if err != nil {
		t.Fatal(err)
	}
	if p.Arena >= unfused.Arena {
		t.Errorf("the arena has %d bytes, not less than the %d with a buffer for each gradient", p.Arena, unfused.Arena)
	}
}

// A gradient that no longer has a buffer of its own may be larger than the whole arena: few tokens, large vocabulary.
func TestFusedGradientLargerThanTheArena(t *testing.T) {
	n := newNet(graph.F64)
	x, dy := n.input("x", 1, 1, 2), n.input("dy", 1, 1, 500)
	sum := n.Accumulate(n.input("sum", 1, 500, 2), n.Apply(graph.LinearDW{}, dy, x))
	p := n.compile(t, graph.Options{}, sum)
	if p.Arena != 0 {
		t.Errorf("the arena has %d bytes, want none", p.Arena)
	}
	run(t, p)
	want := slices.Clone(n.feed["sum"].([]float64))
	for i := range want {
		want[i] += n.feed["dy"].([]float64)[i/2] * n.feed["x"].([]float64)[i%2]
	}
	closeTo(t, "sum", read(p.Output(sum)), want, 1e-12)
}

func TestAccumulateThatCannotBeFused(t *testing.T) {
	n := newNet(graph.F64)
	x, w, dy := n.input("x", 1, 3, 4), n.input("w", 1, 5, 4), n.input("dy", 1, 3, 5)
	dx := n.Apply(graph.LinearDX{}, dy, w) // has no form that adds
	dw := n.Apply(graph.LinearDW{}, dy, x) // is read by others too
	ds := n.Apply(graph.ColumnSum{}, dy)   // occurs twice
	got := n.values(t, graph.Options{},
		n.Accumulate(n.input("a", 1, 3, 4), dx), n.Accumulate(n.input("b", 1, 5, 4), dw),
		n.Accumulate(n.input("c", 1, 5), n.Add(ds, ds)), n.Accumulate(n.input("d", 1, 3, 4), x), dw)
	plain := newNet(graph.F64)
	plain.feed = n.feed
	in := func(name string, shape ...int) *graph.Node { return plain.FloatInput(name, shape...) }
	x, w, dy = in("x", 3, 4), in("w", 5, 4), in("dy", 3, 5)
	dw, ds = plain.Apply(graph.LinearDW{}, dy, x), plain.Apply(graph.ColumnSum{}, dy)
	want := plain.values(t, graph.Options{},
		plain.Add(in("a", 3, 4), plain.Apply(graph.LinearDX{}, dy, w)), plain.Add(in("b", 5, 4), dw),
		plain.Add(in("c", 5), plain.Add(ds, ds)), plain.Add(in("d", 3, 4), x), dw)
	for i := range want {
		closeTo(t, fmt.Sprint("root ", i), got[i], want[i], 1e-14)
	}
}

func TestRecompute(t *testing.T) {
	for layers := 1; layers <= 6; layers++ {
		n, roots, _ := accumulated(t, layers)
		keep, again := n.compile(t, graph.Options{}, roots...), n.compile(t, graph.Options{Recompute: true}, roots...)
		for range 2 {
			run(t, keep)
			run(t, again)
		}
		for _, r := range roots {
			sameBits(t, fmt.Sprintf("%d layers, %v", layers, r), read(again.Output(r)), read(keep.Output(r)))
		}
		// Of a layer's 15 forward operators all but the two that end in the next checkpoint, the last product and the last sum; and three,
		// the norms and SwiGLU, are computed again in any case.
		if again.Kernels != keep.Kernels+10*layers {
			t.Errorf("%d layers: %d operators, with recomputation %d", layers, keep.Kernels, again.Kernels)
		}
		if layers >= 4 && again.Arena >= keep.Arena {
			t.Errorf("%d layers: an arena of %d bytes, with recomputation %d", layers, keep.Arena, again.Arena)
		}
	}
}

// What is cheap is not kept for the backward pass: SwiGLU between two products is computed twice, to the same bits, and takes no
// memory meanwhile. Without a checkpoint there is no telling where the backward pass begins.
func TestCheapIsComputedAgain(t *testing.T) {
	build := func(layers int, checkpoints bool) (*graph.Program, []*graph.Node) {
		n := newNet(graph.F64)
		x := n.param("x", 1, 16, 6)
		for i := range layers {
			gate := n.Linear(x, n.param(fmt.Sprint("gate", i), 0.5, 30, 6), nil, graph.FP32)
			up := n.Linear(x, n.param(fmt.Sprint("up", i), 0.5, 30, 6), nil, graph.FP32)
			x = n.Linear(n.SwiGLU(gate, up), n.param(fmt.Sprint("down", i), 0.5, 6, 30), nil, graph.FP32)
			if checkpoints {
				x = n.Checkpoint(x)
			}
		}
		loss, grads, err := n.Grad(n.Apply(graph.Dot{}, x, n.input("w", 1, 16, 6)), n.params...)
		if err != nil {
			t.Fatal(err)
		}
		roots := append([]*graph.Node{loss}, grads...)
		p := n.compile(t, graph.Options{}, roots...)
		run(t, p)
		return p, roots
	}
	kept, keptRoots := build(4, false)
	cheap, cheapRoots := build(4, true)
	for i := range keptRoots {
		sameBits(t, fmt.Sprint("root ", i), read(cheap.Output(cheapRoots[i])), read(kept.Output(keptRoots[i])))
	}
	if a, b := kindsOf(t, kept)["SwiGLU"], kindsOf(t, cheap)["SwiGLU"]; a != 4 || b != 8 {
		t.Errorf("SwiGLU is computed %d times where it is kept and %d times where not, want 4 and 8", a, b)
	}
	longerKept, _ := build(12, false)
	longerCheap, _ := build(12, true)
	saved := (longerKept.Arena - kept.Arena - longerCheap.Arena + cheap.Arena) / 8
	if want := 16 * 30 * 8; saved != want {
		t.Errorf("a layer more takes %d bytes less where SwiGLU is computed again, want its result's %d", saved, want)
	}
}

// The arena with recomputation grows by a checkpoint per layer, not by a whole layer.
func TestRecomputeGrowsByCheckpoints(t *testing.T) {
	arena := func(layers int, recompute bool) int {
		n, roots, _ := accumulated(t, layers)
		p, err := n.Plan(nil, graph.Options{Recompute: recompute}, roots...)
		if err != nil {
			t.Fatal(err)
		}
		return p.Arena
	}
	const checkpoint = 2 * 5 * 8 * 8 // batch, seq, dim, bytes; the arena rounds it up to 768
	if grows := (arena(12, true) - arena(8, true)) / 4; grows > 768 {
		t.Errorf("a layer more takes %d bytes, a checkpoint has %d", grows, checkpoint)
	}
	if grows := (arena(12, false) - arena(8, false)) / 4; grows < 5*768 {
		t.Errorf("without recomputation a layer more takes %d bytes only: the comparison proves nothing", grows)
	}
}

// randomGraph applies operators on [4, 6] tensors at random, with checkpoints at random places, and sums up the result.
func randomGraph(n *net, rng *rand.Rand) *graph.Node {
	n.rng = rng
	nodes := []*graph.Node{n.param("x", 1, 4, 6), n.param("y", 1, 4, 6)}
	pick := func() *graph.Node { return nodes[max(0, len(nodes)-1-rng.IntN(6))] }
	for i := range 4 + rng.IntN(20) {
		var z *graph.Node
		switch rng.IntN(5) {
		case 0:
			z = n.Add(pick(), pick())
		case 1:
			z = n.SwiGLU(pick(), pick())
		case 2:
			z = n.Linear(pick(), n.param(fmt.Sprint("w", i), 0.5, 6, 6), n.param(fmt.Sprint("b", i), 0.5, 6), graph.FP32)
		case 3:
			z = n.RMSNorm(pick(), n.param(fmt.Sprint("norm", i), 1, 6), 1e-5)
		case 4:
			a := graph.Attention{Seq: 2, Heads: 3, KVHeads: 3, HeadDim: 2}
			z = n.Attention(a, pick(), pick(), pick(), n.ints(fmt.Sprint("starts", i), 0, 0, 0, 1))
		}
		if rng.IntN(3) == 0 {
			n.Checkpoint(z)
		}
		nodes = append(nodes, z)
	}
	last := nodes[0]
	for _, z := range nodes[1:] {
		last = n.Add(last, z) // everything counts
	}
	return n.Apply(graph.Dot{}, last, n.input("weights", 1, 4, 6))
}

// Whatever the graph and wherever its checkpoints are: planning and recomputation change no bit of what a plain evaluation,
// one memory for each value, gives.
func TestRandomGraphs(t *testing.T) {
	for seed := range uint64(150) {
		n := newNet(graph.F64)
		l := randomGraph(n, rand.New(rand.NewPCG(seed, 1)))
		loss, grads, err := n.Grad(l, n.params...)
		if err != nil {
			t.Fatal(err)
		}
		roots := append([]*graph.Node{loss}, grads...)
		want := evaluate(t, n, roots)
		for _, recompute := range []bool{false, true} {
			o := graph.Options{Recompute: recompute}
			got := n.values(t, o, roots...)
			_, remade := n.valuesOn(t, remaking{deviceFor(n.Float())}, o, roots...)
			for i := range roots {
				sameBits(t, fmt.Sprintf("seed %d, recompute %v, root %d", seed, recompute, i), got[i], want[i])
				sameBits(t, fmt.Sprintf("seed %d, recompute %v, remade, root %d", seed, recompute, i), remade[i], want[i])
			}
		}
	}
}

// evaluate gives every node memory of its own by making every one of them a root.
func evaluate(t *testing.T, n *net, roots []*graph.Node) (out [][]float64) {
	t.Helper()
	all := slices.Clone(roots)
	for _, x := range n.ExprGraph().AllNodes() {
		if s := graph.SpecOf(x); s != nil && !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	p := n.compile(t, graph.Options{}, all...)
	run(t, p)
	for _, r := range roots {
		out = append(out, read(p.Output(r)))
	}
	return out
}

// adding is a device whose kernels take every operand that can be added; naive's do.
type adding struct{ graph.Device }

func (adding) Adds(graph.Spec) bool { return true }

func TestAddIsFused(t *testing.T) {
	for _, recompute := range []bool{false, true} {
		o := graph.Options{Recompute: recompute}
		n, roots, grads := accumulated(t, 2)
		plain, plainRoots, plainGrads := accumulated(t, 2)
		want := plain.values(t, o, append(plainRoots[:1:1], plainGrads...)...)
		p, got := n.valuesOn(t, adding{deviceFor(n.Float())}, o, append(roots[:1:1], grads...)...)
		for i := range want {
			closeTo(t, fmt.Sprintf("recompute %v, root %d", recompute, i), got[i], want[i], 1e-12)
		}
		unfused := kindsOf(t, plain.compile(t, o, append(plainRoots[:1:1], plainGrads...)...))
		// A layer's gradients are summed five times; its residual sums follow products with a bias, which have no such form.
		if kinds := kindsOf(t, p); kinds["Add"] != unfused["Add"]-2*5 || kinds["LinearDX"] != unfused["LinearDX"] {
			t.Errorf("recompute %v: operators %v, without fusing %v", recompute, kinds, unfused)
		}
	}
}

func TestAddThatCannotBeFused(t *testing.T) {
	n := newNet(graph.F64)
	x, w, dy := n.input("x", 1, 3, 5), n.input("w", 1, 5, 5), n.input("dy", 1, 3, 5)
	used := n.Apply(graph.LinearDX{}, dy, w)           // is read by two
	biased := n.Linear(x, w, n.input("b", 1, 5), 0)    // has no form with both
	gate := n.Apply(graph.SwiGLUGrad{}, x, dy, biased) // both operands come from one operator
	late := n.Linear(x, w, nil, 0)                     // can, but the operand is a root as well
	roots := []*graph.Node{n.Add(used, used), n.Add(x, biased), n.Add(gate, n.Aux(gate, 1)), n.Add(x, dy), n.Add(dy, late), late}
	want := n.values(t, graph.Options{}, roots...)
	p, got := n.valuesOn(t, adding{deviceFor(n.Float())}, graph.Options{}, roots...)
	for i := range want {
		sameBits(t, fmt.Sprint("root ", i), got[i], want[i])
	}
	if kinds := kindsOf(t, p); kinds["Add"] != 5 {
		t.Errorf("operators %v, want five sums", kinds)
	}
}

// remaking is a device whose kernels for gradients give what their operators gave; naive's do.
type remaking struct{ graph.Device }

func (remaking) Remakes(graph.Spec) bool { return true }

// Of a layer, the two norms and SwiGLU are made again by their gradients, for which the products wait that read them. The last norm's
// result is kept for the loss.
func TestResultsAreRemade(t *testing.T) {
	for layers := 1; layers <= 3; layers++ {
		n, roots, _ := accumulated(t, layers)
		dev := deviceFor(n.Float())
		plain, want := n.valuesOn(t, dev, graph.Options{}, roots...)
		p, got := n.valuesOn(t, remaking{dev}, graph.Options{}, roots...)
		for i := range roots {
			sameBits(t, fmt.Sprintf("%d layers, root %d", layers, i), got[i], want[i])
		}
		a, b := kindsOf(t, plain), kindsOf(t, p)
		if a["RMSNorm"]-b["RMSNorm"] != 2*layers || a["SwiGLU"]-b["SwiGLU"] != layers || p.Kernels != plain.Kernels-3*layers {
			t.Errorf("%d layers: operators %v, without it %v", layers, b, a)
		}
	}
}

// A result that the gradient itself waits for is computed before.
func TestResultThatCannotBeRemade(t *testing.T) {
	n := newNet(graph.F64)
	gate, up := n.input("gate", 1, 3, 4), n.input("up", 1, 3, 4)
	y := n.SwiGLU(gate, up)
	dy := n.Linear(y, n.input("w", 1, 4, 4), nil, graph.FP32)
	dgate := n.Apply(graph.SwiGLUGrad{}, gate, up, dy)
	want := n.values(t, graph.Options{}, dgate, n.Aux(dgate, 1))
	p, got := n.valuesOn(t, remaking{deviceFor(n.Float())}, graph.Options{}, dgate, n.Aux(dgate, 1))
	for i := range want {
		sameBits(t, fmt.Sprint("root ", i), got[i], want[i])
	}
	if kinds := kindsOf(t, p); kinds["SwiGLU"] != 1 {
		t.Errorf("operators %v, want SwiGLU once", kinds)
	}
}
