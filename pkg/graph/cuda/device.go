//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"gorgonia.org/cu"

	"meap/pkg/graph"
)

// Options of a Device.
type Options struct {
	// Warn receives what people should know once: that something falls back to a slower way. nil drops it.
	Warn func(text string)
	// Exact compiles the kernels for this very GPU with NVRTC instead of leaving that to the driver.
	Exact bool
}

// Properties of a GPU.
type Properties struct {
	Name       string
	Major      int // compute capability
	Minor      int
	Processors int   // streaming multiprocessors
	Memory     int64 // bytes
	Shared     int   // bytes of shared memory that a block may ask for
}

// Device runs graphs on a GPU. It is used by one goroutine at a time, on any thread.
type Device struct {
	Properties
	ordinal int
	options Options
	device  cu.Device
	ctx     handle

	compute, copies handle      // streams: of the kernels, of uploads
	streams         []cu.Stream // the same, to be destroyed
	modules         []cu.Module
	kernels         map[string]*function
	hopper          bool // the kernels for compute capability 9.0 are there
	lt              *C.meap_lt
	ltPath          string
	plans           map[product]*C.meap_lt_plan
	workspace       uintptr

	held                 map[uintptr]allocation
	heldBytes, peakBytes int
	scratch              uintptr
	scratchBytes         int
	generation           int // of scratch, see reserve

	stages  []*stage
	stageAt int
	lates   []*late // all
	idle    []*late // those that can be used

	capturing bool
	warned    map[string]bool
	lost      *LostError
	retained  bool
}

// oldest compute capability that the kernels are compiled for.
const oldestMajor = 8

// Open starts the GPU with the given number, as CUDA counts those that CUDA_VISIBLE_DEVICES leaves. Close it when done.
func Open(ordinal int, o Options) (*Device, error) {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	_, version, err := openDriver()
	if err != nil {
		return nil, err
	}
	d := &Device{ordinal: ordinal, options: o, kernels: map[string]*function{}, plans: map[product]*C.meap_lt_plan{},
		held: map[uintptr]allocation{}, warned: map[string]bool{}}
	if err := d.open(version); err != nil {
		d.Close()
		return nil, fmt.Errorf("cuda:%d: %w", ordinal, err)
	}
	return d, nil
}

func (d *Device) open(version int) error {
	if version < oldestToolkit*1000 {
		return fmt.Errorf("the driver is made for CUDA %s; meap needs %d or later: install a newer driver", dotted(version), oldestToolkit)
	}
	n, err := cu.NumDevices()
	if err != nil {
		return fmt.Errorf("count the GPUs: %w", fromCU(err))
	}
	if d.ordinal >= n {
		return fmt.Errorf("this machine has %d GPUs, counted from 0; `meap doctor` lists them", n)
	}
	if d.device, err = cu.GetDevice(d.ordinal); err != nil {
		return fromCU(err)
	}
	if d.Properties, err = properties(d.device); err != nil {
		return fmt.Errorf("read the properties of the GPU: %w", err)
	}
	if d.Major < oldestMajor {
		return fmt.Errorf("%s has compute capability %d.%d; the kernels need %d.0 (Ampere) or later: use --device cpu", d.Properties.Name, d.Major, d.Minor, oldestMajor)
	}
	context, err := d.device.RetainPrimaryCtx()
	if err != nil {
		return fmt.Errorf("make a context: %w; is the GPU in exclusive use by another process? see nvidia-smi", fromCU(err))
	}
	d.retained, d.ctx = true, contextHandle(context)
	if err := d.do(d.openParts); err != nil {
		return err
	}
	lib, lt, err := openLt(version)
	if err != nil {
		return err
	}
	d.ltPath = lib.path
	if st := C.meap_lt_create(lt, d.ctx); st != 0 {
		return fmt.Errorf("start %s: %w", lib.path, ltError(st))
	}
	d.lt = lt
	if d.workspace, err = d.take(ownLabel+"workspace of cuBLASLt", workspaceBytes); err != nil {
		return err
	}
	if d.options.Exact {
		if err := d.compileExactly(version); err != nil {
			d.warnOnce(fmt.Errorf("the kernels of the program's PTX are used: %w", err))
		}
	}
	return nil
}

// openParts makes what belongs to the context; it runs with that being current.
func (d *Device) openParts() error {
	for _, s := range []*handle{&d.compute, &d.copies} {
		stream, err := cu.MakeStream(cu.NonBlocking)
		if err != nil {
			return fmt.Errorf("make a stream: %w", fromCU(err))
		}
		d.streams = append(d.streams, stream)
		*s = streamHandle(stream)
	}
	if err := d.loadKernels(); err != nil {
		return err
	}
	return d.openStages()
}

// do calls f on a thread on which the context is current, for functions of gorgonia.org/cu.
func (d *Device) do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := result(C.meap_current(d.ctx)); err != nil {
		return d.check(err, "making the context current")
	}
	return f()
}

func properties(dev cu.Device) (p Properties, err error) {
	if p.Name, err = dev.Name(); err != nil {
		return p, fromCU(err)
	}
	p.Name = strings.TrimRight(p.Name, "\x00")
	if p.Memory, err = dev.TotalMem(); err != nil {
		return p, fromCU(err)
	}
	for _, a := range []struct {
		to   *int
		from cu.DeviceAttribute
	}{
		{&p.Major, cu.ComputeCapabilityMajor}, {&p.Minor, cu.ComputeCapabilityMinor}, {&p.Processors, cu.MultiprocessorCount},
		{&p.Shared, 97}, // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, which gorgonia.org/cu lacks
	} {
		if *a.to, err = dev.Attribute(a.from); err != nil {
			return p, fromCU(err)
		}
	}
	return p, nil
}

// dotted writes a version as CUDA counts them: 12040 is 12.4.
func dotted(version int) string { return fmt.Sprintf("%d.%d", version/1000, version%1000/10) }

// Name implements graph.Device.
func (d *Device) Name() string {
	return fmt.Sprintf("cuda:%d (%s, %.0f GiB)", d.ordinal, d.Properties.Name, float64(d.Memory)/(1<<30))
}

// Adds implements graph.Adder.
func (d *Device) Adds(op graph.Spec) bool { return Planner{}.Adds(op) }

// Overwrites implements graph.Overwriter.
func (d *Device) Overwrites(op graph.Spec, operand int) bool {
	return Planner{}.Overwrites(op, operand)
}

// Remakes implements graph.Remaker.
func (d *Device) Remakes(op graph.Spec) bool { return Planner{}.Remakes(op) }

// Storage implements graph.Storer.
func (d *Device) Storage(p graph.Precision) graph.Dtype {
	return p.Operands()
}

// PeakFLOPS returns the most that this GPU can do in matrix products of a precision, in floating-point operations per second, and
// whether that is known.
func (d *Device) PeakFLOPS(p graph.Precision) (float64, bool) {
	return PeakFLOPS(d.Properties.Name, p == graph.BF16Operands)
}

// Close frees everything that the device holds, that of callers included. The device cannot be used after it.
func (d *Device) Close() {
	if d.ctx != 0 && d.lost == nil {
		C.meap_stream_sync(d.ctx, d.compute)
		C.meap_stream_sync(d.ctx, d.copies)
	}
	for _, plan := range d.plans {
		if plan != nil {
			C.meap_lt_plan_free(d.lt, plan)
		}
	}
	if d.lt != nil {
		C.meap_lt_destroy(d.lt)
	}
	if d.retained {
		_ = d.do(d.closeParts) // nothing can be done about errors here
		_ = d.device.ReleasePrimaryCtx()
	}
	*d = Device{Properties: d.Properties, ordinal: d.ordinal, lost: &LostError{Device: d.Name(), While: "being used", Err: &Error{Text: "it has been closed"}}}
}

func (d *Device) closeParts() error {
	var errs []error
	for _, s := range d.stages {
		if s.host != nil {
			errs = append(errs, result(C.meap_pinned_free(d.ctx, s.host)))
		}
		for _, e := range []*cu.Event{&s.copied, &s.done} {
			if *e != (cu.Event{}) {
				errs = append(errs, cu.DestroyEvent(e))
			}
		}
	}
	for _, l := range d.lates {
		errs = append(errs, result(C.meap_pinned_free(d.ctx, l.host)))
		if l.event != (cu.Event{}) {
			errs = append(errs, cu.DestroyEvent(&l.event))
		}
	}
	for p := range d.held {
		errs = append(errs, result(C.meap_free(d.ctx, C.uint64_t(p))))
	}
	for _, m := range d.modules {
		errs = append(errs, m.Unload())
	}
	for i := range d.streams {
		errs = append(errs, d.streams[i].Destroy())
	}
	return errors.Join(errs...)
}

// ExactVariable is the environment variable that, set to 1, makes Options.Exact the default of the programs.
const ExactVariable = "MEAP_CUDA_NVRTC"

// DefaultOptions are those of the programs: warnings go where the caller says, and the environment may ask for NVRTC.
func DefaultOptions(warn func(string)) Options {
	return Options{Warn: warn, Exact: os.Getenv(ExactVariable) == "1"}
}
