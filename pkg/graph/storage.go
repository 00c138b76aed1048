package graph

// Storer is a Device that keeps activations in another type than the graph's. Such a device has kernels for mixed operands:
// activations and the weights of products in the storage type, everything else in fp32.
type Storer interface {
	Device
	// Storage returns the type of the activations of a program whose matrix products have this precision; F32 leaves them.
	Storage(p Precision) Dtype
}

// WeightReader is a Storer, or a Planner of one, whose products take weights in fp32 beside activations in the storage type. Compile
// then makes no copies of weights.
type WeightReader interface{ PlainWeights() }

// storageBy returns the storage type of a lowered graph's activations where of is a Storer's Storage. Graphs with products of several
// precisions stay as they are.
func (l *lowered) storageBy(of func(Precision) Dtype) Dtype {
	var seen [2]bool
	for _, in := range l.instrs {
		if p, ok := precisionOf(in.spec); ok {
			seen[p] = true
		}
	}
	switch seen {
	case [2]bool{true, false}:
		return of(FP32)
	case [2]bool{false, true}:
		return of(BF16Operands)
	}
	return F32
}

func precisionOf(s Spec) (Precision, bool) {
	switch s := s.(type) {
	case Linear:
		return s.Precision, true
	case LinearDX:
		return s.Precision, true
	case LinearDW:
		return s.Precision, true
	case Attention:
		return s.Precision, true
	case AttentionGrad:
		return s.Precision, true
	case CachedAttention:
		return s.Precision, true
	case LinearCrossEntropy:
		return s.Precision, true
	case LinearCrossEntropyGrad:
		return s.Precision, true
	}
	return 0, false
}

// role says what an operand or a result is, as far as its type goes.
type role uint8

const (
	full       role = iota // fp32 whatever the storage type: statistics, sums, gradients of weights, accumulators
	activation             // of the storage type
	product                // a weight that enters a matrix product: a copy of the storage type, made once in a run, but for a WeightReader
	residual               // an activation where an operand is one, else fp32
)

// roles returns the roles of an operator's operands and of its results. Operators that are not listed work in fp32.
func roles(s Spec) (in, out []role) {
	const f, a, w = full, activation, product
	switch s := s.(type) {
	case Linear:
		if s.Sum {
			return []role{a, w, a}, []role{a}
		}
		return []role{a, w, f}, []role{a}
	case LinearDX:
		return []role{a, w, a}, []role{a}
	case LinearDW:
		return []role{a, a}, []role{f}
	case ColumnSum:
		return []role{a}, []role{f}
	case RMSNorm:
		return []role{a, f}, []role{a, f}
	case RMSNormGrad:
		return []role{a, f, f, a, a}, []role{a, f, a}
	case RoPE:
		return []role{a, f, f, f}, []role{a}
	case Attention:
		return []role{a, a, a, f}, []role{a, f}
	case AttentionGrad:
		return []role{a, a, a, a, f, a, f}, []role{a, a, a}
	case SwiGLU:
		return []role{a, a}, []role{a}
	case SwiGLUGrad:
		return []role{a, a, a}, []role{a, a, a}
	case Embedding:
		return []role{f, f}, []role{a}
	case EmbeddingGrad:
		return []role{a, f}, []role{f}
	case LinearCrossEntropy:
		return []role{a, w, f}, []role{f}
	case LinearCrossEntropyGrad:
		return []role{a, w, f, f}, []role{a, f, f}
	case Add:
		return []role{residual, residual}, []role{residual}
	}
	return nil, nil
}

// Stored returns the descriptions of an operator's operands and results, which are in fp32, as Compile makes them on a device that
// stores activations in the type t.
func Stored(s Spec, in []Desc, t Dtype) (ins, outs []Desc) {
	inRoles, outRoles := roles(s)
	as := func(ds []Desc, rs []role) []Desc {
		out := make([]Desc, len(ds))
		for i, d := range ds {
			if out[i] = d; i < len(rs) && rs[i] != full {
				out[i].Dtype = t
			}
		}
		return out
	}
	return as(in, inRoles), as(s.Infer(in), outRoles)
}

// store gives activations and their gradients the storage type t. Where an operator wants a value in the other type it reads a
// copy, made before the copy's first use and kept for the later ones, so a weight is converted once in a run; plain leaves weights as
// they are. Roots stay fp32.
func (l *lowered) store(t Dtype, plain bool) {
	if t == F32 {
		return
	}
	s := storing{lowered: l, to: t, plain: plain, activations: map[int]bool{}, copies: map[int]int{}}
	lone := map[int]bool{} // roots that nothing reads
	uses := l.uses()
	for _, v := range l.roots {
		uses[v]--
	}
	for _, v := range l.roots {
		lone[v] = uses[v] == 0
	}
	for _, in := range l.instrs {
		s.instr(in, lone)
	}
	for i, v := range l.roots {
		l.roots[i] = s.as(v, F32)
	}
	l.instrs = s.out
}

type storing struct {
	*lowered
	to          Dtype
	plain       bool
	activations map[int]bool // values that are one, of either type
	copies      map[int]int  // value -> the copy in the other type
	out         []*instr
}

func (s *storing) instr(in *instr, lone map[int]bool) {
	ins, outs := roles(in.spec)
	residualIs := full
	for i, v := range in.in {
		if i < len(ins) && ins[i] == residual && s.activations[v] {
			residualIs = activation
		}
	}
	of := func(rs []role, i int) role {
		switch {
		case i >= len(rs):
			return full
		case rs[i] == residual:
			return residualIs
		}
		return rs[i]
	}
	for i, v := range in.in {
		want := F32
		switch of(ins, i) {
		case full:
		case product:
			if s.plain {
				continue
			}
			want = s.to
		default:
			want = s.to
		}
		in.in[i] = s.as(v, want)
	}
	for i, v := range in.out {
		delete(s.copies, v) // a mutator has changed it
		if of(outs, i) != activation || !s.values[v].planned() {
			continue
		}
		s.activations[v] = true
		if _, isLinear := in.spec.(Linear); isLinear && lone[v] {
			continue // a product can give fp32 as well, so logits are not rounded
		}
		s.values[v].desc.Dtype = s.to
	}
	s.out = append(s.out, in)
}

// as returns a value in the type t, F32 or the storage type: itself or a copy.
func (s *storing) as(v int, t Dtype) int {
	have := s.values[v].desc.Dtype
	if have == t || have != F32 && have != s.to {
		return v
	}
	if c, ok := s.copies[v]; ok {
		return c
	}
	c := s.add(value{desc: Of(t, s.values[v].desc.Shape...)})
	s.copies[v], s.activations[c] = c, s.activations[v]
	s.out = append(s.out, &instr{Cast{t}, []int{v}, []int{c}})
	return c
}
