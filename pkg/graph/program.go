package graph

import (
	"fmt"
	"reflect"
	"sort"
	"time"
)

// Options of a compilation.
type Options struct {
	// Bind gives inputs that live longer than the program, by name: parameters, their gradients, caches. The program
	// allocates the others.
	Bind map[string]Buffer
	// Recompute keeps only the checkpoints (Builder.Checkpoint) of the forward pass for the backward pass and computes the
	// rest again. Without it, that is done of what costs next to nothing, the results of RMSNorm and SwiGLU.
	Recompute bool
}

// Program is a compiled graph on a device. It is used by one goroutine at a time, and not while another program that shares
// buffers with it runs.
type Program struct {
	Plan
	device Device
	steps  []step
	inputs map[string]Buffer
	of     map[*Node]Buffer
	owned  []Memory
	times  []time.Duration // by step, while profiling

	recorder  Recorder // nil where the device records nothing
	recording Recording
	ran       bool
}

type step struct {
	kernel  Kernel
	in, out []Buffer
	spec    Spec
}

// Checkpoint marks x as a tensor that is kept when the program is compiled with Recompute: a block's input. It returns x.
func (b *Builder) Checkpoint(x *Node) *Node {
	b.checkpoints = append(b.checkpoints, x)
	return x
}

// prepare lowers the graph for a Device or a Planner.
func (b *Builder) prepare(dev any, o Options, roots []*Node) (*lowered, *Plan, error) {
	l, err := b.lower(roots)
	if err != nil {
		return nil, nil, err
	}
	l.fuseAccumulate()
	if d, ok := dev.(Adder); ok {
		l.fuseAdd(d.Adds)
	}
	var at []int
	for _, n := range b.checkpoints {
		if v, ok := l.of[n]; ok {
			at = append(at, v[0])
		}
	}
	if o.Recompute {
		l.recompute(at)
	} else {
		l.recomputeCheap(at)
	}
	if d, ok := dev.(Remaker); ok {
		l.remake(d.Remakes)
	}
	if s, ok := dev.(interface{ Storage(Precision) Dtype }); ok {
		_, plain := dev.(WeightReader)
		l.store(l.storageBy(s.Storage), plain)
	}
	if d, ok := dev.(Overwriter); ok {
		l.overwrite(d.Overwrites)
	}
	return l, l.plan(), nil
}

// Plan returns what Compile would need on a device that dev stands for, without allocating it. nil stands for one that stores activations
// as the graph has them and whose kernels' memory is of no account.
func (b *Builder) Plan(dev Planner, o Options, roots ...*Node) (*Plan, error) {
	l, p, err := b.prepare(dev, o, roots)
	if err != nil || dev == nil {
		return p, err
	}
	for _, in := range l.instrs {
		own, scratch := dev.KernelBytes(in.spec, l.descs(in.in), l.descs(in.out))
		p.Own += own
		p.Scratch = max(p.Scratch, scratch)
	}
	return p, nil
}

// Compile turns everything that roots need into a program on a device. Bound buffers must have the shapes of their inputs.
func (b *Builder) Compile(dev Device, o Options, roots ...*Node) (*Program, error) {
	l, plan, err := b.prepare(dev, o, roots)
	if err != nil {
		return nil, err
	}
	p := &Program{Plan: *plan, device: dev, inputs: map[string]Buffer{}, of: map[*Node]Buffer{}}
	p.recorder, _ = dev.(Recorder)
	arena, err := p.alloc("activations", p.Arena)
	if err != nil {
		return nil, err
	}
	buffers := make([]Buffer, len(l.values))
	for v, val := range l.values {
		switch {
		case val.planned() && p.offset[v] < 0: // a gradient that is added to its accumulator directly
		case val.planned():
			buffers[v] = arena.At(p.offset[v], val.desc)
		case val.constant != nil:
			m, err := p.alloc("constant", val.desc.Bytes())
			if err != nil {
				return nil, p.abandon(err)
			}
			buffers[v] = m.At(0, val.desc)
			if err := dev.Upload(buffers[v], val.constant); err != nil {
				return nil, p.abandon(err)
			}
		default:
			buf, bound := o.Bind[val.input]
			if !bound {
				m, err := p.alloc(val.input, val.desc.Bytes())
				if err != nil {
					return nil, p.abandon(err)
				}
				buf = m.At(0, val.desc)
			}
			if !buf.Desc.Equal(val.desc) {
				return nil, p.abandon(fmt.Errorf("graph: input %q is %v, bound to %v", val.input, val.desc, buf.Desc))
			}
			buffers[v] = buf
			p.inputs[val.input] = buf
		}
	}
	for _, in := range l.instrs {
		s := step{spec: in.spec}
		for _, v := range in.in {
			s.in = append(s.in, buffers[v])
		}
		for _, v := range in.out {
			s.out = append(s.out, buffers[v])
		}
		if s.kernel, err = dev.Kernel(in.spec, l.descs(in.in), l.descs(in.out)); err != nil {
			return nil, p.abandon(fmt.Errorf("graph: %s on %v: %w", Kind(in.spec), l.descs(in.in), err))
		}
		p.steps = append(p.steps, s)
	}
	for i, n := range roots {
		p.of[n] = buffers[l.roots[i]]
	}
	return p, nil
}

func (p *Program) alloc(label string, bytes int) (Memory, error) {
	m, err := p.device.Alloc(label, bytes)
	if err == nil {
		p.owned = append(p.owned, m)
	}
	return m, err
}

func (p *Program) abandon(err error) error {
	p.Close()
	return err
}

// Close frees what the program allocated; bound buffers stay.
func (p *Program) Close() {
	p.forget()
	for _, m := range p.owned {
		p.device.Free(m)
	}
	p.owned, p.steps = nil, nil
}

// Run executes every kernel once, in order. It allocates nothing. On a Recorder the first run goes kernel by kernel, the second is
// recorded, and those after it queue the recording.
func (p *Program) Run() error {
	if p.recorder == nil || p.times != nil || !p.ran {
		p.ran = true
		return p.each()
	}
	if p.recording == nil || !p.recording.Valid() {
		p.forget()
		var err error
		if p.recording, err = p.recorder.Record(p.each); err != nil {
			p.recorder, p.recording = nil, nil
			return p.each()
		}
	}
	return p.recording.Launch()
}

// forget frees the recording.
func (p *Program) forget() {
	if p.recording != nil {
		p.recording.Close()
		p.recording = nil
	}
}

func (p *Program) each() error {
	for i := range p.steps {
		s := &p.steps[i]
		var err error
		if p.times != nil {
			err = p.timed(i)
		} else {
			err = s.kernel(s.in, s.out)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", Kind(s.spec), err)
		}
	}
	return nil
}

// Input returns the buffer of an input, for Device.Upload.
func (p *Program) Input(name string) (Buffer, bool) {
	b, ok := p.inputs[name]
	return b, ok
}

// Upload copies host bytes into an input. Inputs that no root needs are passed over.
func (p *Program) Upload(name string, src []byte) error {
	b, ok := p.inputs[name]
	if !ok {
		return nil
	}
	if err := p.device.Upload(b, src); err != nil {
		return fmt.Errorf("input %q: %w", name, err)
	}
	return nil
}

// Output returns the buffer of a root.
func (p *Program) Output(root *Node) Buffer {
	b, ok := p.of[root]
	if !ok {
		panic("graph: Output of a node that was not a root of the compilation")
	}
	return b
}

// Profile switches the timing of kernels on; Times reads it.
func (p *Program) Profile() { p.times = make([]time.Duration, len(p.steps)) }

// KindTime is the time that all operators of one kind took.
type KindTime struct {
	Kind  string
	Calls int // operators of this kind per run
	Total time.Duration
}

// Times returns the time by kind of operator since Profile, the longest first.
func (p *Program) Times() []KindTime {
	byKind := map[string]*KindTime{}
	var out []KindTime
	for i, t := range p.times {
		k := Kind(p.steps[i].spec)
		if byKind[k] == nil {
			byKind[k] = &KindTime{Kind: k}
		}
		byKind[k].Calls++
		byKind[k].Total += t
	}
	for _, k := range byKind {
		out = append(out, *k)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Total != out[j].Total {
			return out[i].Total > out[j].Total
		}
		return out[i].Kind < out[j].Kind
	})
	return out
}

func (p *Program) timed(i int) error {
	t := time.Now()
	err := p.steps[i].kernel(p.steps[i].in, p.steps[i].out)
	if err == nil {
		err = p.device.Sync()
	}
	p.times[i] += time.Since(t)
	return err
}

// Kind names an operator, for people: the name of its Spec.
func Kind(s Spec) string { return reflect.TypeOf(s).Name() }
