package graph

import "sort"

// alignment of every tensor in the arena: a cache line, the widest vector register, and what GPUs like.
const alignment = 256

// Plan says what a program needs before anything is allocated.
type Plan struct {
	Arena    int    // bytes for all intermediate tensors together
	Unshared int    // what they would need if no two shared memory
	Inputs   []Desc // the inputs, in the order of Names
	Names    []string
	Kernels  int   // operators per run
	Own      int   // bytes that kernels keep for themselves, by a Planner
	Scratch  int   // bytes that kernels share with those of all programs of the device, by a Planner
	offset   []int // by value: its place in the arena, -1 for what no instruction makes (any more)
}

// Planner stands for a device that need not be there: it knows what such a device would do with a graph.
type Planner interface {
	// Storage is that of Storer.
	Storage(p Precision) Dtype
	// KernelBytes returns the memory that an operator's kernel takes beside its operands and results: what it keeps, and what it needs of
	// the memory that all kernels share, of which there is as much as the most that one needs.
	KernelBytes(op Spec, in, out []Desc) (own, scratch int)
	// DeviceBytes returns the memory that the device takes for itself.
	DeviceBytes() int
}

// InputBytes returns the bytes of all inputs together.
func (p *Plan) InputBytes() int {
	n := 0
	for _, d := range p.Inputs {
		n += d.Bytes()
	}
	return n
}

// Overwriter is a Device, or a Planner of one, whose kernels for some operators may have a result where an operand of the same size and
// type lies: element by element, or row by row, the operand has been read when the result is written.
type Overwriter interface {
	// Overwrites says whether a result may lie where the operand of that index does. Several results may lie where several do.
	Overwrites(op Spec, operand int) bool
}

// ReadBefore is Overwrites of devices whose kernels go through tensors in order. What is multiplied is read until the last element of a
// product is done, but of what it adds each element once, before the same is written.
func ReadBefore(op Spec, operand int) bool {
	switch op := op.(type) {
	case Add, SwiGLU, SwiGLUGrad:
		return true
	case RoPE, RMSNorm:
		return operand == 0
	case RMSNormGrad:
		return operand == 0 || operand >= 3
	case Linear:
		return op.Sum && operand == 2
	case LinearDX:
		return op.Sum && operand == 2
	}
	return false
}

// overwrite lets results take the places of operands that are read for the last time, where the device says that they may.
func (l *lowered) overwrite(may func(op Spec, operand int) bool) {
	last, writes := make([]int, len(l.values)), make([]int, len(l.values))
	for i, in := range l.instrs {
		for _, v := range in.in {
			last[v] = i
		}
		for _, v := range in.out {
			writes[v]++
		}
	}
	for _, v := range l.roots {
		last[v] = len(l.instrs)
	}
	l.over = map[int]int{}
	mayLose := func(in *instr, u int) bool { // u may be several operands
		for k, w := range in.in {
			if w == u && !may(in.spec, k) {
				return false
			}
		}
		return true
	}
	for i, in := range l.instrs {
		taken := map[int]bool{}
		for _, v := range in.out {
			if !l.values[v].planned() || writes[v] != 1 {
				continue
			}
			for _, u := range in.in {
				if l.values[u].planned() && writes[u] == 1 && last[u] == i && !taken[u] && l.values[u].desc.Equal(l.values[v].desc) &&
					mayLose(in, u) {
					taken[u] = true
					l.over[v] = u
					break
				}
			}
		}
	}
}

// place returns the value that a value shares its place with, from which on it has been overwritten; itself where there is none.
func (l *lowered) place(v int) int {
	for {
		u, ok := l.over[v]
		if !ok {
			return v
		}
		v = u
	}
}

// plan gives every intermediate value a place in the arena such that values that live at the same time do not overlap:
// largest first, each at the lowest offset that is free during its life.
func (l *lowered) plan() *Plan {
	p := &Plan{offset: make([]int, len(l.values)), Kernels: len(l.instrs)}
	first, last := make([]int, len(l.values)), make([]int, len(l.values))
	for v := range first {
		first[v], last[v], p.offset[v] = -1, -1, -1
	}
	for i, in := range l.instrs {
		for _, v := range in.out {
			if first[v] < 0 {
				first[v] = i
			}
			last[v] = i
		}
		for _, v := range in.in {
			last[v] = i
		}
	}
	for _, v := range l.roots {
		last[v] = len(l.instrs)
	}
	for v := range l.over {
		u := l.place(v)
		last[u] = max(last[u], last[v])
	}
	var order []int
	for v, val := range l.values {
		switch {
		case val.input != "":
			p.Inputs = append(p.Inputs, val.desc)
			p.Names = append(p.Names, val.input)
		case first[v] >= 0 && val.planned():
			if l.place(v) == v {
				order = append(order, v)
			}
			p.Unshared += size(val.desc)
		}
	}
	sort.SliceStable(order, func(i, j int) bool {
		return size(l.values[order[i]].desc) > size(l.values[order[j]].desc)
	})
	type span struct{ from, to, first, last int }
	var placed []span // sorted by from
	for _, v := range order {
		n, at := size(l.values[v].desc), 0
		for _, s := range placed {
			if s.last < first[v] || last[v] < s.first || s.to <= at {
				continue
			}
			if at+n <= s.from {
				break
			}
			at = s.to
		}
		p.offset[v] = at
		p.Arena = max(p.Arena, at+n)
		i := sort.Search(len(placed), func(i int) bool { return placed[i].from >= at })
		placed = append(placed, span{})
		copy(placed[i+1:], placed[i:])
		placed[i] = span{at, at + n, first[v], last[v]}
	}
	for v := range l.over {
		p.offset[v] = p.offset[l.place(v)]
	}
	return p
}

func size(d Desc) int { return (d.Bytes() + alignment - 1) / alignment * alignment }
