package transformer

import (
	"math"
	"strings"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// batchOf are inputs of a model: two documents in each row of seq tokens, labels with some left out.
func batchOf(c Config, batch, seq int) map[string][]int32 {
	n := batch * seq
	in := map[string][]int32{
		InputIDs: make([]int32, n), InputLabels: make([]int32, n), InputPositions: make([]int32, n), InputStarts: make([]int32, n),
	}
	for i := range n {
		in[InputIDs][i] = int32(mix(uint64(i)) % uint64(c.Vocab))
		in[InputLabels][i] = int32(mix(uint64(i+1)) % uint64(c.Vocab))
		if i%5 == 3 {
			in[InputLabels][i] = graph.IgnoreLabel
		}
		if at := i % seq; at >= seq/2 {
			in[InputStarts][i] = int32(seq / 2)
		}
		in[InputPositions][i] = int32(i%seq) - in[InputStarts][i]
	}
	return in
}

// The derivative of the whole model's loss for every weight, tied and untied, against central differences in float64.
func TestModelGradient(t *testing.T) {
	small := Config{Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 2, Dim: 6, FFN: 5, Vocab: 7, MaxSeq: 6, RopeTheta: 100, NormEps: 1e-5}
	for name, c := range map[string]Config{
		"untied":       small,
		"tied, biases": with(small, func(c *Config) { c.TieEmbeddings, c.QKVBias = true, true }),
	} {
		t.Run(name, func(t *testing.T) {
			const batch, seq = 2, 6
			dev := naive.Device[float64]{}
			bind := map[string]graph.Buffer{}
			put := func(name string, data []float32, shape ...int) {
				d := graph.Of(graph.F64, shape...)
				m, _ := dev.Alloc(name, d.Bytes())
				bind[name] = m.At(0, d)
				for i, v := range data {
					bind[name].F64()[i] = float64(v)
				}
			}
			for _, x := range lively(c, 1).Tensors {
				put(x.Name, x.Data, x.Shape...)
			}
			cos, sin := ropeTables(c, c.MaxSeq, c.MaxSeq)
			put(InputCos, cos, c.MaxSeq, c.HeadDim/2)
			put(InputSin, sin, c.MaxSeq, c.HeadDim/2)
			put(InputScale, []float32{0.5})

			b := graph.NewBuilder(graph.F64)
			m := Build(b, c, batch, seq, graph.FP32)
			before, _ := m.Loss()
			loss, grads, err := b.Grad(before, m.Params...)
			if err != nil {
				t.Fatal(err)
			}
			p, err := b.Compile(dev, graph.Options{Bind: bind}, append([]*graph.Node{loss}, grads...)...)
			if err != nil {
				t.Fatal(err)
			}
			for name, data := range batchOf(c, batch, seq) {
				if err := p.Upload(name, graph.Bytes(data)); err != nil {
					t.Fatal(err)
				}
			}
			run := func() float64 {
				if err := p.Run(); err != nil {
					t.Fatal(err)
				}
				return p.Output(loss).F64()[0]
			}
			run()
			got := make([][]float64, len(grads))
			for i, g := range grads {
				got[i] = append([]float64(nil), p.Output(g).F64()...)
			}
			const h = 1e-5
			for i, d := range c.Weights() {
				w := bind[d.Name].F64()
				for j := range w {
					old := w[j]
					w[j] = old + h
					up := run()
					w[j] = old - h
					down := run()
					w[j] = old
					if want := (up - down) / (2 * h); math.Abs(got[i][j]-want) > 1e-8+1e-6*math.Abs(want) {
						t.Fatalf("%s[%d]: derivative %v, differences give %v", d.Name, j, got[i][j], want)
					}
				}
			}
		})
	}
}

// Activation checkpointing keeps the results to the last bit and needs less memory.
func TestRecompute(t *testing.T) {
	const batch, seq = 2, 16
	c := with(tiny, func(c *Config) { c.Layers = 6 })
	params := onNaive(t, lively(c, 1))
	type result struct {
		values [][]float32
		arena  int
	}
	train := func(recompute bool) result {
		b := graph.NewBuilder(graph.F32)
		m := Build(b, c, batch, seq, graph.FP32)
		loss, _ := m.Loss()
		loss, grads, err := b.Grad(loss, m.Params...)
		if err != nil {
			t.Fatal(err)
		}
		roots := append([]*graph.Node{loss}, grads...)
		p, err := b.Compile(params.Device(), graph.Options{Bind: params.Bindings(), Recompute: recompute}, roots...)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range batchOf(c, batch, seq) {
			if err := p.Upload(name, graph.Bytes(data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Upload(InputScale, graph.Bytes([]float32{1})); err != nil {
			t.Fatal(err)
		}
		if err := p.Run(); err != nil {
			t.Fatal(err)
		}
		r := result{arena: p.Arena}
		for _, n := range roots {
			r.values = append(r.values, append([]float32(nil), p.Output(n).F32()...))
		}
		return r
	}
	plain, again := train(false), train(true)
	for i := range plain.values {
		for j, v := range plain.values[i] {
			if again.values[i][j] != v {
				t.Fatalf("result %d, element %d: %v, recomputed %v", i, j, v, again.values[i][j])
			}
		}
	}
	gradients := 4 * int(c.Parameters()) // in the arena too
	if 5*(again.arena-gradients) > 3*(plain.arena-gradients) {
		t.Errorf("activations of 6 layers take %d bytes, with recomputation %d", plain.arena-gradients, again.arena-gradients)
	}
}

func TestBuildPanicsOnAnInvalidConfig(t *testing.T) {
	defer func() {
		if p := recover(); p == nil || !strings.Contains(p.(string), "model.heads") {
			t.Errorf("panic %v", p)
		}
	}()
	Build(graph.NewBuilder(graph.F32), with(tiny, func(c *Config) { c.Heads = 0 }), 1, 4, graph.FP32)
}

func TestParameters(t *testing.T) {
	w := lively(tiny, 1)
	p := onNaive(t, w)
	got, err := p.Download()
	if err != nil {
		t.Fatal(err)
	}
	sameWeights(t, got, w)
	other := lively(tiny, 2)
	if err := p.Upload(other); err != nil {
		t.Fatal(err)
	}
	if got, err = p.Download(); err != nil {
		t.Fatal(err)
	}
	sameWeights(t, got, other)

	for name, bad := range map[string]*Weights{
		"another model": lively(with(tiny, func(c *Config) { c.Layers = 1 }), 1),
		"one missing":   {tiny, w.Tensors[1:]},
	} {
		if err := p.Upload(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got, err = p.Download(); err != nil {
		t.Fatal(err)
	}
	sameWeights(t, got, other)

	bind := p.Bindings()
	if len(bind) != len(p.Names())+2 {
		t.Errorf("%d bindings for %d weights and two tables", len(bind), len(p.Names()))
	}
	bind["more"] = graph.Buffer{}
	if len(p.Bindings()) == len(bind) {
		t.Error("Bindings hands out its own map")
	}
}

// RoPE's tables by hand: position 3, HeadDim 4, base 100: frequencies 1 and 100^(-2/4) = 0.1.
func TestRopeTables(t *testing.T) {
	cos, sin := ropeTables(Config{HeadDim: 4, RopeTheta: 100}, 4, 4)
	for i, angle := range []float64{3, 0.3} {
		if c, s := float64(cos[3*2+i]), float64(sin[3*2+i]); math.Abs(c-math.Cos(angle)) > 1e-6 || math.Abs(s-math.Sin(angle)) > 1e-6 {
			t.Errorf("angle %v: cos %v, sin %v", angle, c, s)
		}
	}
	if cos[0] != 1 || sin[0] != 0 {
		t.Errorf("position 0: cos %v, sin %v", cos[0], sin[0])
	}
}
