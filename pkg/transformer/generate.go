package transformer

import (
	"context"
	"fmt"
	"slices"

	"meap/pkg/graph"
)

// GeneratorOptions size a Generator. Zero values mean the defaults.
type GeneratorOptions struct {
	Batch     int             // sequences that are generated together; default 1
	Context   int             // longest sequence in tokens, prompt included; default, and at most, the model's max_seq
	Chunk     int             // tokens of a prompt that are read at a time; default 128
	Precision graph.Precision // of the matrix products
}

// Generator continues sequences token by token, and scores long ones piece by piece. The keys and values of what it has read stay
// in caches on the device, so that a token costs one pass over the weights, and that no other memory grows with the length. It is
// used by one goroutine at a time.
type Generator struct {
	options GeneratorOptions
	params  *Parameters
	chunk   *generateProgram
	single  *generateProgram
	score   *generateProgram // compiled when first needed
	bind    map[string]graph.Buffer
	caches  []graph.Memory

	held   [][]int32 // by sequence of the batch, the tokens in its caches
	length int       // of the contexts that the caches' keys are turned for; see Parameters.setContext
	past   []int32   // the lengths of held, as the programs want them
}

// generateProgram adds seq tokens to every sequence of the batch.
type generateProgram struct {
	*graph.Program
	seq            int
	result         graph.Buffer // logits [batch, vocab], or negative log-likelihoods [batch*seq]
	ids, positions []int32      // [batch*seq]
	last           []int32      // [batch], for logits
	labels         []int32      // [batch*seq], for scoring
	out            []float32    // what result holds
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
	g := &Generator{options: o, params: p, held: make([][]int32, o.Batch), past: make([]int32, o.Batch)}
	if err := g.compile(); err != nil {
		g.Close()
		return nil, fmt.Errorf("generate: %w", err)
	}
	return g, nil
}

// CacheBytes returns what a Generator's caches take per sequence of a length.
func (c Config) CacheBytes(tokens int) int64 {
	return 2 * 4 * int64(c.Layers) * int64(c.KVHeads*c.HeadDim) * int64(tokens)
}

// capacity is the length of the caches. A chunk is written whole, so its padding may lie behind the last token of the context.
func (o GeneratorOptions) capacity() int { return o.Context + o.Chunk }

func (g *Generator) compile() error {
	c, o := g.params.config, g.options
	g.bind = g.params.Bindings()
	cache := graph.Of(graph.F32, o.Batch, o.capacity(), c.KVHeads*c.HeadDim)
	for layer := range c.Layers {
		keys, values := CacheNames(layer)
		for _, name := range []string{keys, values} {
			m, err := g.params.dev.Alloc(name, cache.Bytes())
			if err != nil {
				return err
			}
			g.caches = append(g.caches, m)
			g.bind[name] = m.At(0, cache)
		}
	}
	var err error
	if g.chunk, err = g.program(o.Chunk, (*Model).LastLogits); err != nil {
		return err
	}
	g.single, err = g.program(1, (*Model).LastLogits)
	return err
}

// program compiles the model for seq new tokens per sequence, and what result makes of it.
func (g *Generator) program(seq int, result func(*Model) *graph.Node) (*generateProgram, error) {
	o := g.options
	b := graph.NewBuilder(graph.F32)
	root := result(BuildCached(b, g.params.config, o.Batch, seq, o.capacity(), o.Precision))
	compiled, err := b.Compile(g.params.dev, graph.Options{Bind: g.bind}, root)
	if err != nil {
		return nil, err
	}
	n := o.Batch * seq
	p := &generateProgram{Program: compiled, seq: seq, result: compiled.Output(root), ids: make([]int32, n), positions: make([]int32, n)}
	p.out = make([]float32, p.result.Elems())
	if _, logits := p.Input(InputLast); logits {
		p.last = make([]int32, o.Batch)
	} else {
		p.labels = make([]int32, n)
	}
	return p, nil
}

// Close frees programs and caches.
func (g *Generator) Close() {
	for _, p := range []*generateProgram{g.chunk, g.single, g.score} {
		if p != nil {
			p.Close()
		}
	}
	for _, m := range g.caches {
		g.params.dev.Free(m)
	}
	g.chunk, g.single, g.score, g.caches = nil, nil, nil, nil
}

// Reset forgets all sequences.
func (g *Generator) Reset() {
	for s := range g.held {
		g.forget(s, 0)
	}
}

// forget keeps only the first n tokens of a sequence of the batch.
func (g *Generator) forget(s, n int) {
	g.held[s], g.past[s] = g.held[s][:n], int32(n)
}

// start prepares for sequences of n tokens. What the caches hold stays valid unless such contexts turn keys otherwise.
func (g *Generator) start(n int) {
	if g.params.config.context(n) != g.params.config.context(g.length) {
		g.Reset()
	}
	g.length = n
}

// rewind makes a sequence of the batch begin with ids: of what its caches hold it keeps the common beginning, at most limit tokens.
// It returns the ids that are left to read.
func (g *Generator) rewind(s int, ids []int32, limit int) []int32 {
	n := 0
	for n < min(len(g.held[s]), limit) && g.held[s][n] == ids[n] {
		n++
	}
	g.forget(s, n)
	return ids[n:]
}

// Extend reads more tokens of each sequence, of which there are at most Batch and which may differ in how many they are, and
// returns for each the logits [vocab] of the token after them, nil for a sequence without new tokens. How a sequence is cut into
// calls and chunks doesn't change them.
func (g *Generator) Extend(ids [][]int32) ([][]float32, error) {
	if !slices.ContainsFunc(g.past, func(n int32) bool { return n > 0 }) {
		g.start(longestOf(ids))
	}
	return g.extend(context.Background(), ids)
}

func (g *Generator) extend(ctx context.Context, ids [][]int32) ([][]float32, error) {
	if len(ids) > g.options.Batch {
		return nil, fmt.Errorf("generate: %d sequences at a time, where the generator was made for %d", len(ids), g.options.Batch)
	}
	for s, row := range ids {
		if err := g.params.config.checkIDs(row); err != nil {
			return nil, fmt.Errorf("generate: sequence %d: %w", s, err)
		}
		if n := int(g.past[s]) + len(row); n > g.options.Context {
			return nil, fmt.Errorf("generate: sequence %d has %d tokens, more than the context of %d", s, n, g.options.Context)
		}
	}
	out, rest := make([][]float32, len(ids)), slices.Clone(ids)
	for {
		longest := longestOf(rest)
		if longest == 0 {
			return out, nil
		}
		p := g.chunk
		if longest == 1 {
			p = g.single
		}
		counts, err := g.read(ctx, p, rest)
		if err != nil {
			return nil, fmt.Errorf("generate: %w", err)
		}
		downloaded := false
		for s, n := range counts {
			if n == 0 || len(rest[s]) > 0 {
				continue
			}
			if !downloaded {
				if err := g.params.dev.Download(graph.Bytes(p.out), p.result); err != nil {
					return nil, fmt.Errorf("generate: %w", err)
				}
				downloaded = true
			}
			vocab := g.params.config.Vocab
			out[s] = slices.Clone(p.out[s*vocab : (s+1)*vocab])
		}
	}
}

func longestOf(rows [][]int32) int {
	n := 0
	for _, row := range rows {
		n = max(n, len(row))
	}
	return n
}

// read runs a program on the next tokens of each sequence, as many as it takes, removes them from rest and says how many they were.
func (g *Generator) read(ctx context.Context, p *generateProgram, rest [][]int32) (counts []int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := g.params.setContext(g.length); err != nil {
		return nil, err
	}
	clear(p.ids)
	counts = make([]int, len(rest))
	for s, past := range g.past {
		n := 0
		if s < len(rest) {
			n = copy(p.ids[s*p.seq:(s+1)*p.seq], rest[s])
			counts[s] = n
		}
		// What follows a sequence's real tokens is computed and never seen: the next step overwrites its place in the caches.
		for i := range p.seq {
			p.positions[s*p.seq+i] = min(past+int32(i), int32(g.params.config.MaxSeq-1))
		}
		if p.last != nil {
			p.last[s] = int32(s*p.seq + max(n-1, 0))
		}
	}
	inputs := map[string][]int32{InputIDs: p.ids, InputPositions: p.positions, InputPast: g.past}
	if p.last != nil {
		inputs[InputLast] = p.last
	} else {
		inputs[InputLabels] = p.labels
	}
	for name, data := range inputs {
		if err := p.Upload(name, graph.Bytes(data)); err != nil {
			return nil, err
		}
	}
	if err := p.Run(); err != nil {
		return nil, err
	}
	for s, n := range counts {
		g.held[s] = append(g.held[s], rest[s][:n]...)
		g.past[s] += int32(n)
		rest[s] = rest[s][n:]
	}
	return counts, nil
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
	for first := 0; first < len(prompts); {
		n := g.together(prompts[first:])
		if err := g.generate(ctx, first, prompts[first:first+n], s, emit, out[first:]); err != nil {
			return out, err
		}
		first += n
	}
	return out, nil
}

// together returns how many of the sequences, from the first on, can be read at once: as many as the batch holds, as long as all
// need the same RoPE tables.
func (g *Generator) together(rows [][]int32) int {
	c, n := g.params.config, 1
	for n < min(g.options.Batch, len(rows)) && c.context(len(rows[n])) == c.context(len(rows[0])) {
		n++
	}
	return n
}

// generate continues the prompts of one group, of which the first has the given index.
func (g *Generator) generate(ctx context.Context, first int, prompts [][]int32, s Sampling, emit func(int, int32), out []Generated) error {
	g.start(len(prompts[0]))
	samplers := make([]*sampler, len(prompts))
	next := make([][]int32, len(prompts))
	for i, p := range prompts {
		samplers[i] = newSampler(s, first+i)
		next[i] = g.rewind(i, p, len(p)-1) // the last token's logits are wanted
	}
	for running := len(prompts); running > 0; {
		logits, err := g.extend(ctx, next)
		if err != nil {
			return err
		}
		for i, l := range logits {
			next[i] = nil
			if l == nil {
				continue
			}
			id, err := samplers[i].choose(l, len(g.held[i]))
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
			case len(g.held[i]) == g.options.Context:
				out[i].Reason = ReasonContext
				running--
			default:
				next[i] = []int32{id}
			}
		}
	}
	return nil
}

// LogProbs is Scorer.LogProbs, in chunks: memory grows with the caches only.
func (g *Generator) LogProbs(ctx context.Context, ids [][]int32, from []int) ([][]float32, error) {
	if err := g.params.config.checkScored(ids, from, g.options.Context); err != nil {
		return nil, err
	}
	if g.score == nil {
		var err error
		g.score, err = g.program(g.options.Chunk, func(m *Model) *graph.Node {
			_, nll := m.Loss()
			return nll
		})
		if err != nil {
			return nil, fmt.Errorf("score: %w", err)
		}
	}
	read := make([][]int32, len(ids)) // the last token is predicted and never read
	for i, row := range ids {
		read[i] = row[:len(row)-1]
	}
	var out [][]float32
	for len(read) > 0 {
		n := g.together(read)
		scores, err := g.scoreTogether(ctx, ids[:n], read[:n], from[:n])
		if err != nil {
			return nil, fmt.Errorf("score: %w", err)
		}
		out = append(out, scores...)
		ids, read, from = ids[n:], read[n:], from[n:]
	}
	return out, nil
}

// scoreTogether scores at most a batch of sequences.
func (g *Generator) scoreTogether(ctx context.Context, ids, read [][]int32, from []int) ([][]float32, error) {
	g.start(len(read[0]))
	out, rest := make([][]float32, len(ids)), make([][]int32, len(ids))
	for i := range ids {
		out[i] = []float32{}
		if from[i] < len(ids[i]) {
			rest[i] = g.rewind(i, read[i], from[i]-1) // the token before the first that is scored predicts it
		}
	}
	for longestOf(rest) > 0 {
		p := g.score
		wanted := g.label(p, ids, rest, from)
		if !wanted {
			p = g.chunk
		}
		counts, err := g.read(ctx, p, rest)
		if err != nil {
			return nil, err
		}
		if !wanted {
			continue
		}
		if err := g.params.dev.Download(graph.Bytes(p.out), p.result); err != nil {
			return nil, err
		}
		for s, n := range counts {
			for i, label := range p.labels[s*p.seq : s*p.seq+n] {
				if label >= 0 {
					out[s] = append(out[s], -p.out[s*p.seq+i])
				}
			}
		}
	}
	return out, nil
}

// label fills in the labels of the next tokens and tells whether there are any.
func (g *Generator) label(p *generateProgram, ids, rest [][]int32, from []int) (wanted bool) {
	for i := range p.labels {
		p.labels[i] = graph.IgnoreLabel
	}
	for s := range rest {
		for i := range min(p.seq, len(rest[s])) {
			if next := len(g.held[s]) + i + 1; next >= from[s] {
				p.labels[s*p.seq+i] = ids[s][next]
				wanted = true
			}
		}
	}
	return wanted
}
