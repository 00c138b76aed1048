//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"bytes"
	"embed"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

// sources holds the kernels: CUDA C++, and the PTX that it was compiled to.
//
//go:embed csrc
var sources embed.FS

// function is a kernel on the device.
type function struct {
	name   string
	handle handle
	shared int // bytes of dynamic shared memory that it has been allowed
}

// handle is one of the driver's. It is no pointer that Go may look at: some are small numbers.
type handle = C.uintptr_t

// A cu.Function, a cu.Stream, a cu.Event and a cu.CUContext are structs of one unexported handle, which can only be read this way.
func functionHandle(f cu.Function) handle { return *(*handle)(unsafe.Pointer(&f)) }
func streamHandle(s cu.Stream) handle     { return *(*handle)(unsafe.Pointer(&s)) }
func eventHandle(e cu.Event) handle       { return *(*handle)(unsafe.Pointer(&e)) }
func contextHandle(c cu.CUContext) handle { return *(*handle)(unsafe.Pointer(&c)) }

const (
	_ = -(unsafe.Sizeof(cu.Function{}) ^ unsafe.Sizeof(uintptr(0)))
	_ = -(unsafe.Sizeof(cu.Stream{}) ^ unsafe.Sizeof(uintptr(0)))
	_ = -(unsafe.Sizeof(cu.Event{}) ^ unsafe.Sizeof(uintptr(0)))
	_ = -(unsafe.Sizeof(cu.CUContext{}) ^ unsafe.Sizeof(uintptr(0)))
)

// The modules in csrc.
const kernelsPTX, hopperPTX = "kernels.ptx", "hopper.ptx"

// loadKernels compiles the embedded PTX for this GPU, which the driver does and keeps, and finds every kernel in it. What only compute
// capability 9.0 has is a module of its own; where the driver is too old for it, the other kernels do all the work.
func (d *Device) loadKernels() error {
	if err := d.loadPTX(kernelsPTX); err != nil {
		return err
	}
	if d.Major == 9 && d.Minor == 0 {
		if err := d.loadPTX(hopperPTX); err != nil {
			d.warnOnce(fmt.Errorf("attention runs slower than it could: %w", err))
		} else {
			d.hopper = true
		}
	}
	for _, name := range kernelNames {
		if d.kernels[name] == nil && (d.hopper || !strings.HasSuffix(name, "_sm90")) {
			return fmt.Errorf("the kernel %s is in none of the modules", name)
		}
	}
	return nil
}

func (d *Device) loadPTX(name string) error {
	text, err := sources.ReadFile("csrc/" + name)
	if err != nil {
		return err
	}
	return d.loadModule(name, text)
}

// loadModule adds the kernels of a module, PTX or compiled code; a kernel that is there already is replaced.
func (d *Device) loadModule(name string, image []byte) error {
	log := &cu.JITErrorLogBuffer{Buffer: make([]byte, 8192)}
	module, err := cu.LoadDataEx(string(image), log)
	if err != nil {
		said := ""
		if n := bytes.IndexByte(log.Buffer, 0); n > 0 {
			said = ": " + strings.TrimSpace(string(log.Buffer[:n]))
		}
		return fmt.Errorf("load %s: %w%s; a newer driver may help", name, fromCU(err), said)
	}
	runtime.KeepAlive(log)
	d.modules = append(d.modules, module)
	for _, kernel := range kernelNames {
		// To ask for what a module lacks is an error that compute-sanitizer counts.
		if hopper := strings.HasSuffix(kernel, "_sm90"); name == hopperPTX && !hopper || name == kernelsPTX && hopper {
			continue
		}
		if f, err := module.Function("meap_" + kernel); err == nil {
			d.kernels[kernel] = &function{name: kernel, handle: functionHandle(f)}
		}
	}
	return nil
}

// grid is the number of blocks along each axis.
type grid struct{ x, y, z int }

// launch queues a kernel. args points to its arguments, a struct of args.go that holds no Go pointers. Nothing is queued for an
// empty grid.
func (d *Device) launch(name string, g grid, block, shared int, args unsafe.Pointer) error {
	if d.lost != nil {
		return d.lost
	}
	g.y, g.z = max(g.y, 1), max(g.z, 1)
	if g.x == 0 {
		return nil
	}
	f := d.kernels[name]
	if f == nil {
		return fmt.Errorf("there is no kernel %s", name)
	}
	const without = 48 << 10 // more must be asked for
	if shared > without && shared > f.shared {
		if err := result(C.meap_shared(d.ctx, f.handle, C.int(shared))); err != nil {
			return d.check(err, "reserving %d bytes of shared memory for the kernel %s, of which this GPU may have fewer", shared, name)
		}
		f.shared = shared
	}
	r := C.meap_launch(d.ctx, f.handle, C.uint(g.x), C.uint(g.y), C.uint(g.z), C.uint(block), C.uint(shared), d.compute, args)
	if r != 0 {
		return d.check(result(r), "queueing the kernel %s (grid %d, %d, %d, block %d, shared memory %d)", name, g.x, g.y, g.z, block, shared)
	}
	return nil
}

// elements is the grid of a kernel that works on n elements one by one, at most so many blocks that all of them run at once.
func (d *Device) elements(n int) grid {
	return grid{x: min(ceilDiv(n, 2048), 16*d.Properties.Processors)}
}
