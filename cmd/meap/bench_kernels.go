package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
)

// kernelCase is an operator on operands of a training step's or a decoding step's sizes.
type kernelCase struct {
	name, dtype string
	spec        graph.Spec
	in          []graph.Desc
	limit       int     // of the elements of int32 operands: ids and positions are below it
	flops       float64 // what products it consists of; 0: limited by memory
	bytes       float64 // what it reads and writes; 0: every operand and result once
}

// kernelResult is one line of the benchmark. The share is that of the processor's peak: of multiply-adds where gflops is set,
// else of a streaming copy.
type kernelResult struct {
	Kernel     string  `json:"kernel"`
	Shape      string  `json:"shape,omitempty"`
	DType      string  `json:"dtype"`
	MS         float64 `json:"ms,omitempty"`
	MeanMS     float64 `json:"mean_ms,omitempty"`
	GFLOPS     float64 `json:"gflops,omitempty"`
	GBPerS     float64 `json:"gb_per_s,omitempty"`
	PeakGFLOPS float64 `json:"peak_gflops,omitempty"`
	PeakGBPerS float64 `json:"peak_gb_per_s,omitempty"`
	Share      float64 `json:"share,omitempty"`
}

func newBenchKernels(o *options) *cobra.Command {
	var duration time.Duration
	var only string
	c := &cobra.Command{
		Use:   "kernels",
		Short: "Time each CPU kernel beside this machine's measured peaks",
		Long: `Time the CPU kernels on the sizes of meap-0.1b. Each line is the best of many calls (--json has their mean, too),
and its share of what the machine does at most: products of multiply-adds with all operands in registers, the
rest of a streaming copy (bytes read and written). Both peaks are measured first. Work that fits into the caches
may exceed the copy's.`,
		Example: `  meap bench kernels
  meap bench kernels --cpu-isa avx512 --threads 1 --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if duration <= 0 {
				return usagef("--time must be above 0")
			}
			match, err := regexp.Compile(only)
			if err != nil {
				return usagef("--only: %v", err)
			}
			dev, err := cpu.NewDevice(o.threads, o.cpuISA)
			if err != nil {
				return err
			}
			defer dev.Close()
			report, end := kernelReport(c, o.json, dev)
			if err := benchKernels(dev, duration, match, report); err != nil {
				return err
			}
			return end()
		},
	}
	c.Flags().DurationVar(&duration, "time", 200*time.Millisecond, "how long each kernel is repeated")
	c.Flags().StringVar(&only, "only", "", `time only what this regular expression matches in "KERNEL SHAPE DTYPE"`)
	return c
}

// kernelReport returns what writes a line, and what ends the table.
func kernelReport(c *cobra.Command, json bool, dev *cpu.Device) (line func(kernelResult) error, end func() error) {
	out := c.OutOrStdout()
	if json {
		return func(r kernelResult) error { return printJSON(out, r) }, func() error { return nil }
	}
	fmt.Fprintln(c.ErrOrStderr(), dev.Name())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "kernel\tshape\tdtype\tms\tspeed\tshare of the peak")
	return func(r kernelResult) error {
		speed, share := fmt.Sprintf("%.1f GFLOP/s", r.GFLOPS), fmt.Sprintf("%.0f %%", 100*r.Share)
		if r.GFLOPS == 0 {
			speed = fmt.Sprintf("%.1f GB/s", r.GBPerS)
		}
		if r.Share == 0 {
			share = ""
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%.3f\t%s\t%s\n", r.Kernel, r.Shape, r.DType, r.MS, speed, share)
		return err
	}, w.Flush
}

func benchKernels(dev *cpu.Device, duration time.Duration, only *regexp.Regexp, report func(kernelResult) error) error {
	flops := map[string]float64{"fp32": dev.Kernels().PeakFLOPS(false), "bf16": dev.Kernels().PeakFLOPS(true)}
	for _, dtype := range []string{"fp32", "bf16"} {
		if err := report(kernelResult{Kernel: "peak of multiply-adds", DType: dtype, GFLOPS: flops[dtype] / 1e9}); err != nil {
			return err
		}
	}
	cases := slices.DeleteFunc(kernelCases(), func(k kernelCase) bool {
		return !only.MatchString(k.name + " " + k.shape() + " " + k.dtype)
	})
	bandwidth := 0.0
	if slices.ContainsFunc(cases, func(k kernelCase) bool { return k.flops == 0 }) {
		bandwidth = dev.Kernels().PeakBandwidth()
		if err := report(kernelResult{Kernel: "peak of a copy", DType: "fp32", GBPerS: bandwidth / 1e9}); err != nil {
			return err
		}
	}
	for _, k := range cases {
		seconds, mean, bytes, err := k.time(dev, duration)
		if err != nil {
			return fmt.Errorf("timing %s: %w", k.name, err)
		}
		r := kernelResult{Kernel: k.name, Shape: k.shape(), DType: k.dtype, MS: seconds * 1e3, MeanMS: mean * 1e3}
		if k.flops > 0 {
			r.GFLOPS, r.PeakGFLOPS, r.Share = k.flops/seconds/1e9, flops[k.dtype]/1e9, k.flops/seconds/flops[k.dtype]
		} else {
			r.GBPerS, r.PeakGBPerS, r.Share = bytes/seconds/1e9, bandwidth/1e9, bytes/seconds/bandwidth
		}
		if err := report(r); err != nil {
			return err
		}
	}
	return nil
}

// kernelCases are the operators of meap-0.1b (width 768, 2048 between, 12 heads of 64, vocabulary 32064) on 2048 tokens.
func kernelCases() []kernelCase {
	const n, dim, hidden, vocab, heads, headDim = 2048, 768, 2048, 32064, 12, 64
	f := func(shape ...int) graph.Desc { return graph.Of(graph.F32, shape...) }
	ids := func(shape ...int) graph.Desc { return graph.Of(graph.I32, shape...) }
	var cases []kernelCase
	for _, p := range []graph.Precision{graph.FP32, graph.BF16Operands} {
		dtype := map[graph.Precision]string{graph.FP32: "fp32", graph.BF16Operands: "bf16"}[p]
		add := func(name string, flops float64, spec graph.Spec, in ...graph.Desc) {
			cases = append(cases, kernelCase{name: name, dtype: dtype, spec: spec, in: in, flops: flops, limit: 1})
		}
		for _, s := range [][3]int{{n, dim, dim}, {n, hidden, dim}, {n, dim, hidden}, {n, vocab, dim}} {
			rows, out, in := s[0], s[1], s[2]
			flops := 2 * float64(rows) * float64(out) * float64(in)
			add("linear", flops, graph.Linear{Precision: p}, f(rows, in), f(out, in))
			add("linear dx", flops, graph.LinearDX{Precision: p}, f(rows, out), f(out, in))
			add("linear dw", flops, graph.LinearDW{Precision: p}, f(rows, out), f(rows, in))
		}
		for _, seq := range []int{512, n} {
			a := graph.Attention{Seq: seq, Heads: heads, KVHeads: heads, HeadDim: headDim, Precision: p}
			flops := 4 * float64(n) * float64(heads*headDim) * float64(seq+1) / 2 // two products of the causal half
			x := f(n, heads*headDim)
			add("attention", flops, a, x, x, x, ids(n))
			add("attention grad", 2.5*flops, graph.AttentionGrad{Attention: a}, x, x, x, x, f(n*heads), x, ids(n))
		}
		add("cross-entropy grad", 3*2*float64(n)*dim*vocab, graph.LinearCrossEntropyGrad{Precision: p}, f(n, dim), f(vocab, dim), ids(n), f(n))
	}
	memory := func(name string, limit int, bytes float64, spec graph.Spec, in ...graph.Desc) {
		cases = append(cases, kernelCase{name: name, dtype: "fp32", spec: spec, in: in, limit: limit, bytes: bytes})
	}
	x, h, w := f(n, dim), f(n, hidden), f(vocab, dim)
	table := f(n, headDim/2)
	memory("linear, one token", 1, 0, graph.Linear{}, f(1, dim), f(vocab, dim))
	memory("add", 1, 0, graph.Add{}, x, x)
	memory("rmsnorm", 1, 0, graph.RMSNorm{Eps: 1e-5}, x, f(dim))
	memory("rmsnorm grad", 1, 0, graph.RMSNormGrad{}, x, f(dim), f(n), x)
	memory("rope", n, 0, graph.RoPE{}, x, table, table, ids(n))
	memory("swiglu", 1, 0, graph.SwiGLU{}, h, h)
	memory("swiglu grad", 1, 0, graph.SwiGLUGrad{}, h, h, h)
	memory("embedding", vocab, 2*4*n*dim, graph.Embedding{}, f(vocab, dim), ids(n))
	memory("embedding grad, added", vocab, 3*4*n*dim, graph.EmbeddingGrad{Vocab: vocab, Acc: true}, x, ids(n))
	memory("gradient norm", 1, 0, graph.GradNorm{}, w)
	memory("adamw", 1, 8*4*vocab*dim, graph.AdamW{Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0.1}, w, w, w, w, f(3), f(3)) // g is read, then cleared
	return cases
}

func (k kernelCase) shape() string {
	s := ""
	for i, d := range k.in {
		if i > 0 {
			s += " "
		}
		s += fmt.Sprint(d.Shape)
	}
	return s
}

// time runs the kernel again and again on random operands, and returns the shortest and the mean time and the bytes of a call.
func (k kernelCase) time(dev graph.Device, duration time.Duration) (seconds, mean, bytes float64, err error) {
	results := k.spec.Infer(k.in)
	random := rand.New(rand.NewPCG(1, 2))
	buffers := make([]graph.Buffer, 0, len(k.in)+len(results))
	for i, d := range append(append([]graph.Desc(nil), k.in...), results...) {
		m, err := dev.Alloc(k.name, d.Bytes())
		if err != nil {
			return 0, 0, 0, err
		}
		defer dev.Free(m)
		b := m.At(0, d)
		bytes += float64(d.Bytes())
		if d.Dtype == graph.I32 {
			for j, v := 0, b.I32(); j < len(v); j++ {
				v[j] = int32(random.IntN(k.limit))
			}
		} else if i < len(k.in) && len(d.Shape) > 0 && d.Elems() > 3 { // the few numbers of a step's report stay 0
			for j, v := 0, b.F32(); j < len(v); j++ {
				v[j] = random.Float32() / 8
			}
		}
		buffers = append(buffers, b)
	}
	if t, ok := k.spec.(interface{ Target() int }); ok {
		buffers[len(k.in)] = buffers[t.Target()]
	}
	if k.bytes > 0 {
		bytes = k.bytes
	}
	run, err := dev.Kernel(k.spec, k.in, results)
	if err != nil {
		return 0, 0, 0, err
	}
	seconds = math.Inf(1)
	begin, calls := time.Now(), 0
	for ; calls < 3 || time.Since(begin) < duration; calls++ {
		start := time.Now()
		if err := run(buffers[:len(k.in)], buffers[len(k.in):]); err != nil {
			return 0, 0, 0, err
		}
		seconds = min(seconds, time.Since(start).Seconds())
	}
	return seconds, time.Since(begin).Seconds() / float64(calls), bytes, nil
}
