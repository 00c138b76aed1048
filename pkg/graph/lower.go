package graph

import (
	"fmt"
	"sort"

	G "gorgonia.org/gorgonia"
)

// A lowered graph: values and the instructions that make them, in the order in which they will run.
type lowered struct {
	values []value
	instrs []*instr
	roots  []int
	of     map[*Node][]int // the values of each node: primary output, then auxiliary ones
	over   map[int]int     // the operand in whose place a result is written; see overwrite
}

type value struct {
	desc     Desc
	input    string // the name of an input, else ""
	constant []byte // the contents of a constant, else nil
}

func (v value) planned() bool { return v.input == "" && v.constant == nil }

type instr struct {
	spec    Spec
	in, out []int
}

// lower collects what roots need. Nodes are created after their operands, so the order of ids is topological, and it keeps
// the gradients of an operator near each other, which keeps the arena small.
func (b *Builder) lower(roots []*Node) (*lowered, error) {
	l := &lowered{of: map[*Node][]int{}}
	for _, n := range reachable(roots) {
		if err := l.node(n); err != nil {
			return nil, err
		}
	}
	for _, r := range roots {
		l.roots = append(l.roots, l.of[r][0])
	}
	return l, nil
}

func reachable(roots []*Node) []*Node {
	seen := map[*Node]bool{}
	var order []*Node
	stack := append([]*Node(nil), roots...)
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		order = append(order, n)
		stack = append(stack, children(n)...)
	}
	sort.Slice(order, func(i, j int) bool { return order[i].ID() < order[j].ID() })
	return order
}

func (l *lowered) add(v value) int {
	l.values = append(l.values, v)
	return len(l.values) - 1
}

func (l *lowered) descs(values []int) []Desc {
	out := make([]Desc, len(values))
	for i, v := range values {
		out[i] = l.values[v].desc
	}
	return out
}

func (l *lowered) node(n *Node) error {
	in := children(n)
	args := make([]int, len(in))
	for i, c := range in {
		args[i] = l.of[c][0]
	}
	op, ours := n.Op().(*operator)
	switch {
	case n.Op() == nil:
		l.of[n] = []int{l.add(value{desc: DescOf(n), input: n.Name()})}
	case ours:
		if p, ok := op.spec.(projection); ok {
			l.of[n] = []int{l.of[in[0]][p.Output]}
			return nil
		}
		outs := make([]int, len(op.outs))
		for i, d := range op.outs {
			if m, ok := op.spec.(mutator); ok && i == 0 {
				outs[0] = args[m.Target()]
				continue
			}
			outs[i] = l.add(value{desc: d})
		}
		l.of[n] = outs
		l.instrs = append(l.instrs, &instr{op.spec, args, outs})
	case len(in) == 0 && n.Value() != nil:
		raw, err := constantBytes(n.Value())
		if err != nil {
			return err
		}
		l.of[n] = []int{l.add(value{desc: DescOf(n), constant: raw})}
	case isStockAdd(n, in):
		out := l.add(value{desc: DescOf(n)})
		l.of[n] = []int{out}
		l.instrs = append(l.instrs, &instr{Add{}, args, []int{out}})
	default:
		return fmt.Errorf("graph: %v (%T) is not an operator of this package; build graphs with a Builder's methods", n.Op(), n.Op())
	}
	return nil
}

func constantBytes(v G.Value) ([]byte, error) {
	switch x := v.Data().(type) {
	case float32:
		return Bytes([]float32{x}), nil
	case float64:
		return Bytes([]float64{x}), nil
	}
	return nil, fmt.Errorf("graph: a constant of type %T", v.Data())
}

// isStockAdd recognises the addition by which gorgonia.Grad sums the gradients of a value that is used more than once, by
// comparing it with a freshly made one: the operator's type is not exported.
func isStockAdd(n *Node, in []*Node) bool {
	if len(in) != 2 || !DescOf(in[0]).Equal(DescOf(in[1])) {
		return false
	}
	b := NewBuilder(DescOf(in[0]).Dtype)
	x := b.Input("x", DescOf(in[0]))
	y := b.Input("y", DescOf(in[1]))
	sum, err := G.Add(x, y)
	return err == nil && fmt.Sprintf("%T", sum.Op()) == fmt.Sprintf("%T", n.Op()) && sum.Op().Hashcode() == n.Op().Hashcode()
}
