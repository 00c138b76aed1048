package transformer

import (
	"fmt"

	"meap/pkg/graph"
)

// Names of a model's inputs beside its weights and RoPE tables. n = batch*seq tokens, one row after the other.
const (
	InputIDs       = "ids"       // int32 [n]
	InputPositions = "positions" // int32 [n], each token's position in its document, below max_seq
	InputStarts    = "starts"    // int32 [n], the first position of its row that a token sees; see graph.Attention
	InputLabels    = "labels"    // int32 [n], negative: does not count
	InputScale     = "scale"     // fp32 scalar, the factor on the summed loss
	InputPast      = "past"      // int32 [batch], the tokens of each row that the caches hold
	InputLast      = "last"      // int32 [batch], the index in 0..n-1 of each row's token whose logits are wanted
)

// Model is the architecture as nodes of a graph.
type Model struct {
	Config Config
	Params []*graph.Node // the weights, in the order of Config.Weights
	Hidden *graph.Node   // [n, dim], after the final norm
	Head   *graph.Node   // [vocab, dim]; the embedding where they are tied

	b         *graph.Builder
	precision graph.Precision
	batch     int
}

// attend mixes the tokens' values: q [n, heads*headDim], k and v [n, kvHeads*headDim], q and k rotated -> [n, heads*headDim].
type attend func(layer int, q, k, v *graph.Node) *graph.Node

// Build adds the model to a graph, for rows of seq tokens that are all there at once: training and scoring.
func Build(b *graph.Builder, c Config, batch, seq int, p graph.Precision) *Model {
	starts := b.IntInput(InputStarts, batch*seq)
	return build(b, c, batch, seq, p, func(_ int, q, k, v *graph.Node) *graph.Node {
		return b.Attention(c.attention(seq, p), q, k, v, starts)
	})
}

// BuildCached adds the model to a graph, for generation: rows of seq new tokens see those before them in the KV caches, inputs
// [batch, capacity, kvHeads*headDim] named by CacheNames, and add their own.
func BuildCached(b *graph.Builder, c Config, batch, seq, capacity int, p graph.Precision) *Model {
	past := b.IntInput(InputPast, batch)
	return build(b, c, batch, seq, p, func(layer int, q, k, v *graph.Node) *graph.Node {
		keys, values := CacheNames(layer)
		kcache := b.FloatInput(keys, batch, capacity, c.KVHeads*c.HeadDim)
		vcache := b.FloatInput(values, batch, capacity, c.KVHeads*c.HeadDim)
		return b.CachedAttention(c.attention(seq, p), q, k, v, kcache, vcache, past)
	})
}

// CacheNames returns the names of a layer's KV caches among the inputs of BuildCached.
func CacheNames(layer int) (keys, values string) {
	return fmt.Sprintf("cache.%d.k", layer), fmt.Sprintf("cache.%d.v", layer)
}

func (c Config) attention(seq int, p graph.Precision) graph.Attention {
	return graph.Attention{Seq: seq, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Precision: p}
}

// build is the architecture: a pre-norm decoder with RMSNorm, RoPE, grouped-query attention and SwiGLU (Touvron et al. 2023,
// arXiv 2302.13971 and 2307.09288).
func build(b *graph.Builder, c Config, batch, seq int, p graph.Precision, attend attend) *Model {
	if err := c.Validate(); err != nil {
		panic(fmt.Sprintf("transformer: %v", err))
	}
	n := batch * seq
	ids := b.IntInput(InputIDs, n)
	positions := b.IntInput(InputPositions, n)
	cos := b.FloatInput(InputCos, c.MaxSeq, c.HeadDim/2)
	sin := b.FloatInput(InputSin, c.MaxSeq, c.HeadDim/2)
	m := &Model{Config: c, b: b, precision: p, batch: batch}
	w := c.declare(func(w Weight) *graph.Node {
		m.Params = append(m.Params, b.FloatInput(w.Name, w.Shape...))
		return m.Params[len(m.Params)-1]
	})

	x := b.Embedding(w.embed, ids) // [n, dim]
	for i, l := range w.layers {
		b.Checkpoint(x)

		h := b.RMSNorm(x, l.attnNorm, c.NormEps)                       // [n, dim]
		q := b.RoPE(b.Linear(h, l.q, l.qBias, p), cos, sin, positions) // [n, heads*headDim]
		k := b.RoPE(b.Linear(h, l.k, l.kBias, p), cos, sin, positions) // [n, kvHeads*headDim]
		v := b.Linear(h, l.v, l.vBias, p)                              // [n, kvHeads*headDim]
		x = b.Add(x, b.Linear(attend(i, q, k, v), l.o, nil, p))        // [n, dim]

		h = b.RMSNorm(x, l.ffnNorm, c.NormEps)                               // [n, dim]
		h = b.SwiGLU(b.Linear(h, l.gate, nil, p), b.Linear(h, l.up, nil, p)) // [n, ffn]
		x = b.Add(x, b.Linear(h, l.down, nil, p))                            // [n, dim]
	}
	b.Checkpoint(x)
	m.Hidden = b.RMSNorm(x, w.norm, c.NormEps) // [n, dim]
	m.Head = w.head
	return m
}

// Loss adds the head and the cross-entropy: nll [n] is each token's negative log-likelihood in nats, 0 where its label is negative;
// loss [] is their sum times InputScale. Call it once per graph.
func (m *Model) Loss() (loss, nll *graph.Node) {
	labels := m.b.IntInput(InputLabels, graph.DescOf(m.Hidden).Shape[0])
	nll = m.b.LinearCrossEntropy(m.Hidden, m.Head, labels, m.precision)
	return m.b.WeightedSum(nll, m.b.FloatInput(InputScale)), nll
}

// Logits adds the head for every token: [n, vocab].
func (m *Model) Logits() *graph.Node { return m.b.Linear(m.Hidden, m.Head, nil, m.precision) }

// LastLogits adds the head for one token of each row, which InputLast names: [batch, vocab]. Call it once per graph.
func (m *Model) LastLogits() *graph.Node {
	last := m.b.IntInput(InputLast, m.batch)
	return m.b.Linear(m.b.Embedding(m.Hidden, last), m.Head, nil, m.precision)
}
