package graphtest

import (
	"fmt"
	"math"

	"meap/pkg/graph"
)

// attentions are batch, seq, heads, kv heads, head size.
var attentions = [][5]int{
	{1, 1, 1, 1, 2}, {3, 1, 4, 2, 16}, {1, 2, 1, 1, 64}, {2, 3, 3, 3, 24}, {1, 17, 6, 1, 16}, {2, 33, 6, 2, 64}, {1, 65, 4, 4, 80},
	{3, 31, 8, 4, 2}, {1, 129, 2, 1, 128}, {2, 100, 2, 2, 24}, {1, 257, 1, 1, 16}, {1, 127, 5, 5, 10},
}

// documents makes starts for one batch: either none, or documents that begin at random places.
func documents(s source, batch, seq int, several bool) tensor {
	starts := tensor{shape: []int{batch * seq}, i: make([]int32, batch*seq)}
	for b := range batch {
		first := int32(0)
		for i := range seq {
			if several && i > 0 && s.IntN(max(2, seq/4)) == 0 {
				first = int32(i)
			}
			starts.i[b*seq+i] = first
		}
	}
	return starts
}

func eachAttention(s source, f func(a graph.Attention, name string, batch int, q, k, v, starts tensor)) {
	for _, d := range attentions {
		batch, seq, heads, kv, dim := d[0], d[1], d[2], d[3], d[4]
		for _, p := range []graph.Precision{graph.FP32, graph.BF16Operands} {
			for _, several := range []bool{false, true} {
				if p == graph.BF16Operands && !several {
					continue
				}
				name := fmt.Sprintf("%v %dx%d %d heads %d kv of %d", p, batch, seq, heads, kv, dim)
				if several {
					name += " documents"
				}
				f(graph.Attention{Seq: seq, Heads: heads, KVHeads: kv, HeadDim: dim, Precision: p}, name, batch,
					s.normal(1, batch*seq, heads*dim), s.normal(1, batch*seq, kv*dim), s.normal(1, batch*seq, kv*dim), documents(s, batch, seq, several))
			}
		}
	}
	// Scores up to some hundreds: one key takes all the weight, and exponentials overflow unless the largest score is
	// subtracted first.
	f(graph.Attention{Seq: 40, Heads: 2, KVHeads: 1, HeadDim: 16}, "fp32 large scores", 1,
		s.normal(30, 40, 32), s.normal(5, 40, 16), s.normal(1, 40, 16), documents(s, 1, 40, false))
}

// attentionTolerance: 1e-5 for float32; 2e-2 where operands are rounded to bfloat16, which moves each probability by about
// 2^-9 times the absolute terms of its score.
func attentionTolerance(p graph.Precision) []float64 {
	if p == graph.BF16Operands {
		return []float64{2e-2}
	}
	return sums
}

func attentionCases(s source) (cs []*testCase) {
	eachAttention(s, func(a graph.Attention, name string, batch int, q, k, v, starts tensor) {
		cs = append(cs, &testCase{name: name, spec: a, in: []tensor{q, k, v, starts}, tolerance: attentionTolerance(a.Precision),
			magnitude: attentionTerms, groups: batch})
	})
	return cs
}

func attentionGradCases(s source) (cs []*testCase) {
	eachAttention(s, func(a graph.Attention, name string, batch int, q, k, v, starts tensor) {
		in := []tensor{q, k, v, starts}
		var outs []wide
		for _, d := range a.Infer(descs(in)) {
			outs = append(outs, widen([]tensor{zeros(d)})...)
		}
		outs = evaluate(a, widen(in), outs)
		cs = append(cs, &testCase{name: name, spec: graph.AttentionGrad{Attention: a},
			in:        []tensor{q, k, v, narrow(outs[0]), narrow(outs[1]), s.normal(1, q.shape...), starts},
			tolerance: attentionTolerance(a.Precision), magnitude: attentionGradTerms, groups: batch})
	})
	return cs
}

func narrow(x wide) tensor {
	y := filled(0, x.shape...)
	for i, v := range x.f {
		y.f[i] = float32(v)
	}
	return y
}

// query is one query of one head: its probabilities over the keys from..to, and how uncertain they are.
type query struct {
	row, head, kv int // offsets: of the query's row, of the head in it, of the kv head in a row of k or v
	from, to      int // rows of k and v
	p             []float64
	doubt         float64 // 1 + the largest sum of a score's absolute terms; relative errors of p grow with it
	lse           float64
}

// queries calls f for every query of every head, from the given one of each sequence on.
func queries(a graph.Attention, q, k, starts wide, first int, f func(query)) {
	qw, kw := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	for b := range q.shape[0] / a.Seq {
		for h := range a.Heads {
			for i := first; i < a.Seq; i++ {
				r := b*a.Seq + i
				x := query{row: r * qw, head: h * a.HeadDim, kv: h / (a.Heads / a.KVHeads) * a.HeadDim, from: b*a.Seq + int(starts.i[r]), to: r, doubt: 1}
				top, sum := math.Inf(-1), 0.0
				for j := x.from; j <= x.to; j++ {
					dot, terms := 0.0, 0.0
					for d := range a.HeadDim {
						t := q.f[x.row+x.head+d] * k.f[j*kw+x.kv+d] * a.Scale()
						dot, terms = dot+t, terms+math.Abs(t)
					}
					x.p, top, x.doubt = append(x.p, dot), max(top, dot), max(x.doubt, 1+terms)
				}
				for _, v := range x.p {
					sum += math.Exp(v - top)
				}
				x.lse = top + math.Log(sum)
				for j, v := range x.p {
					x.p[j] = math.Exp(v - x.lse)
				}
				if a.Precision == graph.BF16Operands {
					x.doubt = 1
				}
				f(x)
			}
		}
	}
}

// attentionTerms sums p|v|, times the doubt about p, for the output; for lse it is that doubt and lse itself.
func attentionTerms(c *testCase, in, _ []wide) [][]float64 {
	a := c.spec.(graph.Attention)
	v, kw := in[2].abs().f, a.KVHeads*a.HeadDim
	out, lse := make([]float64, len(in[0].f)), make([]float64, 0, in[0].shape[0]*a.Heads)
	queries(a, in[0], in[1], in[3], 0, func(x query) {
		lse = append(lse, x.doubt+math.Abs(x.lse))
		for j, p := range x.p {
			for d := range a.HeadDim {
				out[x.row+x.head+d] += x.doubt * p * v[(x.from+j)*kw+x.kv+d]
			}
		}
	})
	return [][]float64{out, lse}
}

// attentionGradTerms sums the absolute terms of dq, dk and dv, times the doubt about p.
func attentionGradTerms(c *testCase, in, _ []wide) [][]float64 {
	a := c.spec.(graph.AttentionGrad).Attention
	q, k, v, do := in[0].abs().f, in[1].abs().f, in[2].abs().f, in[5].abs().f
	dq, dk, dv := make([]float64, len(q)), make([]float64, len(k)), make([]float64, len(v))
	kw := a.KVHeads * a.HeadDim
	queries(a, in[0], in[1], in[6], 0, func(x query) {
		dp, mean := make([]float64, len(x.p)), 0.0
		for j, p := range x.p {
			for d := range a.HeadDim {
				dp[j] += do[x.row+x.head+d] * v[(x.from+j)*kw+x.kv+d]
			}
			mean += p * dp[j]
		}
		for j, p := range x.p {
			at := (x.from+j)*kw + x.kv
			ds := x.doubt * p * (dp[j] + mean) * a.Scale()
			for d := range a.HeadDim {
				dv[at+d] += x.doubt * p * do[x.row+x.head+d]
				dk[at+d] += ds * q[x.row+x.head+d]
				dq[x.row+x.head+d] += ds * k[at+d]
			}
		}
	})
	return [][]float64{dq, dk, dv}
}

func cachedAttentionCases(s source) (cs []*testCase) {
	for _, d := range []struct {
		seq, heads, kv, dim, capacity int
		past                          []int32
	}{
		{1, 1, 1, 2, 1, []int32{0}},
		{1, 4, 2, 16, 5, []int32{0, 4, 2}},
		{1, 6, 1, 64, 300, []int32{299}},
		{5, 3, 3, 24, 9, []int32{0, 4}},
		{17, 4, 4, 80, 40, []int32{23, 0, 7}},
		{65, 2, 1, 128, 65, []int32{0}},
		{33, 8, 2, 16, 400, []int32{367, 1}},
	} {
		for _, p := range []graph.Precision{graph.FP32, graph.BF16Operands} {
			a := graph.Attention{Seq: d.seq, Heads: d.heads, KVHeads: d.kv, HeadDim: d.dim, Precision: p}
			batch, kw := len(d.past), d.kv*d.dim
			kc, vc := s.normal(1, batch, d.capacity, kw), s.normal(1, batch, d.capacity, kw)
			for b, past := range d.past { // what lies behind the new tokens is nobody's business: NaN would show
				for i := (b*d.capacity + int(past)) * kw; i < (b+1)*d.capacity*kw; i++ {
					kc.f[i], vc.f[i] = float32(math.NaN()), float32(math.NaN())
				}
			}
			n := batch * d.seq
			cs = append(cs, &testCase{name: fmt.Sprintf("%v %dx%d %d heads %d kv of %d past %v of %d", p, batch, d.seq, d.heads, d.kv, d.dim, d.past, d.capacity),
				spec:   graph.CachedAttention{Attention: a},
				in:     []tensor{s.normal(1, n, d.heads*d.dim), s.normal(1, n, kw), s.normal(1, n, kw), kc, vc, {shape: []int{batch}, i: d.past}},
				writes: []int{3, 4}, tolerance: append(attentionTolerance(p), 0, 0), magnitude: cachedAttentionTerms, groups: batch})
		}
	}
	return cs
}

func cachedAttentionTerms(c *testCase, in, initial []wide) [][]float64 {
	a := c.spec.(graph.CachedAttention).Attention
	v, kw, capacity := in[4], a.KVHeads*a.HeadDim, in[3].shape[1]
	scores := evaluate(c.spec, in, initial) // fills the caches
	out := make([]float64, len(scores[0].f))
	// The sequences differ in their past, so each is looked at as the end of a row of its own.
	for b, past := range in[5].i {
		n := int(past) + a.Seq
		row := a
		row.Seq = n
		q := wide{shape: []int{n, a.Heads * a.HeadDim}, f: make([]float64, n*a.Heads*a.HeadDim)}
		copy(q.f[int(past)*a.Heads*a.HeadDim:], in[0].f[b*a.Seq*a.Heads*a.HeadDim:(b+1)*a.Seq*a.Heads*a.HeadDim])
		k := wide{shape: []int{n, kw}, f: in[3].f[b*capacity*kw:][:n*kw]}
		queries(row, q, k, wide{i: make([]int32, n)}, int(past), func(x query) {
			i := x.to - int(past)
			for j, p := range x.p {
				for d := range a.HeadDim {
					out[(b*a.Seq+i)*a.Heads*a.HeadDim+x.head+d] += x.doubt * p * math.Abs(v.f[(b*capacity+j)*kw+x.kv+d])
				}
			}
		})
	}
	return [][]float64{out, nil, nil}
}

// pieces feeds the tokens of a case to the cache in pieces and compares with what they gave all at once.
func pieces(dev graph.Device, c *testCase) error {
	a := c.spec.(graph.CachedAttention).Attention
	k, err := c.kernel(dev)
	if err != nil {
		return err
	}
	whole, err := c.run(dev, k)
	if err != nil {
		return err
	}
	batch := len(c.in[5].i)
	for _, size := range []int{1, (a.Seq + 1) / 2} {
		kc, vc, past := c.in[3], c.in[4], c.in[5].clone()
		for from := 0; from < a.Seq; from += size {
			n := min(size, a.Seq-from)
			part := &testCase{spec: graph.CachedAttention{Attention: graph.Attention{Seq: n, Heads: a.Heads, KVHeads: a.KVHeads, HeadDim: a.HeadDim, Precision: a.Precision}},
				in:     []tensor{tokens(c.in[0], batch, from, n), tokens(c.in[1], batch, from, n), tokens(c.in[2], batch, from, n), kc, vc, past},
				writes: c.writes, initial: []tensor{filled(float32(math.NaN()), batch*n, a.Heads*a.HeadDim)}}
			if k, err = part.kernel(dev); err != nil {
				return err
			}
			got, err := part.run(dev, k)
			if err != nil {
				return err
			}
			want := tokens(whole[0], batch, from, n)
			if e := differ(got[0], want); e >= 0 {
				return fmt.Errorf("element %d of the tokens from %d is %v in pieces of %d and %v all at once", e, from, got[0].at(e), size, want.at(e))
			}
			kc, vc, past = got[1], got[2], past.clone()
			for b := range past.i {
				past.i[b] += int32(n)
			}
		}
		if differ(kc, whole[1]) >= 0 || differ(vc, whole[2]) >= 0 {
			return fmt.Errorf("the caches differ after pieces of %d", size)
		}
	}
	return nil
}

// tokens returns n tokens of every sequence, from the given one on, of x [batch*seq, width].
func tokens(x tensor, batch, from, n int) tensor {
	width, seq := x.shape[1], x.shape[0]/batch
	y := tensor{shape: []int{batch * n, width}}
	for b := range batch {
		y.f = append(y.f, x.f[(b*seq+from)*width:(b*seq+from+n)*width]...)
	}
	return y
}
