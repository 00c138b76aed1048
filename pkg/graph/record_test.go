package graph_test

import (
	"errors"
	"slices"
	"testing"

	"meap/pkg/graph"
)

// tapeDeck is package naive with recordings.
type tapeDeck struct {
	device[float32]
	on         *deckTape // where kernels go while recording
	refuse     bool
	generation int
	eager      int // kernels that ran at once
	records    int
	open       int // recordings that are not closed
}

type deckTape struct {
	deck       *tapeDeck
	kernels    []func() error
	generation int
	launches   int
}

func (d *tapeDeck) Kernel(op graph.Spec, in, out []graph.Desc) (graph.Kernel, error) {
	k, err := d.device.Kernel(op, in, out)
	return func(in, out []graph.Buffer) error {
		if d.on != nil {
			in, out := slices.Clone(in), slices.Clone(out)
			d.on.kernels = append(d.on.kernels, func() error { return k(in, out) })
			return nil
		}
		d.eager++
		return k(in, out)
	}, err
}

func (d *tapeDeck) Record(run func() error) (graph.Recording, error) {
	d.records++
	if d.refuse {
		return nil, errors.New("no tape")
	}
	t := &deckTape{deck: d, generation: d.generation}
	d.on = t
	err := run()
	d.on = nil
	d.open++
	return t, err
}

func (t *deckTape) Valid() bool { return t.generation == t.deck.generation }

func (t *deckTape) Launch() error {
	t.launches++
	for _, k := range t.kernels {
		if err := k(); err != nil {
			return err
		}
	}
	return nil
}

func (t *deckTape) Close() { t.deck.open-- }

func TestRecording(t *testing.T) {
	n := newNet(graph.F32)
	x := n.input("x", 1, 1)
	sum := n.Accumulate(n.input("sum", 0, 1), x)
	dev := &tapeDeck{}
	p, err := n.Compile(dev, graph.Options{}, sum)
	if err != nil {
		t.Fatal(err)
	}
	n.upload(t, dev, p)
	total := 0.
	step := func(eager, records int) {
		t.Helper()
		run(t, p)
		total = float64(float32(total) + float32(n.feed["x"].([]float64)[0]))
		if got := read(p.Output(sum))[0]; got != total {
			t.Fatalf("the sum is %v, want %v", got, total)
		}
		if dev.eager != eager || dev.records != records {
			t.Fatalf("%d kernels ran at once and %d recordings were made, want %d and %d", dev.eager, dev.records, eager, records)
		}
	}
	step(1, 0) // the first run goes kernel by kernel
	step(1, 1)
	step(1, 1)
	dev.generation++ // scratch memory has moved
	step(1, 2)
	step(1, 2)
	if dev.open != 1 {
		t.Errorf("%d recordings are open, want one", dev.open)
	}
	dev.generation++
	dev.refuse = true
	step(2, 3)
	step(3, 3) // not asked again
	p.Close()
	if dev.open != 0 {
		t.Errorf("%d recordings are open after Close", dev.open)
	}
}

func TestProfilingIsNotRecorded(t *testing.T) {
	n := newNet(graph.F32)
	y := n.Add(n.input("x", 1, 3), n.input("y", 1, 3))
	dev := &tapeDeck{}
	p, err := n.Compile(dev, graph.Options{}, y)
	if err != nil {
		t.Fatal(err)
	}
	n.upload(t, dev, p)
	run(t, p)
	p.Profile()
	run(t, p)
	run(t, p)
	if dev.eager != 3 || dev.records != 0 {
		t.Errorf("%d kernels ran at once, %d recordings", dev.eager, dev.records)
	}
}
