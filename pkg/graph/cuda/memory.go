//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"meap/pkg/graph"
)

// allocation is memory that the device holds.
type allocation struct {
	label string
	bytes int
}

// take allocates device memory without clearing it.
func (d *Device) take(label string, bytes int) (uintptr, error) {
	if d.lost != nil {
		return 0, d.lost
	}
	var p C.uint64_t
	err := result(C.meap_alloc(d.ctx, &p, C.size_t(max(bytes, 1)))) // an empty tensor has an address too
	if e := (*Error)(nil); errors.As(err, &e) && e.Code == errorOutOfMemory {
		return 0, d.outOfMemory(label, bytes)
	}
	if err != nil {
		return 0, d.check(err, "allocating %d bytes for %s", bytes, label)
	}
	d.held[uintptr(p)] = allocation{label, bytes}
	d.heldBytes += bytes
	d.peakBytes = max(d.peakBytes, d.heldBytes)
	return uintptr(p), nil
}

// give frees what take gave, after all work queued before.
func (d *Device) give(p uintptr) {
	a, ok := d.held[p]
	if !ok {
		panic(fmt.Sprintf("cuda: memory at %#x is freed twice, or is another device's", p))
	}
	delete(d.held, p)
	d.heldBytes -= a.bytes
	if d.lost == nil {
		C.meap_stream_sync(d.ctx, d.compute)
		C.meap_free(d.ctx, C.uint64_t(p))
	}
}

// Alloc implements graph.Device. The memory is zeroed and its address a multiple of 256. An error about too little of it is an
// *OutOfMemoryError.
func (d *Device) Alloc(label string, bytes int) (graph.Memory, error) {
	p, err := d.take(label, bytes)
	if err != nil {
		return graph.Memory{}, err
	}
	m := graph.Memory{Label: label, Addr: p, Bytes: bytes}
	if bytes > 0 {
		if err := result(C.meap_zero(d.ctx, C.uint64_t(p), C.size_t(bytes), d.compute)); err != nil {
			d.give(p)
			return graph.Memory{}, d.check(err, "clearing %s", label)
		}
	}
	return m, nil
}

// Free implements graph.Device.
func (d *Device) Free(m graph.Memory) { d.give(m.Addr) }

// HeldBytes returns the memory that was allocated (Alloc) and not freed. What the device needs for itself is not in it.
func (d *Device) HeldBytes() int64 {
	n := 0
	for _, a := range d.held {
		if !strings.HasPrefix(a.label, ownLabel) {
			n += a.bytes
		}
	}
	return int64(n)
}

// PeakBytes returns the most memory that this device has held at a time, its own included.
func (d *Device) PeakBytes() int64 { return int64(d.peakBytes) }

// OutOfMemoryError says that a tensor does not fit into the GPU's memory.
type OutOfMemoryError struct {
	Device      string
	Label       string // the tensor
	Need        int    // its bytes
	Free, Total int    // of the GPU
	Held        []Holding
}

// Holding is a kind of memory that the program holds.
type Holding struct {
	Label string
	Bytes int
}

func (d *Device) outOfMemory(label string, bytes int) error {
	e := &OutOfMemoryError{Device: d.Name(), Label: label, Need: bytes}
	var free, total C.size_t
	if C.meap_mem_info(d.ctx, &free, &total) == 0 {
		e.Free, e.Total = int(free), int(total)
	}
	kinds := map[string]int{}
	for _, a := range d.held {
		kinds[kindOf(a.label)] += a.bytes
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		e.Held = append(e.Held, Holding{k, kinds[k]})
	}
	slices.SortStableFunc(e.Held, func(a, b Holding) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return e
}

// kindOf groups the labels of a training run's tensors.
func kindOf(label string) string {
	for _, k := range []struct{ prefix, kind string }{
		{"grad.", "gradients"}, {"m.", "moments"}, {"v.", "moments"}, {"cache.", "caches"}, {"rope.", "RoPE tables"}, {ownLabel, "the device itself"},
	} {
		if strings.HasPrefix(label, k.prefix) {
			return k.kind
		}
	}
	if strings.HasSuffix(label, ".weight") || strings.HasSuffix(label, ".bias") {
		return "weights"
	}
	return label
}

// ownLabel begins the labels of what a device needs for itself.
const ownLabel = "cuda "

func (e *OutOfMemoryError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s needs %s, and %s of %s are free", e.Device, e.Label, gib(e.Need), gib(e.Free), gib(e.Total))
	sum := 0
	var parts []string
	for i, h := range e.Held {
		sum += h.Bytes
		if i < 5 {
			parts = append(parts, h.Label+" "+gib(h.Bytes))
		}
	}
	if sum > 0 {
		fmt.Fprintf(&b, "; this program holds %s (%s)", gib(sum), strings.Join(parts, ", "))
	}
	if other := e.Total - e.Free - sum; other > 2<<30 {
		fmt.Fprintf(&b, "; %s are taken by others, see nvidia-smi", gib(other))
	}
	switch {
	case e.Label == activations && e.Free > 0 && e.Free < e.Need:
		fmt.Fprintf(&b, ". What would fit: a trainer.micro_batch of at most %d %% of this one (raise trainer.accumulate to keep the step's rows), or "+
			"trainer.recompute=blocks, which keeps one tensor per layer; `meap plan` shows what takes the memory", 100*e.Free/e.Need)
	case e.Label == activations || strings.HasPrefix(e.Label, ownLabel):
		b.WriteString(". What would fit: a smaller trainer.micro_batch (raise trainer.accumulate to keep the step's rows), trainer.recompute=blocks, or a shorter trainer.seq")
	case strings.HasPrefix(e.Label, "cache."):
		b.WriteString(". What would fit: a shorter context or fewer sequences at a time")
	default:
		b.WriteString(". Weights, gradients and moments take 16 bytes per parameter whatever the batch: take a smaller model or a GPU with more memory; " +
			"`meap plan` shows what takes it")
	}
	return b.String()
}

// activations is the label of a program's arena; see graph.Program.
const activations = "activations"

func gib(bytes int) string {
	switch {
	case bytes < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	case bytes < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(bytes)/(1<<30))
}

// reserve makes the scratch memory that kernels share hold at least so many bytes. One kernel's work runs at a time, and each reads
// d.scratch when it is queued. Recordings made before the memory moved are no longer valid.
func (d *Device) reserve(what graph.Spec, bytes int) error {
	if bytes <= d.scratchBytes {
		return nil
	}
	if d.scratch != 0 {
		d.give(d.scratch)
		d.scratch, d.scratchBytes = 0, 0
	}
	d.generation++
	p, err := d.take(ownLabel+"scratch of "+graph.Kind(what), bytes)
	if err != nil {
		return err
	}
	d.scratch, d.scratchBytes = p, bytes
	return nil
}
