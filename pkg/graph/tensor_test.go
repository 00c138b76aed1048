package graph_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"meap/pkg/graph"
)

func TestRoundBF16(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range [][2]float32{
		{0, 0}, {1, 1}, {-1.5, -1.5}, {inf, inf}, {-inf, -inf},
		{1 + 1./256, 1}, {1 + 3./256, 1 + 2./128}, // halfway between two: to the even one
		{1 + 1./256 + 1./65536, 1 + 1./128}, {1 + 1./256 - 1./65536, 1}, // a little beside the middle
		{math.MaxFloat32, inf}, {math.SmallestNonzeroFloat32, 0},
	} {
		if got := graph.RoundBF16(c[0]); math.Float32bits(got) != math.Float32bits(c[1]) {
			t.Errorf("%v rounds to %v, want %v", c[0], got, c[1])
		}
	}
	if got := graph.RoundBF16(float32(math.NaN())); got == got {
		t.Errorf("NaN rounds to %v", got)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		v := math.Float32frombits(rng.Uint32())
		if v != v || math.IsInf(float64(v), 0) || math.Abs(float64(v)) > 3.3e38 {
			continue
		}
		got := graph.RoundBF16(v)
		bits := math.Float32bits(got)
		below, above := math.Float32frombits(bits-1<<16), math.Float32frombits(bits+1<<16)
		d := math.Abs(float64(got) - float64(v))
		if bits&0xffff != 0 {
			t.Fatalf("%v rounds to %v, which is no bfloat16", v, got)
		}
		if math.Abs(float64(v)) > 1e-37 && (d > math.Abs(float64(below)-float64(v)) || d > math.Abs(float64(above)-float64(v))) {
			t.Fatalf("%v rounds to %v, though %v or %v is nearer", v, got, below, above)
		}
	}
}

func TestDesc(t *testing.T) {
	d := graph.Of(graph.F32, 2, 3)
	if d.Elems() != 6 || d.Bytes() != 24 || d.String() != "fp32[2,3]" {
		t.Errorf("%v has %d elements, %d bytes", d, d.Elems(), d.Bytes())
	}
	if s := graph.Of(graph.F64); s.Elems() != 1 || s.Bytes() != 8 || s.String() != "fp64[]" {
		t.Errorf("%v has %d elements, %d bytes", s, s.Elems(), s.Bytes())
	}
	if graph.Of(graph.BF16, 5).Bytes() != 10 || graph.Of(graph.I32, 5).Bytes() != 20 {
		t.Error("sizes of bf16 and int32")
	}
	for _, o := range []graph.Desc{graph.Of(graph.F32, 3, 2), graph.Of(graph.F32, 6), graph.Of(graph.F32, 2, 3, 1), graph.Of(graph.I32, 2, 3), graph.Of(graph.F32)} {
		if d.Equal(o) || o.Equal(d) {
			t.Errorf("%v equals %v", d, o)
		}
	}
	if !d.Equal(graph.Of(graph.F32, 2, 3)) {
		t.Error("a description differs from itself")
	}
}

func TestMemory(t *testing.T) {
	m, err := graph.HostMemory{}.Alloc("weights", 100)
	if err != nil {
		t.Fatal(err)
	}
	if uintptr(m.Host)%64 != 0 {
		t.Errorf("memory at %p is not aligned to 64 bytes", m.Host)
	}
	b := m.At(4, graph.Of(graph.F32, 2, 3))
	b.F32()[5] = 7
	if got := m.At(24, graph.Of(graph.F32)).F32()[0]; got != 7 {
		t.Errorf("element 5 of the tensor at byte 4 is not at byte 24: %v", got)
	}
	for _, f := range []func(){
		func() { m.At(80, graph.Of(graph.F32, 6)) },
		func() { m.At(-4, graph.Of(graph.F32)) },
	} {
		if s := panics(f); !strings.Contains(s, `"weights"`) {
			t.Errorf("beyond the region: panic %q", s)
		}
	}
	if s := panics(func() { b.I32() }); !strings.Contains(s, "fp32[2,3]") {
		t.Errorf("floats read as integers: panic %q", s)
	}
}
