package graph

import "slices"

// Passes over a lowered graph. None of them changes a result but where its comment says so.

// fuseAccumulate lets operators add straight to gradient accumulators: Accumulate(acc, x+y) becomes two, and
// Accumulate(acc, op(...)) becomes an op that adds, where the op has that form. Gradients of weights then need no buffers of
// their own. The order of additions changes, so results may differ in the last bit from the unfused graph's.
func (l *lowered) fuseAccumulate() {
	type source struct {
		instr  *instr
		output int
	}
	producer := map[int]source{}
	for _, in := range l.instrs {
		for o, v := range in.out {
			if l.values[v].planned() {
				producer[v] = source{in, o}
			}
		}
	}
	uses := l.uses()
	dead := map[*instr]bool{}
	var fuse func(acc, g int) []*instr
	fuse = func(acc, g int) []*instr {
		p, ok := producer[g]
		if ok && uses[g] == 1 {
			switch spec := p.instr.spec.(type) {
			case Add:
				dead[p.instr] = true
				return append(fuse(acc, p.instr.in[0]), fuse(acc, p.instr.in[1])...)
			case accumulating:
				if s, ok := spec.Accumulate(p.output); ok {
					p.instr.spec = s
					p.instr.out[p.output] = acc
					return nil
				}
			}
		}
		return []*instr{{Accumulate{}, []int{acc, g}, []int{acc}}}
	}
	var kept []*instr
	for _, in := range l.instrs {
		if _, ok := in.spec.(Accumulate); ok {
			kept = append(kept, fuse(in.in[0], in.in[1])...)
		} else {
			kept = append(kept, in)
		}
	}
	l.instrs = l.instrs[:0:0]
	for _, in := range kept {
		if !dead[in] {
			l.instrs = append(l.instrs, in)
		}
	}
}

// Adder is a Device, or a Planner of one, whose kernels for some operators have the form that adds one more operand to the first result,
// and to whom a sum of its own would cost a pass over memory.
type Adder interface {
	// Adds is asked for operators that have this form.
	Adds(op Spec) bool
}

// fuseAdd lets operators add to their result what Add would: of Add's two operands, the one that is made last takes in the other, if
// nobody else reads it. A sum is then rounded once where the storage type is bf16, and in fp32 its order may change.
func (l *lowered) fuseAdd(adds func(Spec) bool) {
	made, uses := l.made(), l.uses()
	dead := map[*instr]bool{}
	for _, in := range l.instrs {
		if _, ok := in.spec.(Add); !ok {
			continue
		}
		late, other := in.in[0], in.in[1]
		if made[late] < made[other] {
			late, other = other, late
		}
		if made[late] == made[other] || uses[late] != 1 {
			continue
		}
		maker := l.instrs[made[late]]
		s, ok := maker.spec.(summing)
		if !ok || s.sums() || maker.out[0] != late || !adds(s) {
			continue
		}
		sum, ok := s.withSum()
		if !ok {
			continue
		}
		maker.spec, maker.in = sum, append(slices.Clone(maker.in), other)
		maker.out = append([]int{in.out[0]}, maker.out[1:]...)
		made[in.out[0]] = made[late]
		dead[in] = true
	}
	l.instrs = slices.DeleteFunc(l.instrs, func(in *instr) bool { return dead[in] })
}

// uses counts how often each value is read; being a root counts too.
func (l *lowered) uses() []int {
	n := make([]int, len(l.values))
	for _, in := range l.instrs {
		for _, v := range in.in {
			n[v]++
		}
	}
	for _, v := range l.roots {
		n[v]++
	}
	return n
}

// recompute is activation checkpointing: of what lies between two neighbouring checkpoints (values in the order of the
// forward pass) nothing is kept for the backward pass; it is computed again, by the same kernels on the same operands, just
// before its first use there. (Chen et al. 2016, arXiv 1604.06174.)
func (l *lowered) recompute(checkpoints []int) {
	made := l.made()
	keep := map[int]bool{}
	var bounds []int // instruction index of each checkpoint
	for _, v := range checkpoints {
		if v >= 0 && made[v] >= 0 {
			keep[v] = true
			bounds = append(bounds, made[v])
		}
	}
	if len(bounds) < 2 {
		return
	}
	end := bounds[len(bounds)-1] // the last instruction of the checkpointed forward pass
	segment := func(i int) int { // which pair of checkpoints instruction i lies between, -1 for none
		for s := 0; s+1 < len(bounds); s++ {
			if bounds[s] < i && i <= bounds[s+1] {
				return s
			}
		}
		return -1
	}
	inner := func(v int) int { // the segment that value v is internal to, -1 for none
		if keep[v] || made[v] < 0 {
			return -1
		}
		return segment(made[v])
	}

	needed := make([]bool, len(l.instrs)) // forward instructions to run again
	var need func(v int)
	need = func(v int) {
		if s := inner(v); s >= 0 && !needed[made[v]] {
			needed[made[v]] = true
			for _, u := range l.instrs[made[v]].in {
				if inner(u) == s {
					need(u)
				}
			}
		}
	}
	for _, in := range l.instrs[end+1:] {
		for _, v := range in.in {
			need(v)
		}
	}

	again := map[int]int{} // internal value -> its recomputed copy
	redone := make([]bool, len(bounds))
	out := append([]*instr(nil), l.instrs[:end+1]...)
	for _, in := range l.instrs[end+1:] {
		for k, v := range in.in {
			s := inner(v)
			if s < 0 {
				continue
			}
			if !redone[s] {
				redone[s] = true
				for i := bounds[s] + 1; i <= bounds[s+1]; i++ {
					if needed[i] {
						out = append(out, l.copyOf(l.instrs[i], again))
					}
				}
			}
			in.in[k] = again[v]
		}
		out = append(out, in)
	}
	l.instrs = out
}

// made returns the instruction that makes each value, -1 for inputs.
func (l *lowered) made() []int {
	made := make([]int, len(l.values))
	for v := range made {
		made[v] = -1
	}
	for i, in := range l.instrs {
		for _, v := range in.out {
			if l.values[v].planned() {
				made[v] = i
			}
		}
	}
	return made
}

// recomputeCheap computes results of cheap operators before the last checkpoint again, just before their first use behind it, where
// their operands are still kept for others; so those results need no place of their own between the two passes. Their auxiliary results
// are kept.
func (l *lowered) recomputeCheap(checkpoints []int) {
	made, end := l.made(), -1
	for _, v := range checkpoints {
		if v >= 0 {
			end = max(end, made[v])
		}
	}
	lastRead := make([]int, len(l.values))
	for i, in := range l.instrs {
		for _, v := range in.in {
			lastRead[v] = i
		}
	}
	again := map[int]int{}
	out := append([]*instr(nil), l.instrs[:end+1]...)
	for i, in := range l.instrs[end+1:] {
		kept := func(v int) bool { return made[v] < 0 || lastRead[v] > end+1+i }
		for k, v := range in.in {
			if _, done := again[v]; !done && made[v] >= 0 && made[v] <= end {
				maker := l.instrs[made[v]]
				if _, ok := maker.spec.(cheap); !ok || v != maker.out[0] || !all(maker.in, kept) {
					continue
				}
				out = append(out, l.copyOf(maker, again))
				for _, v := range maker.out[1:] {
					delete(again, v) // small, and kept
				}
			}
			if w, ok := again[v]; ok {
				in.in[k] = w
			}
		}
		out = append(out, in)
	}
	l.instrs = out
}

// Remaker is a Device, or a Planner of one, whose kernels for the gradients of some cheap operators have the form that gives the
// operator's result once more, and to whom a pass over its operands of its own would cost more.
type Remaker interface {
	// Remakes is asked for gradients that have this form.
	Remakes(op Spec) bool
}

// remake lets gradients make what would be computed again from operands that they read as well. What reads it then waits for the
// gradient: products that give gradients of weights, which nothing else waits for.
func (l *lowered) remake(may func(Spec) bool) {
	uses := l.uses()
	for i := 0; i < len(l.instrs); i++ {
		grad := l.instrs[i]
		s, ok := grad.spec.(remaking)
		if !ok || s.remakes() || !may(s) {
			continue
		}
		for j := i - 1; j >= 0; j-- {
			c := l.instrs[j]
			if len(c.in) > len(grad.in) || !slices.Equal(c.in, grad.in[:len(c.in)]) {
				continue
			}
			spec, ok := s.withResult(c.spec)
			if !ok {
				continue
			}
			if between, waiting, ok := l.waiting(j, i); ok && !slices.ContainsFunc(c.out[1:], func(v int) bool { return uses[v] > 0 }) {
				grad.spec, grad.out = spec, append(slices.Clone(grad.out), c.out[0])
				copy(l.instrs[j:], between)
				at := j + len(between)
				l.instrs[at] = grad
				copy(l.instrs[at+1:], waiting)
				l.instrs = slices.Delete(l.instrs, i, i+1)
				i-- // one instruction less
			}
			break
		}
	}
}

// waiting divides the instructions between j and i into those that can wait for instruction i, because they read the first result
// of j and give what is not needed before, and the others. It says whether all that read that result can.
func (l *lowered) waiting(j, i int) (others, waiting []*instr, ok bool) {
	given, read := map[int]bool{}, map[int]bool{} // by those that wait
	for _, in := range l.instrs[j+1 : i+1] {
		needs := slices.ContainsFunc(append(slices.Clone(in.in), in.out...), func(v int) bool { return given[v] }) ||
			slices.ContainsFunc(in.out, func(v int) bool { return read[v] })
		reads := slices.Contains(in.in, l.instrs[j].out[0])
		switch {
		case needs || reads && in == l.instrs[i]:
			return nil, nil, false
		case reads:
			waiting = append(waiting, in)
			for _, v := range in.out {
				given[v] = true
			}
			for _, v := range in.in {
				read[v] = true
			}
		case in != l.instrs[i]:
			others = append(others, in)
		}
	}
	return others, waiting, true
}

func all(values []int, is func(int) bool) bool {
	for _, v := range values {
		if !is(v) {
			return false
		}
	}
	return true
}

// copyOf repeats an instruction on copies of its operands where there are any, into fresh values.
func (l *lowered) copyOf(in *instr, again map[int]int) *instr {
	c := &instr{spec: in.spec}
	for _, v := range in.in {
		if w, ok := again[v]; ok {
			v = w
		}
		c.in = append(c.in, v)
	}
	for _, v := range in.out {
		w := l.add(value{desc: l.values[v].desc})
		again[v] = w
		c.out = append(c.out, w)
	}
	return c
}
