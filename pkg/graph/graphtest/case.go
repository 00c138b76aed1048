package graphtest

import (
	"fmt"
	"math"
	"reflect"
	"slices"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

// testCase is one application of an operator to one set of operands.
type testCase struct {
	name string
	spec graph.Spec
	in   []tensor

	// writes names the operands that the operator changes, beside a mutator's target.
	writes []int
	// adds names the outputs that are added to.
	adds []int
	// results are the outputs and then the changed operands. tolerance holds one entry for each, or one for all: the error
	// allowed, as a share of the magnitude; 0 asks for the same bits.
	tolerance []float64
	// magnitude returns what the errors of each result's elements are measured by; nil, or a nil entry, stands for the
	// true value itself.
	magnitude func(c *testCase, in, initial []wide) [][]float64

	// groups is into how many independent rows (or sequences) the operands can be cut along their leading axes; 0 if they
	// cannot. shared names the operands that all groups use, mixed the outputs that belong to no group.
	groups        int
	shared, mixed []int

	initial []tensor // what the outputs hold before

	storage graph.Dtype // BF16: activations are stored in that type
}

// outputs describes the outputs on the device.
func (c *testCase) outputs() []graph.Desc {
	full := make([]graph.Desc, len(c.in))
	for i, x := range c.in {
		x.bf16 = false
		full[i] = x.desc()
	}
	if c.storage == graph.BF16 {
		_, outs := graph.Stored(c.spec, full, c.storage)
		return outs
	}
	return c.spec.Infer(full)
}

// store returns the case as a device has it that stores activations in bfloat16; nil where no program is made of it.
func (c *testCase) store() *testCase {
	if p := precisionOf(c.spec); p != nil && *p != graph.BF16Operands {
		return nil
	}
	s := *c
	s.storage = graph.BF16
	ins, _ := graph.Stored(c.spec, descs(c.in), s.storage)
	s.in, s.initial = nil, nil
	for i, x := range c.in {
		s.in = append(s.in, x.stored(ins[i].Dtype))
	}
	for o, d := range s.outputs() {
		s.initial = append(s.initial, c.initial[o].stored(d.Dtype))
	}
	return &s
}

// precisionOf returns an operator's precision, nil for one that has none.
func precisionOf(s graph.Spec) *graph.Precision {
	v := reflect.ValueOf(s)
	if v.Kind() != reflect.Struct {
		return nil
	}
	f := v.FieldByName("Precision")
	if !f.IsValid() {
		return nil
	}
	p := f.Interface().(graph.Precision)
	return &p
}

func (c *testCase) String() string { return fmt.Sprintf("%s/%s", graph.Kind(c.spec), c.name) }

func descs(xs []tensor) []graph.Desc {
	out := make([]graph.Desc, len(xs))
	for i, x := range xs {
		out[i] = x.desc()
	}
	return out
}

// target returns the operand that is also the first output, or -1.
func target(s graph.Spec) int {
	if m, ok := s.(interface{ Target() int }); ok {
		return m.Target()
	}
	return -1
}

// prepare gives the outputs their contents from before: NaN, or something to add to.
func (c *testCase) prepare(s source) {
	c.initial = nil
	for o, d := range c.spec.Infer(descs(c.in)) {
		if slices.Contains(c.adds, o) {
			c.initial = append(c.initial, s.normal(1, d.Shape...))
		} else {
			c.initial = append(c.initial, filled(float32(math.NaN()), d.Shape...))
		}
	}
}

// cut returns the same operator on the groups from..to only.
func (c *testCase) cut(from, to int) *testCase {
	part := &testCase{name: fmt.Sprintf("%s rows %d to %d of %d", c.name, from, to, c.groups), spec: c.spec, writes: c.writes, storage: c.storage}
	for i, x := range c.in {
		if !slices.Contains(c.shared, i) {
			x = x.rows(from, to, c.groups)
		}
		part.in = append(part.in, x)
	}
	for _, d := range part.outputs() {
		part.initial = append(part.initial, filled(float32(math.NaN()), d.Shape...).stored(d.Dtype))
	}
	for _, o := range c.adds {
		part.initial[o] = c.initial[o]
	}
	return part
}

// kernel compiles the operator for this case's shapes.
func (c *testCase) kernel(dev graph.Device) (graph.Kernel, error) {
	return dev.Kernel(c.spec, descs(c.in), c.outputs())
}

// run executes the kernel on fresh memory and returns the results. Outputs lie where the operands do that over names, those for which it
// has -1, or nothing, in memory of their own.
func (c *testCase) run(dev graph.Device, k graph.Kernel, over ...int) ([]tensor, error) {
	var all []*placed
	defer func() {
		for _, p := range all {
			dev.Free(p.memory)
		}
	}()
	put := func(label string, x tensor) (*placed, error) {
		p, err := place(dev, label, x)
		if p != nil {
			all = append(all, p)
		}
		return p, err
	}
	var in, out []*placed
	for i, x := range c.in {
		p, err := put(fmt.Sprintf("operand %d", i), x)
		if err != nil {
			return nil, err
		}
		in = append(in, p)
	}
	for o, x := range c.initial {
		if t := target(c.spec); o == 0 && t >= 0 {
			out = append(out, in[t])
			continue
		}
		if o < len(over) && over[o] >= 0 {
			out = append(out, in[over[o]])
			continue
		}
		p, err := put(fmt.Sprintf("output %d", o), x)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if err := k(buffers(in), buffers(out)); err != nil {
		return nil, err
	}
	if err := dev.Sync(); err != nil {
		return nil, err
	}
	var results []tensor
	for _, p := range out {
		x, err := p.read()
		if err != nil {
			return nil, err
		}
		results = append(results, x)
	}
	for i, p := range in {
		x, err := p.read()
		if err != nil {
			return nil, err
		}
		switch {
		case slices.Contains(c.writes, i):
			results = append(results, x)
		case i == target(c.spec), slices.Contains(over, i):
		default:
			if e := differ(x, c.in[i]); e >= 0 {
				return nil, fmt.Errorf("operand %d %v: the kernel changed element %d from %v to %v", i, x.desc(), e, c.in[i].at(e), x.at(e))
			}
		}
	}
	return results, nil
}

func buffers(ps []*placed) []graph.Buffer {
	out := make([]graph.Buffer, len(ps))
	for i, p := range ps {
		out[i] = p.buffer
	}
	return out
}

// evaluate is an operator on package naive in float64; in and out are overwritten as the operator does.
func evaluate(s graph.Spec, in, out []wide) []wide {
	if t := target(s); t >= 0 {
		out = append([]wide{in[t]}, out[1:]...)
	}
	var dev naive.Device[float64]
	buf := func(xs []wide) (bs []graph.Buffer, ds []graph.Desc) {
		for _, x := range xs {
			d := graph.Of(graph.F64, x.shape...)
			raw := graph.Bytes(x.f)
			if x.i != nil {
				d.Dtype, raw = graph.I32, graph.Bytes(x.i)
			}
			m, _ := dev.Alloc("truth", d.Bytes())
			b := m.At(0, d)
			_ = dev.Upload(b, raw)
			bs, ds = append(bs, b), append(ds, d)
		}
		return bs, ds
	}
	ins, inDescs := buf(in)
	outs, outDescs := buf(out)
	if t := target(s); t >= 0 {
		outs[0] = ins[t]
	}
	k, err := dev.Kernel(s, inDescs, outDescs)
	if err == nil {
		err = k(ins, outs)
	}
	if err != nil {
		panic(err)
	}
	for i, b := range ins {
		if b.Dtype == graph.F64 {
			copy(in[i].f, b.F64())
		}
	}
	for i, b := range outs {
		copy(out[i].f, b.F64())
	}
	return out
}

// truth returns the results in float64.
func (c *testCase) truth() []wide {
	in := widen(c.in)
	results := evaluate(c.spec, in, widen(c.initial))
	for _, i := range c.writes {
		results = append(results, in[i])
	}
	return results
}

// compare holds results against the truth.
func (c *testCase) compare(got []tensor) error {
	want := c.truth()
	var magnitude [][]float64
	if c.magnitude != nil {
		magnitude = c.magnitude(c, widen(c.in), widen(c.initial))
	}
	for r := range want {
		tolerance := c.tolerance[min(r, len(c.tolerance)-1)]
		for i, w := range want[r].f {
			g := got[r].f[i]
			scale := math.Abs(w)
			if r < len(magnitude) && magnitude[r] != nil {
				scale = magnitude[r][i]
			}
			tolerance := tolerance
			if _, isCast := c.spec.(graph.Cast); got[r].bf16 && !isCast {
				tolerance, scale = max(tolerance, storedTolerance), max(scale, math.Abs(w))
			}
			if !near(float64(g), w, tolerance*scale) {
				return fmt.Errorf("result %d %v: element %d is %v, should be %v (error %.2g, allowed %.2g)",
					r, got[r].desc(), i, g, w, math.Abs(float64(g)-w), tolerance*scale)
			}
		}
	}
	return nil
}

// storedTolerance is for results that are stored in bfloat16: their last bit, and half of another where a sum was stored in between.
const storedTolerance = 1.5 / 256

// vanishing is an error too small to matter beside anything; units that flush subnormal numbers to zero make such errors.
const vanishing = 1e-30

func near(got, want, limit float64) bool {
	switch narrow := float64(float32(want)); {
	case math.IsNaN(narrow):
		return math.IsNaN(got)
	case math.IsInf(narrow, 0) || limit == 0:
		return got == narrow
	default:
		return math.Abs(got-want) <= limit+vanishing
	}
}

// overs returns the arguments of run for every way in which outputs may lie where operands do.
func (c *testCase) overs(dev graph.Device) [][]int {
	d, ok := dev.(graph.Overwriter)
	if !ok || target(c.spec) >= 0 {
		return nil
	}
	ways := [][]int{nil}
	for o, out := range c.outputs() {
		var next [][]int
		for _, way := range ways {
			next = append(next, append(slices.Clone(way), -1))
			for u, x := range c.in {
				if !slices.Contains(way, u) && !slices.Contains(c.adds, o) && x.desc().Equal(out) && d.Overwrites(c.spec, u) {
					next = append(next, append(slices.Clone(way), u))
				}
			}
		}
		ways = next
	}
	return ways[1:]
}

// overwrites demands the results that outputs in memory of their own have, which are given, of those that lie where operands do; if
// together, right ones.
func (c *testCase) overwrites(dev graph.Device, k graph.Kernel, apart []tensor, together bool) error {
	for _, over := range c.overs(dev) {
		got, err := c.run(dev, k, over...)
		if err != nil {
			return fmt.Errorf("results in the places of operands %v: %w", over, err)
		}
		if together {
			if err := c.compare(got); err != nil {
				return fmt.Errorf("results in the places of operands %v: %w", over, err)
			}
			continue
		}
		for r := range got {
			if e := differ(got[r], apart[r]); e >= 0 {
				return fmt.Errorf("result %d %v: element %d is %v, with results in the places of operands %v (-1: in none) %v",
					r, got[r].desc(), e, apart[r].at(e), over, got[r].at(e))
			}
		}
	}
	return nil
}

// check runs one case on a device and returns what is wrong with it. together allows a row's result to depend on the rows beside it
// and on where results lie.
func (c *testCase) check(dev graph.Device, together bool) error {
	k, err := c.kernel(dev)
	if err != nil {
		return err
	}
	got, err := c.run(dev, k)
	if err != nil {
		return err
	}
	if err := c.compare(got); err != nil {
		return err
	}
	again, err := c.run(dev, k)
	if err != nil {
		return fmt.Errorf("second run: %w", err)
	}
	for r := range got {
		if e := differ(got[r], again[r]); e >= 0 {
			return fmt.Errorf("result %d %v: element %d is %v in the first run and %v in the second", r, got[r].desc(), e, got[r].at(e), again[r].at(e))
		}
	}
	if err := c.overwrites(dev, k, got, together); err != nil {
		return err
	}
	if together {
		return nil
	}
	return c.invariant(dev, got)
}

// invariant runs some of the rows alone and compares them with the same rows among all the others.
func (c *testCase) invariant(dev graph.Device, whole []tensor) error {
	n := c.groups
	if n < 2 {
		return nil
	}
	for _, span := range [][2]int{{0, 1}, {n - 1, n}, {n / 3, n/3 + (n+1)/2}} {
		part := c.cut(span[0], span[1])
		k, err := part.kernel(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		got, err := part.run(dev, k)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		for r := range got {
			if slices.Contains(c.mixed, r) {
				continue
			}
			want := whole[r].rows(span[0], span[1], n)
			if e := differ(got[r], want); e >= 0 {
				return fmt.Errorf("%s: result %d %v: element %d is %v alone and %v among the other rows", part.name, r, want.desc(), e, got[r].at(e), want.at(e))
			}
		}
	}
	return nil
}
