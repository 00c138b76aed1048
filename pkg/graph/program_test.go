package graph_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unsafe"

	G "gorgonia.org/gorgonia"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// fake is a device that computes nothing, counts its memory and can run out of it.
type fake struct {
	graph.HostMemory
	live   map[unsafe.Pointer]string
	took   int
	failAt int    // the allocation that fails, from 1
	lacks  string // a kind of operator without a kernel
	fails  string // a kind of operator whose kernel fails
}

func (*fake) Name() string { return "fake" }

func (d *fake) Alloc(label string, bytes int) (graph.Memory, error) {
	if d.took++; d.took == d.failAt {
		return graph.Memory{}, fmt.Errorf("no %d bytes for %s", bytes, label)
	}
	m, err := d.HostMemory.Alloc(label, bytes)
	if d.live == nil {
		d.live = map[unsafe.Pointer]string{}
	}
	d.live[m.Host] = label
	return m, err
}

func (d *fake) Free(m graph.Memory) { delete(d.live, m.Host) }

func (d *fake) Kernel(op graph.Spec, _, _ []graph.Desc) (graph.Kernel, error) {
	kind := graph.Kind(op)
	switch kind {
	case d.lacks:
		return nil, errors.New("not on this device")
	case d.fails:
		return func(_, _ []graph.Buffer) error { return errors.New("out of luck") }, nil
	}
	return func(_, _ []graph.Buffer) error { return nil }, nil
}

func trainingStep(t testing.TB, n *net, layers int) []*graph.Node {
	t.Helper()
	loss, grads, err := n.Grad(n.stack(layers), n.params...)
	if err != nil {
		t.Fatal(err)
	}
	roots := []*graph.Node{loss}
	for i, g := range grads {
		roots = append(roots, n.Accumulate(n.input("sum of "+n.names[i], 1, graph.DescOf(g).Shape...), g))
	}
	return roots
}

func TestCompileErrors(t *testing.T) {
	n := newNet(graph.F32)
	x, w := n.input("x", 1, 2, 3), n.input("w", 1, 4, 3)
	y := n.Linear(x, w, nil, graph.FP32)
	memory, err := naive.Device[float32]{}.Alloc("bound", 1024)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := G.Sigmoid(y)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		dev  *fake
		o    graph.Options
		root *graph.Node
		says []string
	}{
		{"a binding of another shape", &fake{}, graph.Options{Bind: map[string]graph.Buffer{"w": memory.At(0, graph.Of(graph.F32, 3, 4))}}, y,
			[]string{`"w"`, "fp32[4,3]", "fp32[3,4]"}},
		{"a binding of another type", &fake{}, graph.Options{Bind: map[string]graph.Buffer{"w": memory.At(0, graph.Of(graph.BF16, 4, 3))}}, y,
			[]string{`"w"`, "fp32[4,3]", "bf16[4,3]"}},
		{"an operator of Gorgonia's", &fake{}, graph.Options{}, foreign, []string{"sigmoid", "Builder"}},
		{"a device without the kernel", &fake{lacks: "Linear"}, graph.Options{}, y, []string{"Linear", "fp32[2,3]", "not on this device"}},
		{"no memory for the arena", &fake{failAt: 1}, graph.Options{}, y, []string{"bytes for activations"}},
		{"no memory for an input", &fake{failAt: 3}, graph.Options{}, y, []string{"bytes for w"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := n.Compile(c.dev, c.o, c.root)
			if err == nil {
				p.Close()
				t.Fatal("compiled")
			}
			for _, s := range c.says {
				if !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(s)) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
			if len(c.dev.live) > 0 {
				t.Errorf("memory is left: %v", c.dev.live)
			}
		})
	}
}

func TestProgram(t *testing.T) {
	n := newNet(graph.F32)
	x, w := n.input("x", 1, 2, 3), n.input("w", 1, 4, 3)
	y := n.Linear(x, w, nil, graph.FP32)
	dev := &fake{}
	bound, err := naive.Device[float32]{}.Alloc("bound", 48)
	if err != nil {
		t.Fatal(err)
	}
	weight := bound.At(0, graph.Of(graph.F32, 4, 3))
	p, err := n.Compile(dev, graph.Options{Bind: map[string]graph.Buffer{"w": weight}}, y)
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := p.Input("w"); !ok || b.Host != weight.Host {
		t.Error("the bound buffer is not the input")
	}
	if _, ok := p.Input("labels"); ok {
		t.Error("an input that the graph does not have")
	}
	if err := p.Upload("labels", []byte{1}); err != nil {
		t.Errorf("an input that no root needs: %v", err)
	}
	if err := p.Upload("x", []byte{1}); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("an upload of another size: %v", err)
	}
	if m := panics(func() { p.Output(x) }); !strings.Contains(m, "root") {
		t.Errorf("output of a node that is no root: panic %q", m)
	}
	if len(dev.live) != 2 { // the arena and x
		t.Errorf("memory taken: %v", dev.live)
	}
	p.Close()
	if len(dev.live) > 0 {
		t.Errorf("memory is left after Close: %v", dev.live)
	}
}

func TestRunNamesTheOperatorThatFailed(t *testing.T) {
	n := newNet(graph.F32)
	y := n.SwiGLU(n.input("x", 1, 2, 3), n.input("y", 1, 2, 3))
	for _, profile := range []bool{false, true} {
		p, err := n.Compile(&fake{fails: "SwiGLU"}, graph.Options{}, y)
		if err != nil {
			t.Fatal(err)
		}
		if profile {
			p.Profile()
		}
		if err := p.Run(); err == nil || !strings.Contains(err.Error(), "SwiGLU: out of luck") {
			t.Errorf("profile %v: error %v", profile, err)
		}
	}
}

func TestPlanIsWhatCompileTakes(t *testing.T) {
	n := newNet(graph.F32)
	roots := trainingStep(t, n, 3)
	for _, o := range []graph.Options{{}, {Recompute: true}} {
		plan, err := n.Plan(nil, o, roots...)
		if err != nil {
			t.Fatal(err)
		}
		dev := &fake{}
		p, err := n.Compile(dev, o, roots...)
		if err != nil {
			t.Fatal(err)
		}
		if p.Arena != plan.Arena || p.Kernels != plan.Kernels || p.InputBytes() != plan.InputBytes() {
			t.Errorf("planned %d bytes, %d operators, %d bytes of inputs; took %d, %d, %d",
				plan.Arena, plan.Kernels, plan.InputBytes(), p.Arena, p.Kernels, p.InputBytes())
		}
		if want := len(plan.Names) + 1; len(dev.live) < want {
			t.Errorf("%d regions of memory, want one for each of %d inputs and the arena", len(dev.live), len(plan.Names))
		}
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	n := newNet(graph.F32)
	p, err := n.Compile(&fake{}, graph.Options{}, trainingStep(t, n, 4)...)
	if err != nil {
		t.Fatal(err)
	}
	if a := testing.AllocsPerRun(20, func() { _ = p.Run() }); a != 0 {
		t.Errorf("%v allocations per run", a)
	}
	p.Profile()
	if a := testing.AllocsPerRun(20, func() { _ = p.Run() }); a != 0 {
		t.Errorf("%v allocations per profiled run", a)
	}
}

// BenchmarkRun is what a program costs beside its kernels.
func BenchmarkRun(b *testing.B) {
	n := newNet(graph.F32)
	p, err := n.Compile(&fake{}, graph.Options{}, trainingStep(b, n, 24)...)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Run(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(p.Kernels), "operators/op")
}

// BenchmarkCompile builds, differentiates, plans and compiles 24 layers.
func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		n := newNet(graph.F32)
		if _, err := n.Compile(&fake{}, graph.Options{}, trainingStep(b, n, 24)...); err != nil {
			b.Fatal(err)
		}
	}
}
