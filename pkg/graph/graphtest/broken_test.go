package graphtest

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// broken is package naive with a defect: after calls the kernel and spoils something.
type broken struct {
	naive.Device[float32]
	after func(op graph.Spec, run graph.Kernel) graph.Kernel
}

func (d broken) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	k, err := d.Device.Kernel(op, in, out)
	return d.after(op, k), err
}

// instead runs another operator than the one that was asked for.
func instead(s graph.Spec, in, out []graph.Buffer) error {
	k, err := naive.Device[float32]{}.Kernel(s, make([]graph.Desc, len(in)), make([]graph.Desc, len(out)))
	if err != nil {
		return err
	}
	return k(in, out)
}

func ulp(p *float32) { *p = math.Nextafter32(*p, float32(math.Inf(1))) }

// A suite that accepts anything proves nothing: each of these defects must be found, and named for what it is.
func TestDefectsAreFound(t *testing.T) {
	calls := 0
	for _, d := range []struct {
		defect string
		spec   graph.Spec
		after  func(graph.Spec, graph.Kernel) graph.Kernel
		says   string
	}{
		{"one element off by 1e-4", graph.Linear{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				err := k(in, out)
				y := out[0].F32()
				y[len(y)-1] *= 1.0001
				return err
			}
		}, "should be"},
		{"operands rounded to bf16 in fp32", graph.LinearDX{}, func(s graph.Spec, _ graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				return instead(graph.LinearDX{Precision: graph.BF16Operands}, in, out)
			}
		}, "should be"},
		{"operands as they are in bf16", graph.LinearDW{}, func(s graph.Spec, _ graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				return instead(graph.LinearDW{Acc: s.(graph.LinearDW).Acc}, in, out)
			}
		}, "should be"},
		{"a write behind the output", graph.Add{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				*(*float32)(unsafe.Add(out[0].Host, out[0].Bytes())) = 0
				return k(in, out)
			}
		}, "outside of the tensor"},
		{"a write before an operand", graph.RoPE{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				*(*float32)(unsafe.Add(in[0].Host, -4)) = 0
				return k(in, out)
			}
		}, "outside of the tensor"},
		{"an operand used as scratch", graph.SwiGLUGrad{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				err := k(in, out)
				in[2].F32()[0]++
				return err
			}
		}, "changed element 0"},
		{"another result the second time", graph.RMSNorm{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				err := k(in, out)
				if calls++; calls%2 == 0 {
					ulp(&out[0].F32()[0])
				}
				return err
			}
		}, "in the second"},
		{"a row that depends on the batch", graph.Attention{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				err := k(in, out)
				if q := in[0]; q.Shape[0] > 3 {
					ulp(&out[1].F32()[0])
				}
				return err
			}
		}, "among the other rows"},
		{"zeros that are not written", graph.LinearCrossEntropy{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				err := k(in, out)
				for i, label := range in[2].I32() {
					if label < 0 {
						out[0].F32()[i] = float32(math.NaN())
					}
				}
				return err
			}
		}, "is NaN, should be 0"},
		{"overwriting instead of adding", graph.EmbeddingGrad{}, func(s graph.Spec, _ graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				return instead(graph.EmbeddingGrad{Vocab: s.(graph.EmbeddingGrad).Vocab}, in, out)
			}
		}, "should be"},
		{"a halted step that is taken", graph.AdamW{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				in[4].F32()[2] = 0
				err := k(in, out)
				in[4].F32()[2] = 1
				return err
			}
		}, "should be"},
		{"squares summed in float32", graph.GradNorm{}, func(_ graph.Spec, k graph.Kernel) graph.Kernel {
			return func(in, out []graph.Buffer) error {
				err := k(in, out)
				var sum float32
				for _, g := range in {
					for _, v := range g.F32() {
						sum += v * v
					}
				}
				out[0].F32()[0] = float32(math.Sqrt(float64(sum)))
				return err
			}
		}, "should be"},
	} {
		t.Run(d.defect, func(t *testing.T) {
			var found []string
			for _, c := range casesOf(indexOf(d.spec), 0) {
				if err := c.check(broken{after: d.after}, false); err != nil {
					found = append(found, err.Error())
					if strings.Contains(err.Error(), d.says) {
						return
					}
				}
			}
			t.Errorf("found %q, want something that says %q", found, d.says)
		})
	}
}

func TestDifferentDevicesAreFound(t *testing.T) {
	off := broken{after: func(_ graph.Spec, k graph.Kernel) graph.Kernel {
		return func(in, out []graph.Buffer) error {
			err := k(in, out)
			ulp(&out[0].F32()[0])
			return err
		}
	}}
	for i, op := range operators {
		switch op.spec.(type) {
		case graph.AdamW, graph.StepReport, graph.GradNorm: // some cases end in a NaN or an infinity, which have no neighbour
			continue
		case graph.Cast: // has no neighbour either
			continue
		}
		for _, c := range casesOf(i, 1)[:3] {
			if c.same([]graph.Device{naive.Device[float32]{}, off}) == nil {
				t.Errorf("%v: one bit in element 0 goes unnoticed", c)
			}
		}
	}
}

// careless is package naive, whose products read rows again after they have written to them, in the belief that results may lie anywhere.
type careless struct{ naive.Device[float32] }

func (careless) Overwrites(graph.Spec, int) bool { return true }

func TestLostOperandsAreFound(t *testing.T) {
	s := source{rand.New(rand.NewPCG(1, 1))}
	c := &testCase{spec: graph.LinearDX{Sum: true}, in: []tensor{s.normal(1, 5, 5), s.normal(1, 5, 5), s.normal(1, 5, 5)},
		tolerance: sums, magnitude: absolute}
	c.prepare(s)
	if ways := c.overs(careless{}); len(ways) != 3 {
		t.Errorf("a result in the place of one of three operands: %v", ways)
	}
	err := c.check(careless{}, true)
	if err == nil || !strings.Contains(err.Error(), "in the places of operands [0]") {
		t.Errorf("a product over what it multiplies: %v", err)
	}
	if c.same([]graph.Device{careless{}, careless{}}) == nil {
		t.Error("the same on two devices goes unnoticed")
	}
}

// rounding is package naive, whose sums of products are another, but right, where they take the place of what is added.
type rounding struct{ naive.Device[float32] }

func (rounding) Overwrites(_ graph.Spec, operand int) bool { return operand == 2 }

func (d rounding) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	k, err := d.Device.Kernel(op, in, out)
	return func(in, out []graph.Buffer) error {
		err := k(in, out)
		if in[2].Host == out[0].Host {
			ulp(&out[0].F32()[0])
		}
		return err
	}, err
}

func TestOtherRightResultsAreAllowedTogether(t *testing.T) {
	s := source{rand.New(rand.NewPCG(1, 2))}
	c := &testCase{spec: graph.LinearDX{Sum: true}, in: []tensor{s.normal(1, 5, 6), s.normal(1, 6, 5), s.normal(1, 5, 5)},
		tolerance: sums, magnitude: absolute}
	c.prepare(s)
	if err := c.check(rounding{}, true); err != nil {
		t.Error(err)
	}
	if err := c.check(rounding{}, false); err == nil || !strings.Contains(err.Error(), "in the places of operands [2]") {
		t.Errorf("where the bits must be the same: %v", err)
	}
}

// brokenHalf stores results in bfloat16 a little more coarsely than that.
type brokenHalf struct{ *Half }

func (d brokenHalf) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	k, err := d.Half.Kernel(op, in, out)
	return func(in, out []graph.Buffer) error {
		err := k(in, out)
		for _, b := range out {
			if b.Dtype == graph.BF16 {
				for i := range short(b) {
					short(b)[i] &^= 3
				}
			}
		}
		return err
	}, err
}

func TestStoredDefectsAreFound(t *testing.T) {
	for _, s := range []graph.Spec{graph.Linear{}, graph.RMSNorm{}, graph.RMSNormGrad{}, graph.RoPE{}, graph.SwiGLU{}, graph.Add{}, graph.Embedding{}, graph.Cast{}} {
		found := false
		for _, c := range casesOf(indexOf(s), 0) {
			if c = c.store(); c != nil && c.check(brokenHalf{NewHalf()}, false) != nil {
				found = true
			}
		}
		if !found {
			t.Errorf("%s: two bits less go unnoticed", graph.Kind(s))
		}
	}
}

func TestPiecesMustAgree(t *testing.T) {
	off := broken{after: func(op graph.Spec, k graph.Kernel) graph.Kernel {
		return func(in, out []graph.Buffer) error {
			err := k(in, out)
			if op.(graph.CachedAttention).Seq == 1 {
				ulp(&out[0].F32()[0])
			}
			return err
		}
	}}
	for _, c := range casesOf(indexOf(graph.CachedAttention{}), 0) {
		if c.spec.(graph.CachedAttention).Seq > 1 && pieces(off, c) == nil {
			t.Errorf("%v: the difference goes unnoticed", c)
		}
	}
}
