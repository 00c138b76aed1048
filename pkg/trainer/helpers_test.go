package trainer

import (
	"math"
	"slices"
	"testing"

	"meap/pkg/dataset"
	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/transformer"
)

// tinyModel has everything that a model can have but a tied head: grouped queries, biases, more than one layer.
var tinyModel = transformer.Config{
	Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 8, Dim: 16, FFN: 24, Vocab: 24, MaxSeq: 16,
	RopeTheta: 10000, NormEps: 1e-5, QKVBias: true,
}

// tinyConfig trains tinyModel on four rows of 12 tokens a step.
func tinyConfig() Config {
	c := DefaultConfig()
	c.Steps, c.Warmup, c.LearningRate, c.MinLearningRate = 12, 3, 1e-2, 1e-3
	c.MicroBatch, c.Accumulate, c.Seq = 2, 2, 12
	c.DType, c.Threads = DTypeFP32, 2
	c.CheckpointEvery, c.ValidateEvery, c.ValidateRows = 5, 4, 0
	return c
}

// cpuDevice is closed with the test.
func cpuDevice(t testing.TB, threads int) graph.Device {
	t.Helper()
	d, err := cpu.NewDevice(threads, "auto")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// words is a Source and a Validation of made-up rows. Token i of a row follows from token i-1 by a rule with a little noise, so
// there is something to learn. Row r of a step has r%3 tokens without a label, where unlabelled is set.
type words struct {
	seq, vocab int
	unlabelled bool
	rows       int                                      // of the validation
	before     func(step int64, b *dataset.Batch) error // called by Collate before it fills b, where it is not nil
}

func (w *words) fill(b *dataset.Batch, at int, key uint64) {
	token := int32(key % uint64(w.vocab))
	for i := range w.seq {
		key = key*6364136223846793005 + 1442695040888963407
		next := (token*5 + 3) % int32(w.vocab)
		if key>>61 == 0 {
			next = int32(key >> 33 % uint64(w.vocab))
		}
		b.Inputs[at+i], b.Labels[at+i] = token, next
		b.Positions[at+i], b.Starts[at+i] = int32(i), 0
		token = next
	}
}

func (w *words) resize(b *dataset.Batch, rows int) {
	b.Rows, b.Seq = rows, w.seq
	for _, s := range []*[]int32{&b.Inputs, &b.Labels, &b.Positions, &b.Starts} {
		*s = slices.Grow((*s)[:0], rows*w.seq)[:rows*w.seq]
	}
}

func (w *words) Collate(step int64, firstRow, rows int, b *dataset.Batch) error {
	if w.before != nil {
		if err := w.before(step, b); err != nil {
			return err
		}
	}
	w.resize(b, rows)
	for r := range rows {
		w.fill(b, r*w.seq, uint64(step)*1000+uint64(firstRow+r))
		if w.unlabelled {
			for i := range (firstRow + r) % 3 {
				b.Labels[r*w.seq+2*i] = graph.IgnoreLabel
			}
		}
	}
	return nil
}

func (w *words) Rows() int { return w.rows }

// Fill leaves row r of the validation 1 + r%seq labels, so that rows weigh differently.
func (w *words) Fill(first, rows int, b *dataset.Batch) error {
	w.resize(b, rows)
	for r := range rows {
		w.fill(b, r*w.seq, uint64(1+first+r)<<40)
		for i := range w.seq {
			if i > (first+r)%w.seq || first+r >= w.rows {
				b.Labels[r*w.seq+i] = graph.IgnoreLabel
			}
		}
	}
	return nil
}

func (w *words) BytesPerToken() float64 { return 4 }

// spy is a Device that counts what is allocated and remembers where, to look at and to spoil.
type spy struct {
	graph.Device
	bytes map[string]int64
	at    map[string]graph.Memory
}

func newSpy(d graph.Device) *spy {
	return &spy{Device: d, bytes: map[string]int64{}, at: map[string]graph.Memory{}}
}

func (s *spy) Alloc(label string, bytes int) (graph.Memory, error) {
	m, err := s.Device.Alloc(label, bytes)
	s.bytes[label] += int64(bytes)
	s.at[label] = m
	return m, err
}

// Storage, PlainWeights, Adds and Overwrites are those of the CPU, or change nothing on a device that has no such wishes.
func (s *spy) Storage(p graph.Precision) graph.Dtype {
	if d, ok := s.Device.(graph.Storer); ok {
		return d.Storage(p)
	}
	return graph.F32
}

func (s *spy) PlainWeights() {}

func (s *spy) Adds(op graph.Spec) bool {
	d, ok := s.Device.(graph.Adder)
	return ok && d.Adds(op)
}

func (s *spy) Overwrites(op graph.Spec, operand int) bool {
	d, ok := s.Device.(graph.Overwriter)
	return ok && d.Overwrites(op, operand)
}

func (s *spy) total() (n int64) {
	for _, b := range s.bytes {
		n += b
	}
	return n
}

// spoil overwrites the last element of a tensor and returns what was there.
func (s *spy) spoil(t testing.TB, label string, v float32) float32 {
	t.Helper()
	m, ok := s.at[label]
	if !ok {
		t.Fatalf("nothing was allocated for %q", label)
	}
	data := m.At(0, graph.Of(graph.F32, m.Bytes/4)).F32()
	old := data[len(data)-1]
	data[len(data)-1] = v
	return old
}

// late is an asynchronous Device: what it is asked to do waits in a queue until somebody waits for a result, and then it does no more
// than that needs, or, if it is hasty, all that is queued. Real ones do something between the two. What a caller reads or reuses too
// early is therefore wrong.
type late struct {
	graph.Device
	hasty bool
	queue []func() error
	done  int // of the queue
}

func (d *late) push(f func() error) int {
	d.queue = append(d.queue, f)
	return len(d.queue)
}

func (d *late) runTo(n int) error {
	for d.done < n {
		f := d.queue[d.done]
		d.queue[d.done] = nil
		d.done++
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (d *late) Async() bool { return true }
func (d *late) Sync() error { return d.runTo(len(d.queue)) }

func (d *late) Upload(dst graph.Buffer, src []byte) error {
	src = slices.Clone(src)
	d.push(func() error { return d.Device.Upload(dst, src) })
	return nil
}

func (d *late) Download(dst []byte, src graph.Buffer) error {
	if err := d.Sync(); err != nil {
		return err
	}
	return d.Device.Download(dst, src)
}

func (d *late) DownloadLater(dst []byte, src graph.Buffer) (graph.Pending, error) {
	return latePending{d, d.push(func() error { return d.Device.Download(dst, src) })}, nil
}

func (d *late) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	k, err := d.Device.Kernel(op, in, out)
	if err != nil {
		return nil, err
	}
	return func(in, out []graph.Buffer) error {
		in, out = slices.Clone(in), slices.Clone(out)
		d.push(func() error { return k(in, out) })
		return nil
	}, nil
}

type latePending struct {
	device   *late
	position int // in the queue
}

func (p latePending) Wait() error {
	if p.device.hasty {
		return p.device.Sync()
	}
	return p.device.runTo(p.position)
}

// bits returns all values of tensors as bits, which are equal for equal NaNs too.
func bits(tensors []transformer.Tensor) map[string][]uint32 {
	all := map[string][]uint32{}
	for _, t := range tensors {
		b := make([]uint32, len(t.Data))
		for i, v := range t.Data {
			b[i] = math.Float32bits(v)
		}
		all[t.Name] = b
	}
	return all
}
