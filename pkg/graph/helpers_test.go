package graph_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// device is package naive with the operators that exist for tests only.
type device[T naive.Float] struct{ naive.Device[T] }

func (d device[T]) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	switch op.(type) {
	case graph.Dot:
		return func(in, out []graph.Buffer) error {
			x, w, sum := floats[T](in[0]), floats[T](in[1]), T(0)
			for i := range x {
				sum += x[i] * w[i]
			}
			floats[T](out[0])[0] = sum
			return nil
		}, nil
	case graph.DotGrad:
		return func(in, out []graph.Buffer) error {
			w, dy, dx := floats[T](in[0]), floats[T](in[1])[0], floats[T](out[0])
			for i := range w {
				dx[i] = w[i] * dy
			}
			return nil
		}, nil
	}
	return d.Device.Kernel(op, in, out)
}

func floats[T naive.Float](b graph.Buffer) []T {
	if b.Dtype == graph.F64 {
		return any(b.F64()).([]T)
	}
	return any(b.F32()).([]T)
}

func deviceFor(d graph.Dtype) graph.Device {
	if d == graph.F64 {
		return device[float64]{}
	}
	return device[float32]{}
}

// net is a graph in the making, with a value for each of its inputs: []float64 or []int32.
type net struct {
	*graph.Builder
	feed   map[string]any
	params []*graph.Node
	names  []string // of params
	rng    *rand.Rand

	precision graph.Precision // of the stack's products
}

func newNet(d graph.Dtype) *net {
	return &net{Builder: graph.NewBuilder(d), feed: map[string]any{}, rng: rand.New(rand.NewPCG(7, 11))}
}

// input is a random input that no gradient is asked for.
func (n *net) input(name string, deviation float64, shape ...int) *graph.Node {
	x := make([]float64, graph.Desc{Shape: shape}.Elems())
	for i := range x {
		x[i] = float64(float32(n.rng.NormFloat64() * deviation)) // the same number in both precisions
	}
	n.feed[name] = x
	return n.FloatInput(name, shape...)
}

// param is a random input that a gradient is asked for.
func (n *net) param(name string, deviation float64, shape ...int) *graph.Node {
	x := n.input(name, deviation, shape...)
	n.params, n.names = append(n.params, x), append(n.names, name)
	return x
}

func (n *net) ints(name string, v ...int32) *graph.Node {
	n.feed[name] = v
	return n.IntInput(name, len(v))
}

// upload gives a program the values of its inputs.
func (n *net) upload(t testing.TB, dev graph.Device, p *graph.Program) {
	t.Helper()
	for name := range n.feed {
		n.uploadOne(t, dev, p, name)
	}
}

func (n *net) uploadOne(t testing.TB, dev graph.Device, p *graph.Program, name string) {
	t.Helper()
	buf, ok := p.Input(name)
	if !ok {
		return
	}
	if err := write(dev, buf, n.feed[name]); err != nil {
		t.Fatal(err)
	}
}

func write(dev graph.Device, b graph.Buffer, v any) error {
	if x, ok := v.([]float64); ok && b.Dtype == graph.F32 {
		y := make([]float32, len(x))
		for i := range x {
			y[i] = float32(x[i])
		}
		return dev.Upload(b, graph.Bytes(y))
	} else if ok {
		return dev.Upload(b, graph.Bytes(x))
	}
	return dev.Upload(b, graph.Bytes(v.([]int32)))
}

func read(b graph.Buffer) []float64 {
	if b.Dtype == graph.F64 {
		return append([]float64(nil), b.F64()...)
	}
	out := make([]float64, 0, b.Elems())
	for _, v := range b.F32() {
		out = append(out, float64(v))
	}
	return out
}

// compile gives a program with its inputs filled, on the naive device of the net's type.
func (n *net) compile(t testing.TB, o graph.Options, roots ...*graph.Node) *graph.Program {
	t.Helper()
	return n.compileOn(t, deviceFor(n.Float()), o, roots...)
}

func (n *net) compileOn(t testing.TB, dev graph.Device, o graph.Options, roots ...*graph.Node) *graph.Program {
	t.Helper()
	p, err := n.Compile(dev, o, roots...)
	if err != nil {
		t.Fatal(err)
	}
	n.upload(t, dev, p)
	return p
}

func run(t testing.TB, p *graph.Program) {
	t.Helper()
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
}

// values compiles, runs once and returns the roots' values.
func (n *net) values(t testing.TB, o graph.Options, roots ...*graph.Node) [][]float64 {
	t.Helper()
	_, out := n.valuesOn(t, deviceFor(n.Float()), o, roots...)
	return out
}

func (n *net) valuesOn(t testing.TB, dev graph.Device, o graph.Options, roots ...*graph.Node) (*graph.Program, [][]float64) {
	t.Helper()
	p := n.compileOn(t, dev, o, roots...)
	run(t, p)
	var out [][]float64
	for _, r := range roots {
		out = append(out, read(p.Output(r)))
	}
	return p, out
}

func sameBits(t testing.TB, what string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

func closeTo(t testing.TB, what string, got, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tolerance*(1+math.Abs(want[i]))) {
			t.Errorf("%s: element %d is %v, want %v", what, i, got[i], want[i])
			return
		}
	}
}

// stack is a small Llama: grouped-query attention with biases and documents, RoPE, SwiGLU, and a head that is the embedding.
// It returns the mean loss of the labelled tokens.
func (n *net) stack(layers int) *graph.Node {
	const batch, seq, vocab, dim, heads, kv, size, ffn, eps = 2, 5, 11, 8, 4, 2, 4, 12, 1e-5
	tokens, labels := make([]int32, batch*seq), make([]int32, batch*seq)
	for i := range tokens {
		tokens[i], labels[i] = int32(n.rng.IntN(vocab)), int32(n.rng.IntN(vocab))
	}
	labels[3] = graph.IgnoreLabel
	ids, y := n.ints("tokens", tokens...), n.ints("labels", labels...)
	starts := n.ints("starts", 0, 0, 0, 0, 0, 0, 0, 2, 2, 2)
	pos := n.ints("positions", 0, 1, 2, 3, 4, 0, 1, 0, 1, 2)
	cos, sin := n.FloatInput("cos", seq, size/2), n.FloatInput("sin", seq, size/2)
	var c, s []float64
	for p := range seq {
		for i := range size / 2 {
			a := float64(p) * math.Pow(100, -2*float64(i)/size)
			c, s = append(c, float64(float32(math.Cos(a)))), append(s, float64(float32(math.Sin(a))))
		}
	}
	n.feed["cos"], n.feed["sin"] = c, s
	scale := n.FloatInput("scale")
	n.feed["scale"] = []float64{1. / (batch*seq - 1)}

	linear := func(x *graph.Node, name string, out, in int) *graph.Node {
		return n.Linear(x, n.param(name+".weight", 0.4, out, in), n.param(name+".bias", 0.2, out), n.precision)
	}
	table := n.param("embedding", 0.7, vocab, dim)
	x := n.Embedding(table, ids)
	attention := graph.Attention{Seq: seq, Heads: heads, KVHeads: kv, HeadDim: size, Precision: n.precision}
	for l := range layers {
		name := func(s string) string { return fmt.Sprintf("%d.%s", l, s) }
		n.Checkpoint(x)
		h := n.RMSNorm(x, n.param(name("norm1"), 1, dim), eps)
		q := n.RoPE(linear(h, name("q"), heads*size, dim), cos, sin, pos)
		k := n.RoPE(linear(h, name("k"), kv*size, dim), cos, sin, pos)
		v := linear(h, name("v"), kv*size, dim)
		x = n.Add(x, linear(n.Attention(attention, q, k, v, starts), name("o"), dim, heads*size))
		h = n.RMSNorm(x, n.param(name("norm2"), 1, dim), eps)
		x = n.Add(x, linear(n.SwiGLU(linear(h, name("gate"), ffn, dim), linear(h, name("up"), ffn, dim)), name("down"), dim, ffn))
	}
	n.Checkpoint(x)
	x = n.RMSNorm(x, n.param("norm", 1, dim), eps)
	return n.WeightedSum(n.LinearCrossEntropy(x, table, y, n.precision), scale)
}
