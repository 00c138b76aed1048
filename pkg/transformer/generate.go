package transformer

import (
	"context"
	"fmt"

	"meap/pkg/graph"
)

// GeneratorOptions size a Generator. Zero values mean the defaults.
type GeneratorOptions struct {
	Batch     int             // sequences that are generated together; default 1
	Context   int             // longest sequence in tokens, prompt included; default, and at most, the model's max_seq
	Chunk     int             // tokens of a prompt that are read at a time; default 128
	Precision graph.Precision // of the matrix products
}

// Generator continues sequences token by token. The keys and values of what it has read stay in caches on the device, so that a
// token costs one pass over the weights. It is used by one goroutine at a time.
type Generator struct {
	options GeneratorOptions
	params  *Parameters
	chunk   *generateProgram
	single  *generateProgram
	caches  []graph.Memory

	past   []int32 // by sequence of the batch, the tokens in its caches
	logits []float32
}

// generateProgram adds seq tokens to every sequence of the batch.
type generateProgram struct {
	*graph.Program
	seq            int
	logits         graph.Buffer // [batch, vocab]
	ids, positions []int32      // [batch*seq]
	last           []int32      // [batch]
}

// NewGenerator compiles the programs of generation and takes memory for the caches, fp32 [batch, context+chunk, kv_heads*head_dim]
// twice per layer. Close gives it back; the weights stay.
func NewGenerator(p *Parameters, o GeneratorOptions) (*Generator, error) {
	defaultTo := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defaultTo(&o.Batch, 1)
	defaultTo(&o.Context, p.config.MaxSeq)
	defaultTo(&o.Chunk, min(128, o.Context))
	if o.Batch < 1 || o.Chunk < 1 || o.Context < 1 || o.Context > p.config.MaxSeq {
		return nil, fmt.Errorf("generate: batch %d and chunk %d must be at least 1, the context %d between 1 and the model's %d positions (model.max_seq)",
			o.Batch, o.Chunk, o.Context, p.config.MaxSeq)
	}
	g := &Generator{options: o, params: p, past: make([]int32, o.Batch), logits: make([]float32, o.Batch*p.config.Vocab)}
	if err := g.compile(); err != nil {
		g.Close()
		return nil, fmt.Errorf("generate: %w", err)
	}
	return g, nil
}

func (g *Generator) compile() error {
	c, o := g.params.config, g.options
	// A chunk is written whole, so its padding may lie behind the last token of the context.
	capacity := o.Context + o.Chunk
	bind := g.params.Bindings()
	cache := graph.Of(graph.F32, o.Batch, capacity, c.KVHeads*c.HeadDim)
	for layer := range c.Layers {
		keys, values := CacheNames(layer)
		for _, name := range []string{keys, values} {
			m, err := g.params.dev.Alloc(name, cache.Bytes())
			if err != nil {
				return err
			}
			g.caches = append(g.caches, m)
			bind[name] = m.At(0, cache)
		}
	}
	program := func(seq int) (*generateProgram, error) {
		b := graph.NewBuilder(graph.F32)
		logits := BuildCached(b, c, o.Batch, seq, capacity, o.Precision).LastLogits()
		p, err := b.Compile(g.params.dev, graph.Options{Bind: bind}, logits)
		if err != nil {
			return nil, err
		}
		return &generateProgram{p, seq, p.Output(logits), make([]int32, o.Batch*seq), make([]int32, o.Batch*seq), make([]int32, o.Batch)}, nil
	}
	var err error
	if g.chunk, err = program(o.Chunk); err != nil {
		return err
	}
	g.single, err = program(1)
	return err
}

// Close frees programs and caches.
func (g *Generator) Close() {
	for _, p := range []*generateProgram{g.chunk, g.single} {
		if p != nil {
			p.Close()
		}
	}
	for _, m := range g.caches {
		g.params.dev.Free(m)
	}
	g.chunk, g.single, g.caches = nil, nil, nil
}

// Reset forgets all sequences.
func (g *Generator) Reset() { clear(g.past) }

// Extend reads more tokens of each sequence, of which there are at most Batch and which may differ in how many they are, and
// returns for each the logits [vocab] of the token after them, nil for a sequence without new tokens. How a sequence is cut into
// calls and chunks doesn't change them.
func (g *Generator) Extend(ids [][]int32) ([][]float32, error) {
	if len(ids) > g.options.Batch {
		return nil, fmt.Errorf("generate: %d sequences at a time, where the generator was made for %d", len(ids), g.options.Batch)
	}
	longest := 0
	for s, row := range ids {
		if err := g.params.config.checkIDs(row); err != nil {
			return nil, fmt.Errorf("generate: sequence %d: %w", s, err)
		}
		if n := int(g.past[s]) + len(row); n > g.options.Context {
			return nil, fmt.Errorf("generate: sequence %d has %d tokens, more than the context of %d", s, n, g.options.Context)
		}
		longest = max(longest, len(row))
	}
	out := make([][]float32, len(ids))
	for read := 0; read < longest; {
		p := g.chunk
		if longest-read == 1 {
			p = g.single
		}
		if err := g.step(p, ids, read, out); err != nil {
			return nil, fmt.Errorf("generate: %w", err)
		}
		read += p.seq
	}
	return out, nil
}

// step runs a program on the tokens of each sequence from index read on, and puts the logits of sequences that end there into out.
func (g *Generator) step(p *generateProgram, ids [][]int32, read int, out [][]float32) error {
	clear(p.ids)
	ends := false
	counts := make([]int, g.options.Batch) // of real tokens in this step
	for s, past := range g.past {
		if s < len(ids) && read < len(ids[s]) {
			counts[s] = copy(p.ids[s*p.seq:(s+1)*p.seq], ids[s][read:])
			ends = ends || read+counts[s] == len(ids[s])
		}
		// What follows a sequence's real tokens is computed and never seen: the next step overwrites its place in the caches.
		for i := range p.seq {
			p.positions[s*p.seq+i] = min(past+int32(i), int32(g.params.config.MaxSeq-1))
		}
		p.last[s] = int32(s*p.seq + max(counts[s]-1, 0))
	}
	for _, in := range []struct {
		name string
		data []int32
	}{{InputIDs, p.ids}, {InputPositions, p.positions}, {InputPast, g.past}, {InputLast, p.last}} {
		if err := p.Upload(in.name, graph.Bytes(in.data)); err != nil {
			return err
		}
	}
	if err := p.Run(); err != nil {
		return err
	}
	for s, n := range counts {
		g.past[s] += int32(n)
	}
	if !ends {
		return nil
	}
	if err := g.params.dev.Download(graph.Bytes(g.logits), p.logits); err != nil {
		return err
	}
	vocab := g.params.config.Vocab
	for s, n := range counts {
		if n > 0 && read+n == len(ids[s]) {
			out[s] = append([]float32(nil), g.logits[s*vocab:(s+1)*vocab]...)
		}
	}
	return nil
}

// Reason says why a generation ended.
type Reason string

// The reasons for which a generation ends.
const (
	ReasonStop      Reason = "stop"      // a stop token was chosen
	ReasonLength    Reason = "length"    // MaxNew tokens were generated
	ReasonContext   Reason = "context"   // the context is full
	ReasonCancelled Reason = "cancelled" // the caller's context was cancelled
)

// Generated is the continuation of a prompt.
type Generated struct {
	IDs    []int32 // without the prompt and the stop token
	Reason Reason
}

// Generate continues each prompt, in groups of Batch, and calls emit, unless that is nil, with each token that it adds to a prompt,
// as soon as it is chosen. A prompt holds at least one token, as a rule BOS. The tokens chosen for a prompt depend on the prompt,
// the sampling and the prompt's index, not on the other prompts. When ctx is cancelled, what has been generated is returned with
// the error.
func (g *Generator) Generate(ctx context.Context, prompts [][]int32, s Sampling, emit func(prompt int, id int32)) ([]Generated, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	for i, p := range prompts {
		if len(p) == 0 {
			return nil, fmt.Errorf("generate: prompt %d is empty; give it a first token, such as the tokenizer's BOS", i)
		}
		if len(p) > g.options.Context {
			return nil, fmt.Errorf("generate: prompt %d has %d tokens, more than the context of %d; shorten it", i, len(p), g.options.Context)
		}
	}
	out := make([]Generated, len(prompts))
	for i := range out {
		out[i].Reason = ReasonCancelled
	}
	for first := 0; first < len(prompts); first += g.options.Batch {
		group := prompts[first:min(first+g.options.Batch, len(prompts))]
		if err := g.generate(ctx, first, group, s, emit, out[first:]); err != nil {
			return out, err
		}
	}
	return out, nil
}

// generate continues the prompts of one group, of which the first has the given index.
func (g *Generator) generate(ctx context.Context, first int, prompts [][]int32, s Sampling, emit func(int, int32), out []Generated) error {
	g.Reset()
	samplers := make([]*sampler, len(prompts))
	for i := range samplers {
		samplers[i] = newSampler(s, first+i)
	}
	next := append([][]int32(nil), prompts...)
	for running := len(prompts); running > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		logits, err := g.Extend(next)
		if err != nil {
			return err
		}
		for i, l := range logits {
			next[i] = nil
			if l == nil {
				continue
			}
			id, err := samplers[i].choose(l, int(g.past[i]))
			if err != nil {
				return fmt.Errorf("generate: prompt %d, token %d: %w", first+i, len(out[i].IDs), err)
			}
			if s.stops(id) {
				out[i].Reason = ReasonStop
				running--
				continue
			}
			out[i].IDs = append(out[i].IDs, id)
			if emit != nil {
				emit(first+i, id)
			}
			switch {
			case len(out[i].IDs) == s.MaxNew:
				out[i].Reason = ReasonLength
				running--
			case int(g.past[i]) == g.options.Context:
				out[i].Reason = ReasonContext
				running--
			default:
				next[i] = []int32{id}
			}
		}
	}
	return nil
}
