package transformer

import (
	"fmt"
	"slices"

	"meap/pkg/graph"
)

// Names of the RoPE tables among a model's inputs, fp32 [max_seq, head_dim/2].
const (
	InputCos = "rope.cos"
	InputSin = "rope.sin"
)

// Parameters are a model's weights on a device, and the RoPE tables with them. Programs that are bound to them read and write
// the same memory.
type Parameters struct {
	dev     graph.Device
	config  Config
	names   []string
	buffers map[string]graph.Buffer // weights and tables by name
	owned   []graph.Memory
	context int // Config.context of what the RoPE tables hold
}

// NewParameters takes memory on a device and copies the weights there. The weights' tensors must be those of their Config.
func NewParameters(dev graph.Device, w *Weights) (*Parameters, error) {
	p := &Parameters{dev: dev, config: w.Config, buffers: map[string]graph.Buffer{}}
	if err := p.fill(w); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Parameters) fill(w *Weights) error {
	c := p.config
	for _, d := range c.Weights() {
		p.names = append(p.names, d.Name)
		if _, err := p.alloc(d.Name, d.Shape...); err != nil {
			return err
		}
	}
	for _, name := range []string{InputCos, InputSin} {
		if _, err := p.alloc(name, c.MaxSeq, c.HeadDim/2); err != nil {
			return err
		}
	}
	p.context = -1
	if err := p.setContext(0); err != nil {
		return err
	}
	return p.Upload(w)
}

func (p *Parameters) alloc(name string, shape ...int) (graph.Buffer, error) {
	d := graph.Of(graph.F32, shape...)
	m, err := p.dev.Alloc(name, d.Bytes())
	if err != nil {
		return graph.Buffer{}, err
	}
	p.owned = append(p.owned, m)
	p.buffers[name] = m.At(0, d)
	return p.buffers[name], nil
}

// setContext puts the RoPE tables for contexts of n tokens on the device where they aren't there yet, after the work queued before.
func (p *Parameters) setContext(n int) error {
	context := p.config.context(n)
	if context == p.context {
		return nil
	}
	cos, sin := ropeTables(p.config, n, p.config.MaxSeq)
	for _, t := range []struct {
		name string
		data []float32
	}{{InputCos, cos}, {InputSin, sin}} {
		if err := p.dev.Upload(p.buffers[t.name], graph.Bytes(t.data)); err != nil {
			return fmt.Errorf("copy %s to %s: %w", t.name, p.dev.Name(), err)
		}
	}
	p.context = context
	return nil
}

// Config returns the model's configuration.
func (p *Parameters) Config() Config { return p.config }

// Device returns where the weights are.
func (p *Parameters) Device() graph.Device { return p.dev }

// Names returns the weights' names in canonical order.
func (p *Parameters) Names() []string { return slices.Clone(p.names) }

// Buffer returns a weight or a RoPE table. It panics on a name that the model doesn't have.
func (p *Parameters) Buffer(name string) graph.Buffer {
	b, ok := p.buffers[name]
	if !ok {
		panic(fmt.Sprintf("transformer: the model has no tensor %q", name))
	}
	return b
}

// Bindings returns a fresh map of all weights and RoPE tables by name, for graph.Options; the caller may add to it.
func (p *Parameters) Bindings() map[string]graph.Buffer {
	bind := make(map[string]graph.Buffer, len(p.buffers))
	for name, b := range p.buffers {
		bind[name] = b
	}
	return bind
}

// Download copies the weights to host memory, after all work queued before.
func (p *Parameters) Download() (*Weights, error) {
	w := &Weights{Config: p.config}
	for _, name := range p.names {
		b := p.buffers[name]
		t := Tensor{Name: name, Shape: slices.Clone(b.Shape), Data: make([]float32, b.Elems())}
		if err := p.dev.Download(graph.Bytes(t.Data), b); err != nil {
			return nil, fmt.Errorf("copy %s from %s: %w", name, p.dev.Name(), err)
		}
		w.Tensors = append(w.Tensors, t)
	}
	return w, nil
}

// Upload copies weights of the same Config to the device.
func (p *Parameters) Upload(w *Weights) error {
	if w.Config != p.config {
		return fmt.Errorf("these weights are of another model: %+v, not %+v", w.Config, p.config)
	}
	if err := w.check(); err != nil {
		return err
	}
	for _, t := range w.Tensors {
		if err := p.dev.Upload(p.buffers[t.Name], graph.Bytes(t.Data)); err != nil {
			return fmt.Errorf("copy %s to %s: %w", t.Name, p.dev.Name(), err)
		}
	}
	return nil
}

// Close gives the memory back. Programs bound to it must not run any more.
func (p *Parameters) Close() {
	for _, m := range p.owned {
		p.dev.Free(m)
	}
	p.owned, p.buffers = nil, nil
}
