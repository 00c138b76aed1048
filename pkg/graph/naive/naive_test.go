package naive_test

import (
	"fmt"
	"math"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// array is a tensor written down: floats, or integers if i is set.
type array struct {
	shape []int
	f     []float64
	i     []int32
}

func vector(f ...float64) array { return array{shape: []int{len(f)}, f: f} }
func scalar(f float64) array    { return array{f: []float64{f}} }
func ints(i ...int32) array     { return array{shape: []int{len(i)}, i: i} }

// matrix has rows of one length.
func matrix(rows int, f ...float64) array { return array{shape: []int{rows, len(f) / rows}, f: f} }

// example is an operator on a case small enough to be worked out by hand.
type example struct {
	name  string
	spec  graph.Spec
	in    []array
	held  []array       // what the outputs hold before; nil for zeros
	out   []array       // what they should hold after
	after map[int]array // what operands should hold after, where they change
}

var (
	ln3   = math.Log(3)
	ln4   = math.Log(4)
	rms   = 1 / math.Sqrt(12.5) // of the row (3, 4)
	two   = graph.Attention{Seq: 2, Heads: 1, KVHeads: 1, HeadDim: 1}
	query = matrix(2, 5, 1)
	// With the second query, 1, the keys 0 and ln 3 have the probabilities 1/4 and 3/4.
	keys  = matrix(2, 0, ln3)
	vals  = matrix(2, 4, 8)
	three = matrix(3, 1, 0, 0, 1, 1, -1)
)

var examples = []example{
	{name: "x Wᵀ", spec: graph.Linear{}, in: []array{matrix(2, 1, 2, 3, 4), three}, out: []array{matrix(2, 1, 2, -1, 3, 4, -1)}},
	{name: "bias", spec: graph.Linear{Bias: true}, in: []array{matrix(2, 1, 2, 3, 4), three, vector(10, 20, 30)},
		out: []array{matrix(2, 11, 22, 29, 13, 24, 29)}},
	// 1 + 1/256 lies between the bfloat16 numbers 1 and 1 + 1/128 and goes to the even one, 1; 1 + 3/256 goes to 1 + 1/64.
	{name: "bf16", spec: graph.Linear{Precision: graph.BF16Operands}, in: []array{matrix(1, 1+1./256), matrix(1, 1+3./256)}, out: []array{matrix(1, 1+1./64)}},
	{name: "dy W", spec: graph.LinearDX{}, in: []array{matrix(1, 1, 2, 3), three}, out: []array{matrix(1, 4, -1)}},
	{name: "bf16", spec: graph.LinearDX{Precision: graph.BF16Operands}, in: []array{matrix(1, 1+1./256), matrix(1, 1+3./256)}, out: []array{matrix(1, 1+1./64)}},
	{name: "dyᵀ x", spec: graph.LinearDW{}, in: []array{matrix(2, 1, 2, 3, 4), matrix(2, 5, 6)}, out: []array{matrix(2, 23, 34)}},
	{name: "added", spec: graph.LinearDW{Acc: true}, in: []array{matrix(2, 1, 2, 3, 4), matrix(2, 5, 6)},
		held: []array{matrix(2, 100, -100)}, out: []array{matrix(2, 123, -66)}},
	{name: "bf16", spec: graph.LinearDW{Precision: graph.BF16Operands}, in: []array{matrix(1, 1+1./256), matrix(1, 1+3./256)}, out: []array{matrix(1, 1+1./64)}},
	{name: "sums", spec: graph.ColumnSum{}, in: []array{matrix(2, 1, 2, 3, 4)}, held: []array{vector(7, 7)}, out: []array{vector(4, 6)}},
	{name: "added", spec: graph.ColumnSum{Acc: true}, in: []array{matrix(2, 1, 2, 3, 4)}, held: []array{vector(7, 7)}, out: []array{vector(11, 13)}},

	// The mean square of 3 and 4 is 12.5.
	{name: "of 3 and 4", spec: graph.RMSNorm{}, in: []array{matrix(1, 3, 4), vector(1, 2)}, out: []array{matrix(1, 3*rms, 8*rms), vector(rms)}},
	{name: "eps", spec: graph.RMSNorm{Eps: 3.5}, in: []array{matrix(2, 3, 4, 0, 0), vector(1, 2)},
		out: []array{matrix(2, 3./4, 8./4, 0, 0), vector(1./4, 1/math.Sqrt(3.5))}},
	// dx = rstd (dy w - x rstd² mean(dy w x)) with mean(dy w x) = 11/2; the result is orthogonal to x, as a function that
	// ignores the length of x has it.
	{name: "of 3 and 4", spec: graph.RMSNormGrad{}, in: []array{matrix(1, 3, 4), vector(1, 2), vector(rms), matrix(1, 1, 1)},
		out: []array{matrix(1, -0.32*rms, 0.24*rms), vector(3*rms, 4*rms)}},
	{name: "added", spec: graph.RMSNormGrad{AccW: true}, in: []array{matrix(1, 3, 4), vector(1, 2), vector(rms), matrix(1, 1, 1)},
		held: []array{matrix(1, 9, 9), vector(1, 1)}, out: []array{matrix(1, -0.32*rms, 0.24*rms), vector(1+3*rms, 1+4*rms)}},

	// Position 0 does not turn, position 1 turns by a quarter: (a, b) becomes (-b, a). Two heads of four.
	{name: "quarter turn", spec: graph.RoPE{}, in: []array{matrix(2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8), matrix(2, 1, 1, 0, 0), matrix(2, 0, 0, 1, 1), ints(1, 0)},
		out: []array{matrix(2, -3, -4, 1, 2, -7, -8, 5, 6, 1, 2, 3, 4, 5, 6, 7, 8)}},
	{name: "quarter turn back", spec: graph.RoPE{Inverse: true}, in: []array{matrix(1, 1, 2, 3, 4), matrix(2, 1, 1, 0, 0), matrix(2, 0, 0, 1, 1), ints(1)},
		out: []array{matrix(1, 3, 4, -1, -2)}},
	{name: "a turn for each pair", spec: graph.RoPE{}, in: []array{matrix(1, 1, 2, 3, 4), matrix(1, 0.6, 0), matrix(1, 0.8, 1), ints(0)},
		out: []array{matrix(1, 0.6-2.4, -4, 1.8+0.8, 2)}},

	{name: "two tokens", spec: two, in: []array{query, keys, vals, ints(0, 0)}, out: []array{matrix(2, 4, 7), vector(0, ln4)}},
	{name: "two documents", spec: two, in: []array{query, keys, vals, ints(0, 1)}, out: []array{matrix(2, 4, 8), vector(0, ln3)}},
	// HeadDim 4 halves the scores.
	{name: "scale", spec: graph.Attention{Seq: 2, Heads: 1, KVHeads: 1, HeadDim: 4},
		in:  []array{matrix(2, 0, 0, 0, 0, 1, 1, 0, 0), matrix(2, 0, 0, 0, 0, ln3, ln3, 9, 9), matrix(2, 4, 0, 0, 4, 8, 0, 0, 4), ints(0, 0)},
		out: []array{matrix(2, 4, 0, 0, 4, 7, 0, 0, 4), vector(0, ln4)}},
	// Two heads read one kv head; lse goes head by head. The second head's second query, 0, looks at both keys alike.
	{name: "grouped", spec: graph.Attention{Seq: 2, Heads: 2, KVHeads: 1, HeadDim: 1}, in: []array{matrix(2, 5, 6, 1, 0), keys, vals, ints(0, 0)},
		out: []array{matrix(2, 4, 4, 7, 6), vector(0, ln4, 0, math.Log(2))}},
	{name: "two sequences", spec: graph.Attention{Seq: 1, Heads: 1, KVHeads: 1, HeadDim: 1}, in: []array{query, keys, vals, ints(0, 0)},
		out: []array{matrix(2, 4, 8), vector(0, ln3)}},
	// dout 1 at the second query: dv = p; dp = v, its mean 7; ds = p (dp - 7) = (-3/4, 3/4).
	{name: "two tokens", spec: graph.AttentionGrad{Attention: two},
		in:  []array{query, keys, vals, matrix(2, 4, 7), vector(0, ln4), matrix(2, 0, 1), ints(0, 0)},
		out: []array{matrix(2, 0, 0.75*ln3), matrix(2, -0.75, 0.75), matrix(2, 0.25, 0.75)}},
	{name: "two documents", spec: graph.AttentionGrad{Attention: two},
		in:  []array{query, keys, vals, matrix(2, 4, 8), vector(0, ln3), matrix(2, 0, 1), ints(0, 1)},
		out: []array{matrix(2, 0, 0), matrix(2, 0, 0), matrix(2, 0, 1)}},
	{name: "one token after another", spec: graph.CachedAttention{Attention: graph.Attention{Seq: 1, Heads: 1, KVHeads: 1, HeadDim: 1}},
		in:  []array{matrix(1, 1), matrix(1, ln3), matrix(1, 8), {shape: []int{1, 3, 1}, f: []float64{0, 99, 77}}, {shape: []int{1, 3, 1}, f: []float64{4, 99, 77}}, ints(1)},
		out: []array{matrix(1, 7)}, after: map[int]array{3: vector(0, ln3, 77), 4: vector(4, 8, 77)}},
	{name: "two tokens at once", spec: graph.CachedAttention{Attention: two},
		in:  []array{query, keys, vals, {shape: []int{1, 2, 1}, f: []float64{99, 99}}, {shape: []int{1, 2, 1}, f: []float64{99, 99}}, ints(0)},
		out: []array{matrix(2, 4, 7)}, after: map[int]array{3: vector(0, ln3), 4: vector(4, 8)}},

	{name: "sum", spec: graph.Add{}, in: []array{vector(1, 2), vector(10, 20)}, out: []array{vector(11, 22)}},
	// The sigmoid of ln 3 is 3/4, that of 0 is 1/2.
	{name: "gates 0 and ln 3", spec: graph.SwiGLU{}, in: []array{matrix(1, 0, ln3), matrix(1, 5, 2)}, out: []array{matrix(1, 0, 1.5*ln3)}},
	{name: "gates 0 and ln 3", spec: graph.SwiGLUGrad{}, in: []array{matrix(1, 0, ln3), matrix(1, 5, 2), matrix(1, 1, 10)},
		out: []array{matrix(1, 2.5, 20*(0.75+ln3*0.1875)), matrix(1, 0, 7.5*ln3)}},

	{name: "rows", spec: graph.Embedding{}, in: []array{matrix(3, 1, 2, 3, 4, 5, 6), ints(2, 0, 2)}, out: []array{matrix(3, 5, 6, 1, 2, 5, 6)}},
	{name: "an id twice", spec: graph.EmbeddingGrad{Vocab: 3}, in: []array{matrix(3, 1, 2, 3, 4, 10, 20), ints(2, 0, 2)},
		held: []array{matrix(3, 9, 9, 9, 9, 9, 9)}, out: []array{matrix(3, 3, 4, 0, 0, 11, 22)}},
	{name: "added", spec: graph.EmbeddingGrad{Vocab: 3, Acc: true}, in: []array{matrix(3, 1, 2, 3, 4, 10, 20), ints(2, 0, 2)},
		held: []array{matrix(3, 9, 9, 9, 9, 9, 9)}, out: []array{matrix(3, 12, 13, 9, 9, 20, 31)}},

	// No preference among 7 tokens costs ln 7; ignored labels cost nothing.
	{name: "uniform", spec: graph.LinearCrossEntropy{}, in: []array{matrix(3, 0, 0, 0, 0, 0, 0), matrix(7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14), ints(3, graph.IgnoreLabel, 0)},
		held: []array{vector(9, 9, 9)}, out: []array{vector(math.Log(7), 0, math.Log(7))}},
	// Logits 0 and ln 3 have the probabilities 1/4 and 3/4.
	{name: "a quarter", spec: graph.LinearCrossEntropy{}, in: []array{matrix(2, 1, 1), matrix(2, 0, ln3), ints(0, 1)}, out: []array{vector(ln4, ln4-ln3)}},
	{name: "one token", spec: graph.LinearCrossEntropy{}, in: []array{matrix(1, 3), matrix(1, 4), ints(0)}, out: []array{vector(0)}},
	// dnll 2 times (p - 1 at the label) is (-3/2, 3/2).
	{name: "a quarter", spec: graph.LinearCrossEntropyGrad{}, in: []array{matrix(2, 1, 1), matrix(2, 0, ln3), ints(0, graph.IgnoreLabel), vector(2, 2)},
		held: []array{matrix(2, 9, 9), matrix(2, 9, 9), vector(9, 9)}, out: []array{matrix(2, 1.5*ln3, 0), matrix(2, -1.5, 1.5), vector(ln4, 0)}},
	{name: "added", spec: graph.LinearCrossEntropyGrad{AccHead: true}, in: []array{matrix(1, 1), matrix(2, 0, ln3), ints(0), vector(2)},
		held: []array{matrix(1, 9), matrix(2, 9, 9), vector(9)}, out: []array{matrix(1, 1.5*ln3), matrix(2, 7.5, 10.5), vector(ln4)}},
	{name: "a half of six", spec: graph.WeightedSum{}, in: []array{vector(1, 2, 3), scalar(0.5)}, out: []array{scalar(3)}},
	{name: "a half of six", spec: graph.WeightedSumGrad{N: 3}, in: []array{scalar(0.5), scalar(4)}, out: []array{vector(2, 2, 2)}},

	{name: "sum", spec: graph.Accumulate{}, in: []array{vector(1, 2), vector(10, 20)}, out: []array{vector(11, 22)}},
	{name: "3, 4 and 12", spec: graph.GradNorm{}, in: []array{vector(3, 4), scalar(12)}, out: []array{scalar(13), vector(25, 144)}},
	{name: "fine", spec: graph.StepReport{}, in: []array{scalar(2), scalar(3), scalar(0)}, out: []array{vector(2, 3, 0)}, after: map[int]array{0: scalar(0)}},
	{name: "halted before", spec: graph.StepReport{}, in: []array{scalar(2), scalar(3), scalar(1)}, out: []array{vector(2, 3, 1)}, after: map[int]array{0: scalar(0)}},
	{name: "infinite norm", spec: graph.StepReport{}, in: []array{scalar(2), scalar(math.Inf(1)), scalar(0)},
		out: []array{vector(2, math.Inf(1), 1)}, after: map[int]array{0: scalar(0), 2: scalar(1)}},
	// The norm 8 is clipped to 4, so g' = 2; m = 1 + 1 = 2 and v = 1 + 3 = 4; p = 10 - 0.5 (2*3 / (sqrt(4*4) + 2) + 0.1*10).
	{name: "a step", spec: graph.AdamW{Beta1: 0.5, Beta2: 0.25, Epsilon: 2, WeightDecay: 0.1, Clip: 4},
		in:  []array{vector(10), vector(4), vector(2), vector(4), vector(1, 8, 0), vector(0.5, 3, 4)},
		out: []array{vector(9)}, after: map[int]array{1: vector(0), 2: vector(2), 3: vector(4)}},
	{name: "a halted step", spec: graph.AdamW{Beta1: 0.5, Beta2: 0.25, Epsilon: 2, WeightDecay: 0.1, Clip: 4},
		in:  []array{vector(10), vector(4), vector(2), vector(4), vector(1, math.NaN(), 1), vector(0.5, 3, 4)},
		out: []array{vector(10)}},
}

func TestExamples(t *testing.T) {
	for _, e := range examples {
		t.Run(graph.Kind(e.spec)+" "+e.name, func(t *testing.T) {
			try[float32](t, e, graph.F32, 1e-6)
			try[float64](t, e, graph.F64, 1e-14)
		})
	}
}

func try[T naive.Float](t *testing.T, e example, dtype graph.Dtype, tolerance float64) {
	var dev naive.Device[T]
	place := func(a array) graph.Buffer {
		d := graph.Of(dtype, a.shape...)
		if a.i != nil {
			d.Dtype = graph.I32
		}
		m, err := dev.Alloc("example", d.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		b := m.At(0, d)
		if a.i != nil {
			copy(b.I32(), a.i)
		}
		for i, v := range a.f {
			elements[T](b)[i] = T(v)
		}
		return b
	}
	var in, out []graph.Buffer
	var inDesc []graph.Desc
	for _, a := range e.in {
		b := place(a)
		in, inDesc = append(in, b), append(inDesc, b.Desc)
	}
	outDesc := e.spec.Infer(inDesc)
	for o, d := range outDesc {
		m, isMutator := e.spec.(interface{ Target() int })
		switch {
		case isMutator && o == 0:
			out = append(out, in[m.Target()])
		case e.held != nil:
			out = append(out, place(e.held[o]))
		default:
			out = append(out, place(array{shape: d.Shape}))
		}
		if !d.Equal(out[o].Desc) {
			t.Fatalf("output %d is %v, the example has %v", o, d, out[o].Desc)
		}
	}
	k, err := dev.Kernel(e.spec, inDesc, outDesc)
	if err == nil {
		err = k(in, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	compare := func(what string, b graph.Buffer, want []float64) {
		if b.Elems() != len(want) {
			t.Fatalf("%v: %s %v, want %d elements", dtype, what, b.Desc, len(want))
		}
		for i, w := range want {
			v := float64(elements[T](b)[i])
			if !(math.Abs(v-w) <= tolerance*(1+math.Abs(w)) || v == w || v != v && w != w) {
				t.Errorf("%v: %s element %d is %v, want %v", dtype, what, i, v, w)
			}
		}
	}
	for o, w := range e.out {
		compare(fmt.Sprint("output ", o), out[o], w.f)
	}
	m, isMutator := e.spec.(interface{ Target() int })
	for i, a := range e.in {
		if want, ok := e.after[i]; ok {
			a = want
		}
		if a.i == nil && (!isMutator || i != m.Target()) {
			compare(fmt.Sprint("operand ", i), in[i], a.f)
		}
	}
}

func elements[T naive.Float](b graph.Buffer) []T {
	if b.Dtype == graph.F64 {
		return any(b.F64()).([]T)
	}
	return any(b.F32()).([]T)
}

func TestUnknownOperator(t *testing.T) {
	if _, err := (naive.Device[float32]{}).Kernel(unknown{}, nil, nil); err == nil {
		t.Error("a kernel for an operator that does not exist")
	}
}

type unknown struct{}

func (unknown) Infer(in []graph.Desc) []graph.Desc { return in }
