package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// attention64 is the definition in float64: every score of a query, then the
// weighted sum; and, where dout is given, the gradients by the product rule.
type attention64 struct {
	out, lse, dq, dk, dv []float64
}

func newAttention64(a *Attention, q, k, v, dout []float32) *attention64 {
	qw, kw := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	r := &attention64{
		out: make([]float64, a.Batch*a.Queries*qw), lse: make([]float64, a.Batch*a.Heads*a.Queries),
		dq: make([]float64, a.Batch*a.Queries*qw), dk: make([]float64, a.Batch*a.Keys*kw), dv: make([]float64, a.Batch*a.Keys*kw),
	}
	for b := range a.Batch {
		past := 0
		if a.Past != nil {
			past = int(a.Past[b])
		}
		for h := range a.Heads {
			for i := range a.Queries {
				row := b*a.Queries + i
				from, qo := 0, row*qw+h*a.HeadDim
				if a.Starts != nil {
					from = int(a.Starts[row])
				}
				ko := func(j int) int { return (b*a.Keys+j)*kw + h/(a.Heads/a.KVHeads)*a.HeadDim }
				p := make([]float64, past+i+1)
				sum := 0.0
				for j := from; j <= past+i; j++ {
					for d := range a.HeadDim {
						p[j] += float64(q[qo+d]) * float64(k[ko(j)+d])
					}
					p[j] = math.Exp(p[j] * float64(a.Scale))
					sum += p[j]
				}
				r.lse[(b*a.Heads+h)*a.Queries+i] = math.Log(sum)
				delta := 0.0
				for j := from; j <= past+i; j++ {
					p[j] /= sum
					for d := range a.HeadDim {
						r.out[qo+d] += p[j] * float64(v[ko(j)+d])
					}
				}
				if dout == nil {
					continue
				}
				for d := range a.HeadDim {
					delta += float64(dout[qo+d]) * r.out[qo+d]
				}
				for j := from; j <= past+i; j++ {
					dp := 0.0
					for d := range a.HeadDim {
						dp += float64(dout[qo+d]) * float64(v[ko(j)+d])
						r.dv[ko(j)+d] += p[j] * float64(dout[qo+d])
					}
					ds := p[j] * (dp - delta) * float64(a.Scale)
					for d := range a.HeadDim {
						r.dq[qo+d] += ds * float64(k[ko(j)+d])
						r.dk[ko(j)+d] += ds * float64(q[qo+d])
					}
				}
			}
		}
	}
	return r
}

// documents are starts of documents of random lengths, of a number of sequences.
func documents(seed uint64, batch, seq, mean int) []int32 {
	r := rand.New(rand.NewPCG(seed, 2))
	starts := make([]int32, 0, batch*seq)
	for range batch {
		start := 0
		for i := range seq {
			if r.IntN(mean) == 0 {
				start = i
			}
			starts = append(starts, int32(start))
		}
	}
	return starts
}

// attentionCase is one call with its operands, results poisoned.
type attentionCase struct {
	Attention
	q, k, v, dout         []float32
	out, lse, dq, dk, dv  []float32
	wholes                [][]float32
	guardRows, guardWidth []int
}

func newAttentionCase(a Attention) *attentionCase {
	if a.Keys == 0 {
		a.Keys = a.Queries
	}
	a.Scale = float32(1 / math.Sqrt(float64(a.HeadDim)))
	c := &attentionCase{Attention: a}
	rows, keys, qw, kw := a.Batch*a.Queries, a.Batch*a.Keys, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	c.q, c.k, c.v, c.dout = normals(1, rows*qw), normals(2, keys*kw), normals(3, keys*kw), normals(4, rows*qw)
	result := func(rows, width int) []float32 {
		whole, inner := guarded(rows, width, width)
		c.wholes = append(c.wholes, whole)
		c.guardRows, c.guardWidth = append(c.guardRows, rows), append(c.guardWidth, width)
		for i := range inner {
			inner[i] = float32(math.NaN())
		}
		return inner
	}
	c.out, c.dq, c.lse = result(rows, qw), result(rows, qw), result(a.Batch*a.Heads, a.Queries)
	c.dk, c.dv = result(keys, kw), result(keys, kw)
	return c
}

func (c *attentionCase) String() string {
	return fmt.Sprintf("B=%d T=%d/%d H=%d/%d hd=%d docs=%v", c.Batch, c.Queries, c.Keys, c.Heads, c.KVHeads, c.HeadDim, c.Starts != nil)
}

func (c *attentionCase) forward(k *Kernels) {
	k.AttentionForward(&c.Attention, c.out, c.lse, c.q, c.k, c.v)
}

func (c *attentionCase) backward(k *Kernels) {
	k.AttentionBackward(&c.Attention, c.dq, c.dk, c.dv, c.q, c.k, c.v, c.out, c.lse, c.dout)
}

func (c *attentionCase) compare(t *testing.T, what string, got []float32, want []float64, tol float64) {
	t.Helper()
	for i, w := range want {
		if !(math.Abs(float64(got[i])-w) <= tol*(1+math.Abs(w))) {
			t.Fatalf("%v: %s[%d] = %v, want %v", c, what, i, got[i], w)
		}
	}
}

func (c *attentionCase) checkGuards(t *testing.T) {
	t.Helper()
	for i, w := range c.wholes {
		checkGuards(t, c.String(), w, c.guardRows[i], c.guardWidth[i], c.guardWidth[i])
	}
}

func attentionCases() []Attention {
	return []Attention{
		{Batch: 1, Queries: 1, Heads: 1, KVHeads: 1, HeadDim: 16},
		{Batch: 3, Queries: 1, Heads: 6, KVHeads: 2, HeadDim: 24},
		{Batch: 2, Queries: 2, Heads: 2, KVHeads: 1, HeadDim: 6},
		{Batch: 2, Queries: 7, Heads: 4, KVHeads: 4, HeadDim: 64},
		{Batch: 1, Queries: 65, Heads: 6, KVHeads: 3, HeadDim: 80, Starts: documents(1, 1, 65, 9)},
		{Batch: 1, Queries: 127, Heads: 3, KVHeads: 1, HeadDim: 24},
		{Batch: 2, Queries: 129, Heads: 2, KVHeads: 2, HeadDim: 16, Starts: documents(2, 2, 129, 20)},
		{Batch: 1, Queries: 300, Heads: 2, KVHeads: 1, HeadDim: 40, Starts: documents(3, 1, 300, 60)},
		{Batch: 1, Queries: 263, Heads: 1, KVHeads: 1, HeadDim: 128},
		{Batch: 1, Queries: 256, Heads: 2, KVHeads: 2, HeadDim: 64, Starts: documents(4, 1, 256, 3)},
	}
}

func TestAttentionAgainstFloat64(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 2)
		for _, a := range attentionCases() {
			c := newAttentionCase(a)
			want := newAttention64(&c.Attention, c.q, c.k, c.v, c.dout)
			c.forward(k)
			c.compare(t, "out", c.out, want.out, 2e-6)
			c.compare(t, "lse", c.lse, want.lse, 2e-6)
			c.backward(k)
			c.compare(t, "dq", c.dq, want.dq, 1e-5)
			c.compare(t, "dk", c.dk, want.dk, 1e-5)
			c.compare(t, "dv", c.dv, want.dv, 1e-5)
			c.checkGuards(t)
		}
	})
}

// With bf16 operands the error is that of bf16, 2^-9 per operand, and not zero.
func TestAttentionBF16(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 2)
		a := Attention{Batch: 1, Queries: 201, Heads: 2, KVHeads: 1, HeadDim: 48, BF16: true, Starts: documents(5, 1, 201, 70)}
		c := newAttentionCase(a)
		want := newAttention64(&c.Attention, c.q, c.k, c.v, c.dout)
		c.forward(k)
		c.compare(t, "out", c.out, want.out, 0.03)
		c.compare(t, "lse", c.lse, want.lse, 0.02)
		c.backward(k)
		c.compare(t, "dq", c.dq, want.dq, 0.06)
		c.compare(t, "dk", c.dk, want.dk, 0.06)
		c.compare(t, "dv", c.dv, want.dv, 0.06)
		difference := 0.0
		for i, w := range want.out {
			difference = max(difference, math.Abs(float64(c.out[i])-w))
		}
		if difference < 1e-4 {
			t.Fatalf("the largest error is %v: operands were not rounded", difference)
		}
	})
}

// Queries in pieces of any size against a cache give the very bits of all of them
// at once, for each sequence at its own position.
func TestAttentionOverCache(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1) // pairs are items over the cache, and divided in the full sequence
		for _, bf16 := range []bool{false, true} {
			const seq, capacity = 300, 333
			full := newAttentionCase(Attention{Batch: 1, Queries: seq, Heads: 6, KVHeads: 2, HeadDim: 24, BF16: bf16})
			full.forward(k)
			qw, kw := full.Heads*full.HeadDim, full.KVHeads*full.HeadDim
			// The same sequence three times in one cache, continued at three places.
			// What lies beyond is garbage and must not matter.
			cacheK, cacheV := make([]float32, 3*capacity*kw), make([]float32, 3*capacity*kw)
			past := []int32{0, 127, 250}
			for _, n := range []int{1, 2, 45} {
				q := make([]float32, 0, 3*n*qw)
				for b, p := range past {
					for i := range capacity * kw {
						cacheK[b*capacity*kw+i], cacheV[b*capacity*kw+i] = float32(math.NaN()), float32(math.NaN())
					}
					end := (int(p) + n) * kw
					copy(cacheK[b*capacity*kw:], full.k[:end])
					copy(cacheV[b*capacity*kw:], full.v[:end])
					q = append(q, full.q[int(p)*qw:(int(p)+n)*qw]...)
				}
				a := full.Attention
				a.Batch, a.Queries, a.Keys, a.Past = 3, n, capacity, past
				out := make([]float32, 3*n*qw)
				lse := make([]float32, 3*a.Heads*n)
				k.AttentionForward(&a, out, lse, q, cacheK, cacheV)
				for b, p := range past {
					if got, want := out[b*n*qw:(b+1)*n*qw], full.out[int(p)*qw:(int(p)+n)*qw]; !slices.Equal(got, want) {
						t.Fatalf("bf16=%v: %d queries after %d differ from the same of %d", bf16, n, p, seq)
					}
					for h := range a.Heads {
						if lse[(b*a.Heads+h)*n] != full.lse[h*seq+int(p)] {
							t.Fatalf("bf16=%v: lse of head %d after %d differs", bf16, h, p)
						}
					}
				}
			}
		}
	})
}

// The results of one sequence do not depend on the others, nor any on the number
// of threads, which decides how the gradient is divided.
func TestAttentionSameForAnyThreadsAndBatch(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		for _, bf16 := range []bool{false, true} {
			a := Attention{Batch: 3, Queries: 270, Heads: 2, KVHeads: 1, HeadDim: 20, BF16: bf16, Starts: documents(6, 3, 270, 90)}
			var first *attentionCase
			divided := map[bool]bool{}
			for _, threads := range []int{1, 2, 3, 5} {
				k := newTestKernels(t, isa, threads)
				c := newAttentionCase(a)
				c.forward(k)
				c.backward(k)
				divided[k.attention.fewPairs(a.Batch*a.KVHeads)] = true
				if first == nil {
					first = c
					continue
				}
				for _, x := range [][2][]float32{{c.out, first.out}, {c.lse, first.lse}, {c.dq, first.dq}, {c.dk, first.dk}, {c.dv, first.dv}} {
					if !slices.Equal(x[0], x[1]) {
						t.Fatalf("bf16=%v: %d threads differ from one", bf16, threads)
					}
				}
			}
			if len(divided) != 2 {
				t.Fatal("the numbers of threads do not cover both divisions of the gradient")
			}
			k := newTestKernels(t, isa, 2)
			one := a
			one.Batch = 1
			qw, kw := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
			for b := range a.Batch {
				one.Starts = a.Starts[b*a.Queries:][:a.Queries]
				c := newAttentionCase(one)
				q0, q1, k0, k1 := b*a.Queries*qw, (b+1)*a.Queries*qw, b*a.Keys*kw, (b+1)*a.Keys*kw
				if a.Keys == 0 {
					k0, k1 = b*a.Queries*kw, (b+1)*a.Queries*kw
				}
				c.q, c.k, c.v, c.dout = first.q[q0:q1], first.k[k0:k1], first.v[k0:k1], first.dout[q0:q1]
				c.forward(k)
				c.backward(k)
				if !slices.Equal(c.out, first.out[q0:q1]) || !slices.Equal(c.dq, first.dq[q0:q1]) ||
					!slices.Equal(c.dk, first.dk[k0:k1]) || !slices.Equal(c.dv, first.dv[k0:k1]) {
					t.Fatalf("bf16=%v: sequence %d alone differs from the same in a batch", bf16, b)
				}
			}
		}
	})
}

// Where not all pairs fit the budget they are worked on in runs, to the same
// result.
func TestAttentionInRuns(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 2)
		a := Attention{Batch: 5, Queries: 140, Heads: 4, KVHeads: 2, HeadDim: 16, Starts: documents(7, 5, 140, 40)}
		one := newAttentionCase(a)
		one.forward(k)
		one.backward(k)
		for _, pairs := range []int{0, 3} {
			c := newAttentionCase(a)
			k := newTestKernels(t, isa, 8) // too many for pairs to be items
			k.attention.budget = pairs * 50_000
			c.forward(k)
			c.backward(k)
			for _, x := range [][2][]float32{{c.out, one.out}, {c.lse, one.lse}, {c.dq, one.dq}, {c.dk, one.dk}, {c.dv, one.dv}} {
				if !slices.Equal(x[0], x[1]) {
					t.Fatal("in runs and at once differ")
				}
			}
		}
	})
}

// Scores far beyond the range of exp must not overflow, and a NaN must show.
func TestAttentionExtremes(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 1)
		c := newAttentionCase(Attention{Batch: 1, Queries: 140, Heads: 1, KVHeads: 1, HeadDim: 8})
		for i := range c.q {
			c.q[i] *= 300
			c.k[i] *= 300
		}
		c.forward(k)
		for i, v := range c.out {
			if v != v || math.IsInf(float64(v), 0) {
				t.Fatalf("out[%d] = %v", i, v)
			}
		}
		c = newAttentionCase(Attention{Batch: 1, Queries: 140, Heads: 1, KVHeads: 1, HeadDim: 8})
		c.q[5*8] = float32(math.NaN())
		c.k[130*8] = float32(math.NaN())
		c.forward(k)
		for r := range 140 {
			isNaN := c.out[r*8] != c.out[r*8]
			if want := r == 5 || r >= 130; isNaN != want {
				t.Fatalf("row %d: NaN %v, want %v", r, isNaN, want)
			}
		}
	})
}

func TestAttentionAllocatesNothing(t *testing.T) {
	forISAs(t, func(t *testing.T, isa ISA) {
		k := newTestKernels(t, isa, 3)
		c := newAttentionCase(Attention{Batch: 2, Queries: 40, Heads: 4, KVHeads: 2, HeadDim: 16})
		if n := testing.AllocsPerRun(10, func() { c.forward(k); c.backward(k) }); n != 0 {
			t.Fatalf("%v allocations per step, want 0", n)
		}
	})
}

func TestAttentionRefusesWrongSizes(t *testing.T) {
	k := newTestKernels(t, Generic, 1)
	for name, a := range map[string]Attention{
		"heads":    {Batch: 1, Queries: 2, Keys: 2, Heads: 3, KVHeads: 2, HeadDim: 4},
		"capacity": {Batch: 1, Queries: 2, Keys: 4, Heads: 2, KVHeads: 2, HeadDim: 4, Past: []int32{3}},
		"starts":   {Batch: 1, Queries: 2, Keys: 2, Heads: 2, KVHeads: 2, HeadDim: 4, Starts: []int32{0}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			x := make([]float32, 64)
			k.AttentionForward(&a, x, nil, x, x, x)
		}()
	}
}

func BenchmarkAttention(b *testing.B) {
	for _, seq := range []int{512, 2048} {
		for _, bf16 := range []bool{false, true} {
			b.Run(fmt.Sprintf("T=%d/bf16=%v", seq, bf16), func(b *testing.B) {
				k := newTestKernels(b, DetectISA(), 0)
				c := newAttentionCase(Attention{Batch: 1, Queries: seq, Heads: 12, KVHeads: 12, HeadDim: 64, BF16: bf16})
				c.forward(k)
				c.backward(k)
				// 2 products forward and 5 backward over the causal half
				flops := 2 * 7 * float64(c.Heads*c.HeadDim) * float64(seq) * float64(seq+1) / 2
				for b.Loop() {
					c.forward(k)
					c.backward(k)
				}
				b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
