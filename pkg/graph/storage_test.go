package graph_test

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"meap/pkg/graph"
)

// half is package naive storing the activations of bf16 programs in bfloat16: each kernel widens its operands and rounds its
// results. It remembers what it was asked for.
type half struct {
	device[float32]
	asked map[string][]string // by kind: operands and results
}

func newHalf() *half { return &half{asked: map[string][]string{}} }

func (*half) Storage(p graph.Precision) graph.Dtype {
	if p == graph.BF16Operands {
		return graph.BF16
	}
	return graph.F32
}

func bf16(b graph.Buffer) []uint16 { return unsafe.Slice((*uint16)(b.Host), b.Elems()) }

func widen(dst []float32, src []uint16) {
	for i, v := range src {
		dst[i] = math.Float32frombits(uint32(v) << 16)
	}
}

func round(dst []uint16, src []float32) {
	for i, v := range src {
		dst[i] = uint16(math.Float32bits(graph.RoundBF16(v)) >> 16)
	}
}

func (h *half) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	types := func(ds []graph.Desc) (s string) {
		for _, d := range ds {
			s += " " + d.Dtype.String()
		}
		return s
	}
	h.asked[graph.Kind(op)] = append(h.asked[graph.Kind(op)], types(in)+" ->"+types(out))
	if c, ok := op.(graph.Cast); ok {
		return func(in, out []graph.Buffer) error {
			if c.To == graph.BF16 {
				round(bf16(out[0]), in[0].F32())
			} else {
				widen(out[0].F32(), bf16(in[0]))
			}
			return nil
		}, nil
	}
	full := func(ds []graph.Desc) (wide []graph.Desc, shadows []graph.Buffer) {
		for _, d := range ds {
			var shadow graph.Buffer
			if d.Dtype == graph.BF16 {
				d.Dtype = graph.F32
				m, _ := h.Alloc("shadow", d.Bytes())
				shadow = m.At(0, d)
			}
			wide, shadows = append(wide, d), append(shadows, shadow)
		}
		return wide, shadows
	}
	ins, inShadows := full(in)
	outs, outShadows := full(out)
	k, err := h.device.Kernel(op, ins, outs)
	if err != nil {
		return nil, err
	}
	return func(in, out []graph.Buffer) error {
		for i, b := range in {
			if b.Dtype == graph.BF16 {
				widen(inShadows[i].F32(), bf16(b))
			} else {
				inShadows[i] = b
			}
		}
		for i, b := range out {
			if b.Dtype != graph.BF16 {
				outShadows[i] = b
			}
		}
		if err := k(inShadows, outShadows); err != nil {
			return err
		}
		for i, b := range out {
			if b.Dtype == graph.BF16 {
				round(bf16(b), outShadows[i].F32())
			}
		}
		return nil
	}, nil
}

// trained is a stack whose gradients are accumulated.
func trained(t *testing.T, p graph.Precision) (n *net, roots []*graph.Node) {
	t.Helper()
	n = newNet(graph.F32)
	n.precision = p
	loss, grads, err := n.Grad(n.stack(2), n.params...)
	if err != nil {
		t.Fatal(err)
	}
	roots = []*graph.Node{loss}
	for i, g := range grads {
		roots = append(roots, n.Accumulate(n.FloatInput("sum of "+n.names[i], graph.DescOf(g).Shape...), g))
	}
	return n, roots
}

func TestStorageTypes(t *testing.T) {
	for _, recompute := range []bool{false, true} {
		n, roots := trained(t, graph.BF16Operands)
		dev := newHalf()
		if _, err := n.Compile(dev, graph.Options{Recompute: recompute}, roots...); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"Linear": " bf16 bf16 fp32 -> bf16", "LinearDX": " bf16 bf16 -> bf16", "LinearDW": " bf16 bf16 -> fp32", "ColumnSum": " bf16 -> fp32",
			"RMSNorm": " bf16 fp32 -> bf16 fp32", "RMSNormGrad": " bf16 fp32 fp32 bf16 -> bf16 fp32", "RoPE": " bf16 fp32 fp32 int32 -> bf16",
			"Attention":     " bf16 bf16 bf16 int32 -> bf16 fp32",
			"AttentionGrad": " bf16 bf16 bf16 bf16 fp32 bf16 int32 -> bf16 bf16 bf16", "SwiGLU": " bf16 bf16 -> bf16", "Add": " bf16 bf16 -> bf16",
			"SwiGLUGrad": " bf16 bf16 bf16 -> bf16 bf16", "Embedding": " fp32 int32 -> bf16", "EmbeddingGrad": " bf16 int32 -> fp32",
			"LinearCrossEntropyGrad": " bf16 bf16 int32 fp32 -> bf16 fp32 fp32", "WeightedSum": " fp32 fp32 -> fp32", "Cast": " fp32 -> bf16",
			"WeightedSumGrad": " fp32 fp32 -> fp32",
		}
		for kind, asked := range dev.asked {
			for _, a := range asked {
				if a != want[kind] {
					t.Errorf("recompute %v: %s%s, want%s", recompute, kind, a, want[kind])
				}
			}
		}
		if products := 2*7 + 1; len(dev.asked["Cast"]) != products { // q, k, v, o, gate, up, down, and the head
			t.Errorf("recompute %v: %d casts, want one for each of %d weights", recompute, len(dev.asked["Cast"]), products)
		}
	}
}

func TestStorageLeavesFP32(t *testing.T) {
	n, roots := trained(t, graph.FP32)
	dev := newHalf()
	p, err := n.Compile(dev, graph.Options{}, roots...)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := n.Plan(graph.Options{}, roots...)
	if err != nil {
		t.Fatal(err)
	}
	if len(dev.asked["Cast"]) != 0 || p.Arena != plan.Arena {
		t.Errorf("%d casts, an arena of %d bytes instead of %d", len(dev.asked["Cast"]), p.Arena, plan.Arena)
	}
}

// Rounding activations to 8 bits costs some, and no more; a wrong copy would give another network.
func TestStorageValues(t *testing.T) {
	values := func(dev graph.Device, o graph.Options) (*graph.Program, [][]float64) {
		n, roots := trained(t, graph.BF16Operands)
		p, err := n.Compile(dev, o, roots...)
		if err != nil {
			t.Fatal(err)
		}
		n.upload(t, dev, p)
		run(t, p)
		var out [][]float64
		for _, r := range roots {
			out = append(out, read(p.Output(r)))
		}
		return p, out
	}
	_, want := values(deviceFor(graph.F32), graph.Options{})
	_, got := values(newHalf(), graph.Options{})
	_, again := values(newHalf(), graph.Options{Recompute: true})
	if math.Abs(got[0][0]-want[0][0]) > 0.02*want[0][0] {
		t.Errorf("the loss is %v, want about %v", got[0][0], want[0][0])
	}
	for i := range want {
		diff, norm := 0.0, 0.0
		for j, w := range want[i] {
			diff, norm = diff+(got[i][j]-w)*(got[i][j]-w), norm+w*w
		}
		if diff > 0.05*0.05*norm {
			t.Errorf("root %d differs by %.1f %%", i, 100*math.Sqrt(diff/norm))
		}
		sameBits(t, fmt.Sprintf("root %d, recomputed", i), again[i], got[i])
	}
}

func TestStorageShrinksTheArena(t *testing.T) {
	const n, dim, layers = 512, 64, 4
	arena := func(dev graph.Device) int {
		b := newNet(graph.F32)
		x := b.input("x", 1, n, dim)
		for l := range layers {
			x = b.SwiGLU(b.Linear(x, b.input(fmt.Sprint("w", l), 1, dim, dim), nil, graph.BF16Operands), x)
		}
		sum := b.Apply(graph.ColumnSum{}, x)
		p, err := b.Compile(dev, graph.Options{}, sum)
		if err != nil {
			t.Fatal(err)
		}
		return p.Arena
	}
	plain, stored := arena(deviceFor(graph.F32)), arena(newHalf())
	if weights := layers * dim * dim * 2; stored > plain/2+weights {
		t.Errorf("the arena has %d bytes, %d in fp32", stored, plain)
	}
}

// What the host reads is fp32, and logits have not been rounded on their way.
func TestStorageOfRoots(t *testing.T) {
	n := newNet(graph.F32)
	x := n.RMSNorm(n.input("x", 1, 3, 16), n.input("norm", 1, 16), 1e-5)
	w := n.input("w", 1, 5, 16)
	logits := n.Linear(x, w, nil, graph.BF16Operands)
	both := n.Linear(x, n.input("v", 1, 16, 16), nil, graph.BF16Operands) // read by the host and by another operator
	sum := n.Add(x, both)
	dev := newHalf()
	p, err := n.Compile(dev, graph.Options{}, logits, both, sum)
	if err != nil {
		t.Fatal(err)
	}
	n.upload(t, dev, p)
	run(t, p)
	rounded := func(v []float64) bool {
		for _, x := range v {
			if float64(graph.RoundBF16(float32(x))) != x {
				return false
			}
		}
		return true
	}
	if rounded(read(p.Output(logits))) {
		t.Error("the logits are rounded")
	}
	if !rounded(read(p.Output(both))) || !rounded(read(p.Output(sum))) {
		t.Error("activations are not rounded")
	}
}

// A weight that a step changes is converted anew for the products behind the change.
func TestStorageAfterAMutation(t *testing.T) {
	n := newNet(graph.F32)
	x, w := n.input("x", 1, 2, 4), n.input("w", 1, 4, 4)
	before := n.Linear(x, w, nil, graph.BF16Operands)
	changed := n.Accumulate(w, n.input("g", 1, 4, 4))
	after := n.Linear(x, changed, nil, graph.BF16Operands)
	dev := newHalf()
	p, err := n.Compile(dev, graph.Options{}, before, after)
	if err != nil {
		t.Fatal(err)
	}
	n.upload(t, dev, p)
	run(t, p)
	plain := n.compile(t, graph.Options{}, before, after)
	run(t, plain)
	for i, r := range []*graph.Node{before, after} {
		closeTo(t, fmt.Sprint("product ", i), read(p.Output(r)), read(plain.Output(r)), 1e-6)
	}
}
