package graphtest

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"meap/pkg/graph"
)

// Options of a conformance test.
type Options struct {
	// Seed varies the operands. Every operator draws from its own stream, so a failure repeats with the same seed whatever
	// else runs.
	Seed uint64
	// Skip names operators (graph.Kind) that the device does not have, with the reason. Their tests are skipped.
	Skip map[string]string
	// Together names operators whose rows' results may depend on the rows beside them, and on whether they lie where operands do, with
	// the reason.
	Together map[string]string
	// Storage, if BF16, runs the operators as they are compiled on a device that stores activations in that type (graph.Storer);
	// cases in which no program has them are left out.
	Storage graph.Dtype
}

// operators lists every Spec of package graph with its cases.
var operators = []struct {
	spec  graph.Spec
	cases func(source) []*testCase
}{
	{graph.Linear{}, linearCases},
	{graph.LinearDX{}, linearDXCases},
	{graph.LinearDW{}, linearDWCases},
	{graph.ColumnSum{}, columnSumCases},
	{graph.RMSNorm{}, rmsNormCases},
	{graph.RMSNormGrad{}, rmsNormGradCases},
	{graph.RoPE{}, ropeCases},
	{graph.Attention{}, attentionCases},
	{graph.AttentionGrad{}, attentionGradCases},
	{graph.CachedAttention{}, cachedAttentionCases},
	{graph.Add{}, addCases},
	{graph.SwiGLU{}, swiGLUCases},
	{graph.SwiGLUGrad{}, swiGLUGradCases},
	{graph.Embedding{}, embeddingCases},
	{graph.EmbeddingGrad{}, embeddingGradCases},
	{graph.LinearCrossEntropy{}, crossEntropyCases},
	{graph.LinearCrossEntropyGrad{}, crossEntropyGradCases},
	{graph.WeightedSum{}, weightedSumCases},
	{graph.WeightedSumGrad{}, weightedSumGradCases},
	{graph.Accumulate{}, accumulateCases},
	{graph.GradNorm{}, gradNormCases},
	{graph.StepReport{}, stepReportCases},
	{graph.AdamW{}, adamWCases},
	{graph.Cast{}, castCases},
}

// Skipping returns Options.Skip for a test of some operators alone.
func Skipping(why string, but ...graph.Spec) map[string]string {
	skip := map[string]string{}
	for _, op := range operators {
		skip[graph.Kind(op.spec)] = why
	}
	for _, s := range but {
		delete(skip, graph.Kind(s))
	}
	return skip
}

// casesOf returns the cases of the i-th operator, ready to run.
func casesOf(i int, seed uint64) []*testCase {
	h := fnv.New64a()
	fmt.Fprint(h, graph.Kind(operators[i].spec))
	s := source{rand.New(rand.NewPCG(seed, h.Sum64()))}
	cases := operators[i].cases(s)
	for _, c := range cases {
		c.prepare(s)
	}
	return cases
}

// each runs f as a subtest for every case of every operator that is not skipped; with -short, for every fourth. Some forms of an
// operator are for devices that ask for them.
func each(t *testing.T, o Options, dev graph.Device, f func(t *testing.T, c *testCase)) {
	for i, op := range operators {
		if op.spec == graph.Spec(graph.Cast{}) && o.Storage == graph.F32 {
			continue // devices that store activations in fp32 never see one
		}
		t.Run(graph.Kind(op.spec), func(t *testing.T) {
			if why, skip := o.Skip[graph.Kind(op.spec)]; skip {
				t.Skip(why)
			}
			for j, c := range casesOf(i, o.Seed) {
				if testing.Short() && j%4 != 0 || !wanted(dev, c.spec) {
					continue
				}
				if o.Storage == graph.BF16 {
					if c = c.store(); c == nil {
						continue
					}
				}
				t.Run(c.name, func(t *testing.T) { f(t, c) })
			}
		})
	}
}

// wanted says whether a device asks for the form of an operator, where it is one that adds or that makes another's result again.
func wanted(dev graph.Device, op graph.Spec) bool {
	adder, adds := dev.(graph.Adder)
	remaker, remakes := dev.(graph.Remaker)
	return !(graph.Sums(op) && !(adds && adder.Adds(op)) || graph.Remakes(op) && !(remakes && remaker.Remakes(op)))
}

// Conformance tests every operator on a device; see the package comment for what is asked.
func Conformance(t *testing.T, dev graph.Device, o Options) {
	each(t, o, dev, func(t *testing.T, c *testCase) {
		_, together := o.Together[graph.Kind(c.spec)]
		if err := c.check(dev, together); err != nil {
			t.Errorf("%s, seed %d: %+v: %v", dev.Name(), o.Seed, c.spec, err)
		}
	})
	t.Run("transfers", func(t *testing.T) {
		if err := transfers(dev); err != nil {
			t.Errorf("%s: %v", dev.Name(), err)
		}
	})
	if _, skip := o.Skip[graph.Kind(graph.CachedAttention{})]; !skip {
		t.Run("a prompt in pieces", func(t *testing.T) {
			for _, c := range casesOf(indexOf(graph.CachedAttention{}), o.Seed) {
				if err := pieces(dev, c); err != nil {
					t.Errorf("%s, seed %d: %s: %v", dev.Name(), o.Seed, c.name, err)
				}
			}
		})
	}
}

// Same tests that every operator gives the same bits on all devices: one device with different numbers of threads.
func Same(t *testing.T, o Options, devs ...graph.Device) {
	each(t, o, devs[0], func(t *testing.T, c *testCase) {
		if err := c.same(devs); err != nil {
			t.Errorf("seed %d: %+v: %v", o.Seed, c.spec, err)
		}
	})
}

func (c *testCase) same(devs []graph.Device) error {
	var first []tensor
	for d, dev := range devs {
		k, err := c.kernel(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", dev.Name(), err)
		}
		got, err := c.run(dev, k)
		if err != nil {
			return fmt.Errorf("%s: %w", dev.Name(), err)
		}
		if err := c.overwrites(dev, k, got, false); err != nil {
			return fmt.Errorf("%s: %w", dev.Name(), err)
		}
		if d == 0 {
			first = got
			continue
		}
		for r := range got {
			if e := differ(first[r], got[r]); e >= 0 {
				return fmt.Errorf("result %d %v: element %d is %v on %s and %v on %s",
					r, got[r].desc(), e, first[r].at(e), devs[0].Name(), got[r].at(e), dev.Name())
			}
		}
	}
	return nil
}

// transfers moves bytes to a device and back: whole regions, tensors inside of a region, and copies that are read late.
func transfers(dev graph.Device) error {
	m, err := dev.Alloc("transfers", 4096)
	if err != nil {
		return err
	}
	defer dev.Free(m)
	if m.Bytes != 4096 || m.Label != "transfers" {
		return fmt.Errorf("memory of 4096 bytes for %q says it is %d bytes for %q", "transfers", m.Bytes, m.Label)
	}
	whole := m.At(0, graph.Of(graph.I32, 1024))
	bytes := func(f func(i int) byte, n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = f(i)
		}
		return b
	}
	first, second := bytes(func(i int) byte { return byte(i * 7) }, 4096), bytes(func(i int) byte { return byte(i * 11) }, 4096)
	if err := dev.Upload(whole, first); err != nil {
		return err
	}
	late := make([]byte, 4096)
	pending, err := dev.DownloadLater(late, whole)
	if err != nil {
		return err
	}
	if err := dev.Upload(whole, second); err != nil {
		return err
	}
	if err := pending.Wait(); err != nil {
		return err
	}
	if string(late) != string(first) {
		return fmt.Errorf("DownloadLater does not give the tensor as it was when it was called")
	}
	for _, d := range []graph.Desc{graph.Of(graph.F32), graph.Of(graph.I32, 3), graph.Of(graph.BF16, 5, 7), graph.Of(graph.F32, 9, 11)} {
		part := m.At(256, d)
		src := bytes(func(i int) byte { return byte(i*13 + 1) }, d.Bytes())
		if err := dev.Upload(part, src); err != nil {
			return err
		}
		copy(second[256:], src)
		got := make([]byte, len(src))
		if err := dev.Download(got, part); err != nil {
			return err
		}
		if string(got) != string(src) {
			return fmt.Errorf("%v comes back changed", d)
		}
		all := make([]byte, 4096)
		if err := dev.Download(all, whole); err != nil {
			return err
		}
		if string(all) != string(second) {
			return fmt.Errorf("uploading %v changed memory beside it", d)
		}
		if dev.Upload(part, append(src, 0)) == nil || dev.Download(make([]byte, len(src)-1), part) == nil {
			return fmt.Errorf("%v: a transfer of another size is not refused", d)
		}
	}
	return nil
}

func indexOf(s graph.Spec) int {
	for i, op := range operators {
		if graph.Kind(op.spec) == graph.Kind(s) {
			return i
		}
	}
	panic("graphtest: " + graph.Kind(s) + " is not among the operators")
}
