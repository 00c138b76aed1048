package graph_test

import (
	"fmt"
	"hash/fnv"
	"strings"
	"testing"

	G "gorgonia.org/gorgonia"

	"meap/pkg/graph"
)

// collidingNames returns two names that give inputs of one shape the same 32-bit hash in Gorgonia's graph: by the birthday
// paradox a hundred thousand names are enough.
func collidingNames(t *testing.T) (string, string) {
	t.Helper()
	probe := newNet(graph.F64).input("probe", 1, 2, 3)
	seen := map[uint32]string{}
	for i := range 1 << 20 {
		name := fmt.Sprint("input", i)
		h := fnv.New32a()
		fmt.Fprintf(h, "%v%v%s\x00", probe.Type(), probe.Shape(), name)
		if other, ok := seen[h.Sum32()]; ok {
			return other, name
		}
		seen[h.Sum32()] = name
	}
	t.Fatal("no two names with one hash")
	return "", ""
}

// Gorgonia takes nodes with one hash for the same node and does not look at their operands.
func TestNodesWithOneHash(t *testing.T) {
	one, two := collidingNames(t)
	n := newNet(graph.F64)
	x, y, z := n.input(one, 1, 2, 3), n.input(two, 1, 2, 3), n.input("z", 1, 2, 3)
	if x == y || x.Hashcode() != y.Hashcode() {
		t.Fatalf("the inputs %q and %q have hashes %x and %x: the test proves nothing", one, two, x.Hashcode(), y.Hashcode())
	}
	sums := [][2]*graph.Node{{x, z}, {y, z}, {z, x}, {z, y}, {x, x}, {x, y}, {y, x}, {y, y}}
	seen := map[*graph.Node]int{}
	for i, s := range sums {
		sum := n.Add(s[0], s[1])
		if c := graph.ChildrenOf(sum); len(c) != 2 || c[0] != s[0] || c[1] != s[1] {
			t.Errorf("sum %d has the operands %v, want %v", i, c, s)
		}
		if j, ok := seen[sum]; ok {
			t.Errorf("sums %d and %d are one node", j, i)
		}
		seen[sum] = i
	}
	a, b := n.feed[one].([]float64), n.feed[two].([]float64)
	want := make([]float64, len(a))
	for i := range a {
		want[i] = a[i] + b[i]
	}
	sameBits(t, "x + y", n.values(t, graph.Options{}, n.Add(x, y))[0], want)
}

func TestOperatorsWithOneHash(t *testing.T) {
	n := newNet(graph.F64)
	x := n.input("x", 1, 2)
	for i := range 20 {
		if got := graph.SpecOf(n.Apply(graph.Vague{N: i}, x)); got != (graph.Vague{N: i}) {
			t.Fatalf("asked for operator %d, got %d", i, got.(graph.Vague).N)
		}
	}
}

// Many applications that differ in one operand or one attribute.
func TestNearlyIdenticalOperators(t *testing.T) {
	n := newNet(graph.F64)
	var xs []*graph.Node
	for i := range 30 {
		xs = append(xs, n.input(fmt.Sprint("x", i), 1, 2, 2))
	}
	for i, x := range xs {
		for j, y := range xs {
			for _, z := range []*graph.Node{n.Add(x, y), n.SwiGLU(x, y)} {
				if c := graph.ChildrenOf(z); c[0] != x || c[1] != y {
					t.Fatalf("operands of %v(%d, %d) are %v", z, i, j, c)
				}
			}
		}
		w := n.input(fmt.Sprint("w", i), 1, 2)
		for _, eps := range []float64{1e-5, 1e-6, 1.0000001e-6} {
			if got := graph.SpecOf(n.RMSNorm(x, w, eps)); got != (graph.RMSNorm{Eps: eps}) {
				t.Fatalf("eps %v became %v", eps, got)
			}
		}
	}
}

func TestTheSameOperatorTwiceIsOneNode(t *testing.T) {
	n := newNet(graph.F64)
	x, y := n.input("x", 1, 2), n.input("y", 1, 2)
	first := n.Add(x, y)
	if again := n.Add(x, y); again != first {
		t.Error("x + y has been computed twice")
	}
}

func panics(f func()) (message string) {
	defer func() {
		if e := recover(); e != nil {
			message = fmt.Sprint(e)
		}
	}()
	f()
	return ""
}

// Every shape rule names its operator and the operands that it was given.
func TestShapeRulesPanic(t *testing.T) {
	b := graph.NewBuilder(graph.F32)
	count := 0
	float := func(shape ...int) *graph.Node {
		count++
		return b.FloatInput(fmt.Sprint("f", count), shape...)
	}
	ints := func(shape ...int) *graph.Node {
		count++
		return b.IntInput(fmt.Sprint("i", count), shape...)
	}
	attention := graph.Attention{Seq: 2, Heads: 4, KVHeads: 2, HeadDim: 3}
	q, k, starts := float(4, 12), float(4, 6), ints(4)
	for _, c := range []struct {
		name string
		spec graph.Spec
		in   []*graph.Node
	}{
		{"inner sizes", graph.Linear{}, []*graph.Node{float(2, 3), float(5, 4)}},
		{"a vector", graph.Linear{}, []*graph.Node{float(3), float(5, 3)}},
		{"a vector as weight", graph.Linear{}, []*graph.Node{float(2, 3), float(3)}},
		{"bias of another size", graph.Linear{Bias: true}, []*graph.Node{float(2, 3), float(5, 3), float(4)}},
		{"no bias", graph.Linear{Bias: true}, []*graph.Node{float(2, 3), float(5, 3)}},
		{"integers", graph.Linear{}, []*graph.Node{float(2, 3), ints(5, 3)}},
		{"sizes", graph.LinearDX{}, []*graph.Node{float(2, 3), float(4, 5)}},
		{"sizes", graph.LinearDW{}, []*graph.Node{float(2, 3), float(4, 5)}},
		{"a scalar", graph.ColumnSum{}, []*graph.Node{float()}},
		{"weight of another size", graph.RMSNorm{}, []*graph.Node{float(2, 3), float(4)}},
		{"a scalar", graph.RMSNorm{}, []*graph.Node{float(), float(4)}},
		{"rstd of another size", graph.RMSNormGrad{}, []*graph.Node{float(2, 3), float(3), float(3), float(2, 3)}},
		{"half a head", graph.RoPE{}, []*graph.Node{float(2, 9), float(5, 3), float(5, 3), ints(2)}},
		{"positions of type float", graph.RoPE{}, []*graph.Node{float(2, 6), float(5, 3), float(5, 3), float(2)}},
		{"positions of another number", graph.RoPE{}, []*graph.Node{float(2, 6), float(5, 3), float(5, 3), ints(3)}},
		{"keys like queries", attention, []*graph.Node{q, q, q, starts}},
		{"starts of type float", attention, []*graph.Node{q, k, k, float(4)}},
		{"rows that don't divide", graph.Attention{Seq: 3, Heads: 4, KVHeads: 2, HeadDim: 3}, []*graph.Node{q, k, k, starts}},
		{"heads that don't divide", graph.Attention{Seq: 2, Heads: 4, KVHeads: 3, HeadDim: 3}, []*graph.Node{q, float(4, 9), float(4, 9), starts}},
		{"no kv heads", graph.Attention{Seq: 2, Heads: 4, HeadDim: 3}, []*graph.Node{q, k, k, starts}},
		{"lse of another size", graph.AttentionGrad{Attention: attention}, []*graph.Node{q, k, k, q, float(4), q, starts}},
		{"caches that differ", graph.CachedAttention{Attention: attention}, []*graph.Node{q, k, k, float(2, 7, 6), float(2, 8, 6), ints(2)}},
		{"a flat cache", graph.CachedAttention{Attention: attention}, []*graph.Node{q, k, k, float(14, 6), float(14, 6), ints(2)}},
		{"shapes", graph.Add{}, []*graph.Node{float(2, 3), float(3, 2)}},
		{"one operand", graph.Add{}, []*graph.Node{float(2, 3)}},
		{"shapes", graph.SwiGLU{}, []*graph.Node{float(2, 3), float(2, 4)}},
		{"shapes", graph.SwiGLUGrad{}, []*graph.Node{float(2, 3), float(2, 3), float(2, 4)}},
		{"ids of type float", graph.Embedding{}, []*graph.Node{float(2, 3), float(4)}},
		{"a flat table", graph.Embedding{}, []*graph.Node{float(2), ints(4)}},
		{"ids of another number", graph.EmbeddingGrad{Vocab: 3}, []*graph.Node{float(2, 3), ints(4)}},
		{"labels of another number", graph.LinearCrossEntropy{}, []*graph.Node{float(2, 3), float(9, 3), ints(3)}},
		{"gradients of another number", graph.LinearCrossEntropyGrad{}, []*graph.Node{float(2, 3), float(9, 3), ints(2), float(3)}},
		{"a matrix", graph.WeightedSum{}, []*graph.Node{float(2, 3), float()}},
		{"a vector as scale", graph.WeightedSum{}, []*graph.Node{float(2), float(2)}},
		{"a vector as scale", graph.WeightedSumGrad{N: 2}, []*graph.Node{float(2), float()}},
		{"shapes", graph.Accumulate{}, []*graph.Node{float(2), float(3)}},
		{"nothing", graph.GradNorm{}, nil},
		{"a vector", graph.StepReport{}, []*graph.Node{float(2), float(), float()}},
		{"moments of another size", graph.AdamW{}, []*graph.Node{float(2), float(2), float(3), float(2), float(3), float(3)}},
		{"no schedule", graph.AdamW{}, []*graph.Node{float(2), float(2), float(2), float(2), float(3), float()}},
	} {
		t.Run(graph.Kind(c.spec)+" "+c.name, func(t *testing.T) {
			message := panics(func() { b.Apply(c.spec, c.in...) })
			want := []string{"graph." + graph.Kind(c.spec)}
			for _, x := range c.in {
				want = append(want, graph.DescOf(x).String())
			}
			for _, w := range want {
				if !strings.Contains(message, w) {
					t.Errorf("panic %q does not say %q", message, w)
				}
			}
		})
	}
}

func TestInputs(t *testing.T) {
	b := graph.NewBuilder(graph.F32)
	b.FloatInput("x", 2)
	if m := panics(func() { b.IntInput("x", 3) }); !strings.Contains(m, `"x"`) {
		t.Errorf("two inputs of one name: panic %q", m)
	}
	if m := panics(func() { graph.NewBuilder(graph.I32) }); !strings.Contains(m, "int32") {
		t.Errorf("a graph of integers: panic %q", m)
	}
	for _, d := range []graph.Desc{graph.Of(graph.F32), graph.Of(graph.I32), graph.Of(graph.F32, 1), graph.Of(graph.F64, 1, 1), graph.Of(graph.I32, 2, 3, 4)} {
		if got := graph.DescOf(b.Input("input "+d.String(), d)); !got.Equal(d) {
			t.Errorf("input %v is described as %v", d, got)
		}
	}
}

// gorgonia.Grad sums gradients by Gorgonia's own addition, so that one operator is taken over; its relatives are not.
func TestStockOperators(t *testing.T) {
	n := newNet(graph.F64)
	x, y, s := n.input("x", 1, 2, 3), n.input("y", 1, 2, 3), n.input("s", 1)
	sum, err := G.Add(x, y)
	if err != nil {
		t.Fatal(err)
	}
	sameBits(t, "x + y", n.values(t, graph.Options{}, sum)[0], n.values(t, graph.Options{}, n.Add(x, y))[0])
	for name, f := range map[string]func() (*graph.Node, error){
		"difference":         func() (*graph.Node, error) { return G.Sub(x, y) },
		"product":            func() (*graph.Node, error) { return G.HadamardProd(x, y) },
		"sum with a scalar":  func() (*graph.Node, error) { return G.Add(x, s) },
		"sum from a scalar":  func() (*graph.Node, error) { return G.Add(s, x) },
		"largest of a row":   func() (*graph.Node, error) { return G.Max(x, 1) },
		"another activation": func() (*graph.Node, error) { return G.Tanh(x) },
	} {
		z, err := f()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Plan(nil, graph.Options{}, z); err == nil || !strings.Contains(err.Error(), "Builder") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
