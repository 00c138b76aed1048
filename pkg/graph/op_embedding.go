package graph

// Embedding looks up rows: table [vocab, dim], ids int32 [n] -> [n, dim].
type Embedding struct{}

// EmbeddingGrad is its gradient: dy [n, dim], ids int32 [n] -> dtable [Vocab, dim], added to what is there if Acc. Rows are
// summed in the order of their tokens, so the result does not depend on the number of threads.
type EmbeddingGrad struct {
	Vocab int
	Acc   bool
}

// Embedding returns the rows ids [n] of table [vocab, dim].
func (b *Builder) Embedding(table, ids *Node) *Node { return b.Apply(Embedding{}, table, ids) }

// Infer implements Spec.
func (s Embedding) Infer(in []Desc) []Desc {
	table, ids := in[0], in[1]
	check(s, in, rank(table, 2), rank(ids, 1), ids.Dtype == I32)
	return []Desc{Of(table.Dtype, ids.Shape[0], table.Shape[1])}
}

func (Embedding) wrt() []bool { return []bool{true, false} }

func (Embedding) diff(b *Builder, in []*Node, _, dy *Node) []*Node {
	return []*Node{b.Apply(EmbeddingGrad{Vocab: DescOf(in[0]).Shape[0]}, dy, in[1]), nil}
}

// Infer implements Spec.
func (s EmbeddingGrad) Infer(in []Desc) []Desc {
	dy, ids := in[0], in[1]
	check(s, in, rank(dy, 2), rank(ids, 1), ids.Shape[0] == dy.Shape[0], ids.Dtype == I32)
	return []Desc{Of(dy.Dtype, s.Vocab, dy.Shape[1])}
}

// Accumulate implements accumulating.
func (s EmbeddingGrad) Accumulate(int) (Spec, bool) {
	s.Acc = true
	return s, true
}
