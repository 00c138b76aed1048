package graph_test

import (
	"fmt"
	"math"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/graphtest"
)

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
		dev := graphtest.NewHalf()
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
		for kind, asked := range dev.Asked {
			for _, a := range asked {
				if a != want[kind] {
					t.Errorf("recompute %v: %s%s, want%s", recompute, kind, a, want[kind])
				}
			}
		}
		if products := 2*7 + 1; len(dev.Asked["Cast"]) != products { // q, k, v, o, gate, up, down, and the head
			t.Errorf("recompute %v: %d casts, want one for each of %d weights", recompute, len(dev.Asked["Cast"]), products)
		}
	}
}

func TestStorageLeavesFP32(t *testing.T) {
	n, roots := trained(t, graph.FP32)
	dev := graphtest.NewHalf()
	p, err := n.Compile(dev, graph.Options{}, roots...)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := n.Plan(nil, graph.Options{}, roots...)
	if err != nil {
		t.Fatal(err)
	}
	if len(dev.Asked["Cast"]) != 0 || p.Arena != plan.Arena {
		t.Errorf("%d casts, an arena of %d bytes instead of %d", len(dev.Asked["Cast"]), p.Arena, plan.Arena)
	}
}

// counting is a graph.Planner of graphtest.Half that counts operators instead of bytes.
type counting struct{ *graphtest.Half }

func (counting) KernelBytes(op graph.Spec, in, out []graph.Desc) (own, scratch int) {
	return 1, 100*len(in) + len(out)
}

func (counting) DeviceBytes() int { return 0 }

// A plan for a device that is not there has the arena that the device would have, and asks for each of its kernels.
func TestPlanForAStorer(t *testing.T) {
	n, roots := trained(t, graph.BF16Operands)
	plan, err := n.Plan(counting{graphtest.NewHalf()}, graph.Options{}, roots...)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := n.Plan(nil, graph.Options{}, roots...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := n.Compile(graphtest.NewHalf(), graph.Options{}, roots...)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Arena != p.Arena || plan.Arena >= plain.Arena {
		t.Errorf("an arena of %d bytes is planned, the program's is %d, and one in fp32 %d", plan.Arena, p.Arena, plain.Arena)
	}
	if plan.Own != p.Kernels || plan.Scratch != 703 { // AttentionGrad has seven operands and three results
		t.Errorf("%d kernels with at most %d/100 operands were asked for, want %d and 7", plan.Own, plan.Scratch, p.Kernels)
	}
	if plain.Own != 0 || plain.Scratch != 0 {
		t.Errorf("kernels of no device take %d and %d bytes", plain.Own, plain.Scratch)
	}
}

// Rounding activations to 8 bits costs some, and no more; a wrong copy would give another network.
func TestStorageValues(t *testing.T) {
	values := func(dev graph.Device, o graph.Options) (*graph.Program, [][]float64) {
		n, roots := trained(t, graph.BF16Operands)
		return n.valuesOn(t, dev, o, roots...)
	}
	_, want := values(deviceFor(graph.F32), graph.Options{})
	_, got := values(graphtest.NewHalf(), graph.Options{})
	_, again := values(graphtest.NewHalf(), graph.Options{Recompute: true})
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

// plainHalf is graphtest.Half whose products take weights as they are, and round them.
type plainHalf struct{ *graphtest.Half }

func (plainHalf) PlainWeights() {}

// A device that reads weights in fp32 gets no copies of them, and the same results.
func TestStorageWithoutCopiesOfWeights(t *testing.T) {
	values := func(dev graph.Device) (*graph.Program, [][]float64) {
		n, roots := trained(t, graph.BF16Operands)
		return n.valuesOn(t, dev, graph.Options{}, roots...)
	}
	half := plainHalf{graphtest.NewHalf()}
	copied, want := values(graphtest.NewHalf())
	plain, got := values(half)
	for i := range want {
		sameBits(t, fmt.Sprint("root ", i), got[i], want[i])
	}
	if len(half.Asked["Cast"]) != 0 || half.Asked["Linear"][0] != " bf16 fp32 fp32 -> bf16" {
		t.Errorf("casts %v, products %v", half.Asked["Cast"], half.Asked["Linear"])
	}
	if plain.Arena >= copied.Arena {
		t.Errorf("the arena has %d bytes, with copies of weights %d", plain.Arena, copied.Arena)
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
	plain, stored := arena(deviceFor(graph.F32)), arena(graphtest.NewHalf())
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
	dev := graphtest.NewHalf()
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
	dev := graphtest.NewHalf()
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
