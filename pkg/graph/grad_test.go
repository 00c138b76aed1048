package graph_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meap/pkg/graph"
)

// checkDerivatives compares the gradient of loss for every element of every parameter with the central difference
// (f(x+h) - f(x-h)) / 2h in float64. With h = 1e-5 its own error is about h² times the third derivative plus 1e-16/h, some
// 1e-10, so 1e-7 is far above that and far below any mistake in a formula.
func checkDerivatives(t *testing.T, n *net, loss *graph.Node) {
	t.Helper()
	const h, tolerance = 1e-5, 1e-7
	sum, grads, err := n.Grad(loss, n.params...)
	if err != nil {
		t.Fatal(err)
	}
	all := n.values(t, graph.Options{}, append([]*graph.Node{sum}, grads...)...)
	forward := n.compile(t, graph.Options{}, loss)
	dev := deviceFor(graph.F64)
	f := func(name string) float64 {
		n.uploadOne(t, dev, forward, name)
		run(t, forward)
		return read(forward.Output(loss))[0]
	}
	sameBits(t, "the loss beside its gradient", all[0], []float64{f(n.names[0])})
	for p, name := range n.names {
		x := n.feed[name].([]float64)
		moved := false
		for i, v := range x {
			x[i] = v + h
			up := f(name)
			x[i] = v - h
			down := f(name)
			x[i] = v
			want, got := (up-down)/(2*h), all[p+1][i]
			moved = moved || want != 0
			if !(math.Abs(got-want) <= tolerance*(1+math.Abs(want))) {
				t.Errorf("d loss / d %s[%d] = %v, by finite differences %v", name, i, got, want)
				break
			}
		}
		f(name)
		if !moved {
			t.Errorf("the loss does not depend on %s: the test proves nothing", name)
		}
	}
}

// derivatives has a graph for every operator with a derivative, by its kind; each returns one or more outputs.
var derivatives = map[string]func(n *net) []*graph.Node{
	"Linear": func(n *net) []*graph.Node {
		x, w := n.param("x", 1, 3, 5), n.param("w", 1, 4, 5)
		return []*graph.Node{n.Linear(x, w, nil, graph.FP32), n.Linear(x, n.param("v", 1, 2, 5), n.param("bias", 1, 2), graph.FP32)}
	},
	"RMSNorm": func(n *net) []*graph.Node {
		return []*graph.Node{n.RMSNorm(n.param("x", 1, 3, 5), n.param("w", 1, 5), 1e-3), n.RMSNorm(n.param("y", 0.05, 2, 1), n.param("v", 1, 1), 1e-2)}
	},
	"RoPE": func(n *net) []*graph.Node {
		cos, sin, pos := n.input("cos", 1, 4, 3), n.input("sin", 1, 4, 3), n.ints("pos", 3, 0, 2)
		return []*graph.Node{n.RoPE(n.param("x", 1, 3, 12), cos, sin, pos), n.Apply(graph.RoPE{Inverse: true}, n.param("y", 1, 3, 6), cos, sin, pos)}
	},
	"Attention": func(n *net) []*graph.Node {
		grouped := graph.Attention{Seq: 4, Heads: 6, KVHeads: 2, HeadDim: 3}
		plain := graph.Attention{Seq: 3, Heads: 1, KVHeads: 1, HeadDim: 2}
		one := graph.Attention{Seq: 1, Heads: 2, KVHeads: 2, HeadDim: 4}
		v := n.param("v1", 1, 2, 8)
		return []*graph.Node{
			n.Attention(grouped, n.param("q", 1, 8, 18), n.param("k", 1, 8, 6), n.param("v", 1, 8, 6), n.ints("starts", 0, 0, 2, 2, 0, 1, 1, 3)),
			n.Attention(plain, n.param("q0", 2, 3, 2), n.param("k0", 2, 3, 2), n.param("v0", 1, 3, 2), n.ints("starts0", 0, 0, 0)),
			// One key takes all the probability whatever the scores are, so only v has a gradient.
			n.Attention(one, n.input("q1", 1, 2, 8), n.input("k1", 1, 2, 8), v, n.ints("starts1", 0, 0)),
		}
	},
	"Add": func(n *net) []*graph.Node {
		x, y := n.param("x", 1, 3, 5), n.param("y", 1, 3, 5)
		z := n.Add(x, y)
		return []*graph.Node{n.Add(z, z), n.Add(z, x)}
	},
	"SwiGLU": func(n *net) []*graph.Node {
		return []*graph.Node{n.SwiGLU(n.param("gate", 3, 4, 5), n.param("up", 1, 4, 5))}
	},
	"Embedding": func(n *net) []*graph.Node {
		return []*graph.Node{n.Embedding(n.param("table", 1, 4, 3), n.ints("ids", 1, 3, 1, 1, 0, 2))}
	},
	"LinearCrossEntropy": func(n *net) []*graph.Node {
		x, head := n.param("x", 1, 4, 3), n.param("head", 1, 6, 3)
		return []*graph.Node{n.LinearCrossEntropy(x, head, n.ints("labels", 5, graph.IgnoreLabel, 0, 5), graph.FP32)}
	},
	"WeightedSum": func(n *net) []*graph.Node {
		sum := n.WeightedSum(n.param("x", 1, 5), n.input("scale", 1))
		return []*graph.Node{sum, n.Add(sum, sum)} // a scalar used three times: its gradients are scalars to be summed
	},
}

func TestDerivatives(t *testing.T) {
	for kind, build := range derivatives {
		t.Run(kind, func(t *testing.T) {
			n := newNet(graph.F64)
			var loss *graph.Node
			for i, y := range build(n) {
				l := n.Apply(graph.Dot{}, y, n.input(fmt.Sprint("weights ", i), 1, graph.DescOf(y).Shape...))
				if loss != nil {
					l = n.Add(loss, l)
				}
				loss = l
			}
			checkDerivatives(t, n, loss)
		})
	}
}

// A type with a method diff has a derivative; one that exists only to say that there is none panics in it.
func TestEveryDerivativeIsTested(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared, tested []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "diff" {
				continue
			}
			if _, returns := f.Body.List[len(f.Body.List)-1].(*ast.ReturnStmt); returns {
				declared = append(declared, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	for kind := range derivatives {
		tested = append(tested, kind)
	}
	slices.Sort(declared)
	slices.Sort(tested)
	if !slices.Equal(declared, tested) {
		t.Errorf("operators with a derivative:\n%v\ntested:\n%v", declared, tested)
	}
}

func TestDerivativeOfStack(t *testing.T) {
	n := newNet(graph.F64)
	checkDerivatives(t, n, n.stack(2))
}

func TestGradDropsTheForwardLoss(t *testing.T) {
	n := newNet(graph.F64)
	loss, grads, err := n.Grad(n.stack(1), n.params...)
	if err != nil {
		t.Fatal(err)
	}
	p := n.compile(t, graph.Options{}, append([]*graph.Node{loss}, grads...)...)
	kinds := kindsOf(t, p)
	if kinds["LinearCrossEntropy"] != 0 || kinds["LinearCrossEntropyGrad"] != 1 {
		t.Errorf("operators %v: want the loss from the gradient of the cross-entropy alone", kinds)
	}
}

// kindsOf counts a program's operators by their kind.
func kindsOf(t testing.TB, p *graph.Program) map[string]int {
	t.Helper()
	p.Profile()
	run(t, p)
	kinds := map[string]int{}
	for _, k := range p.Times() {
		kinds[k.Kind] = k.Calls
	}
	return kinds
}

func TestGradientsKeepThePrecision(t *testing.T) {
	n := newNet(graph.F32)
	x, w := n.param("x", 1, 3, 4), n.param("w", 1, 5, 4)
	y := n.Linear(x, w, nil, graph.BF16Operands)
	nll := n.LinearCrossEntropy(y, n.param("head", 1, 7, 5), n.ints("labels", 1, 2, 3), graph.BF16Operands)
	_, grads, err := n.Grad(n.WeightedSum(nll, n.input("scale", 1)), n.params...)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []graph.Spec{
		graph.LinearDX{Precision: graph.BF16Operands}, graph.LinearDW{Precision: graph.BF16Operands},
	} {
		if got := graph.SpecOf(grads[i]); got != want {
			t.Errorf("gradient of %s by %T%+v, want %T%+v", n.names[i], got, got, want, want)
		}
	}
	if got := graph.SpecOf(graph.ChildrenOf(grads[2])[0]); got != (graph.LinearCrossEntropyGrad{Precision: graph.BF16Operands}) {
		t.Errorf("gradient of the head by %T%+v", got, got)
	}
}

func TestGradWithoutADerivative(t *testing.T) {
	n := newNet(graph.F64)
	a := graph.Attention{Seq: 1, Heads: 1, KVHeads: 1, HeadDim: 2}
	q, kv, cache := n.param("q", 1, 1, 2), n.input("kv", 1, 1, 2), n.input("cache", 1, 1, 4, 2)
	y := n.CachedAttention(a, q, kv, kv, cache, n.input("cache2", 1, 1, 4, 2), n.ints("past", 0))
	if _, _, err := n.Grad(n.Apply(graph.Dot{}, y, n.input("w", 1, 1, 2)), q); err == nil {
		t.Error("attention over a cache has been differentiated")
	}
}
