//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"meap/pkg/graph"
)

// stage is a piece of pinned host memory and one of device memory, through which an upload goes: to the device on a stream of its
// own, so beside running kernels, and then into its tensor in the order of the kernels. Downloads use the host's half.
type stage struct {
	host   unsafe.Pointer
	device uintptr
	copied cu.Event // on the copying stream
	done   cu.Event // on the kernels' stream: the stage is free again
	used   bool
}

func (d *Device) openStages() error {
	for range stageCount {
		s := &stage{}
		d.stages = append(d.stages, s)
		var err error
		if s.host, err = d.pinned(stageBytes); err != nil {
			return err
		}
		if s.device, err = d.take(ownLabel+"staging", stageBytes); err != nil {
			return err
		}
		if s.copied, err = cu.MakeEvent(cu.DisableTiming); err == nil {
			s.done, err = cu.MakeEvent(cu.DisableTiming)
		}
		if err != nil {
			return d.check(fromCU(err), "making events")
		}
	}
	return nil
}

// pinned takes host memory that the GPU can read and write while the host goes on.
func (d *Device) pinned(bytes int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	err := result(C.meap_pinned_alloc(d.ctx, &p, C.size_t(bytes)))
	return p, d.check(err, "taking %d bytes of pinned host memory (see ulimit -l)", bytes)
}

// next returns a stage, after what it was used for last is done.
func (d *Device) next() (*stage, error) {
	s := d.stages[d.stageAt]
	d.stageAt = (d.stageAt + 1) % len(d.stages)
	if s.used {
		s.used = false
		if err := result(C.meap_event_sync(d.ctx, eventHandle(s.done))); err != nil {
			return nil, d.check(err, "waiting for a copy")
		}
	}
	return s, nil
}

// Upload implements graph.Device. src may be reused at once; the tensor changes after all work queued before.
func (d *Device) Upload(dst graph.Buffer, src []byte) error {
	if len(src) != dst.Bytes() {
		return fmt.Errorf("upload of %d bytes into %v (%d bytes)", len(src), dst.Desc, dst.Bytes())
	}
	if d.lost != nil {
		return d.lost
	}
	for at := 0; at < len(src); at += stageBytes {
		piece := src[at:min(at+stageBytes, len(src))]
		s, err := d.next()
		if err != nil {
			return err
		}
		copy(unsafe.Slice((*byte)(s.host), len(piece)), piece)
		n := C.size_t(len(piece))
		err = firstOf(
			func() C.int { return C.meap_to_device(d.ctx, C.uint64_t(s.device), s.host, n, d.copies) },
			func() C.int { return C.meap_record(d.ctx, eventHandle(s.copied), d.copies) },
			func() C.int { return C.meap_wait(d.ctx, d.compute, eventHandle(s.copied)) },
			func() C.int {
				return C.meap_on_device(d.ctx, C.uint64_t(dst.Addr)+C.uint64_t(at), C.uint64_t(s.device), n, d.compute)
			},
			func() C.int { return C.meap_record(d.ctx, eventHandle(s.done), d.compute) },
		)
		if err != nil {
			return d.check(err, "copying %v to the GPU", dst.Desc)
		}
		s.used = true
	}
	return nil
}

// firstOf calls the functions in order and returns the first error.
func firstOf(calls ...func() C.int) error {
	for _, call := range calls {
		if r := call(); r != 0 {
			return result(r)
		}
	}
	return nil
}

// Download implements graph.Device.
func (d *Device) Download(dst []byte, src graph.Buffer) error {
	if len(dst) != src.Bytes() {
		return fmt.Errorf("download of %v (%d bytes) into %d bytes", src.Desc, src.Bytes(), len(dst))
	}
	if d.lost != nil {
		return d.lost
	}
	type piece struct {
		s  *stage
		to []byte
	}
	var flying []piece // pieces on their way, at most as many as there are stages
	land := func() error {
		p := flying[0]
		flying = flying[1:]
		if err := result(C.meap_event_sync(d.ctx, eventHandle(p.s.done))); err != nil {
			return d.check(err, "copying %v from the GPU", src.Desc)
		}
		p.s.used = false
		copy(p.to, unsafe.Slice((*byte)(p.s.host), len(p.to)))
		return nil
	}
	for at := 0; at < len(dst); at += stageBytes {
		if len(flying) == stageCount/2 {
			if err := land(); err != nil {
				return err
			}
		}
		p := piece{to: dst[at:min(at+stageBytes, len(dst))]}
		var err error
		if p.s, err = d.next(); err != nil {
			return err
		}
		err = firstOf(
			func() C.int {
				return C.meap_to_host(d.ctx, p.s.host, C.uint64_t(src.Addr)+C.uint64_t(at), C.size_t(len(p.to)), d.compute)
			},
			func() C.int { return C.meap_record(d.ctx, eventHandle(p.s.done), d.compute) },
		)
		if err != nil {
			return d.check(err, "copying %v from the GPU", src.Desc)
		}
		p.s.used = true
		flying = append(flying, p)
	}
	for len(flying) > 0 {
		if err := land(); err != nil {
			return err
		}
	}
	return nil
}

// late is a download under way: graph.Pending. Its memory is used again once it has been waited for.
type late struct {
	d     *Device
	dst   []byte
	host  unsafe.Pointer
	size  int // of host
	event cu.Event
	what  graph.Desc
}

// DownloadLater implements graph.Device.
func (d *Device) DownloadLater(dst []byte, src graph.Buffer) (graph.Pending, error) {
	if len(dst) != src.Bytes() {
		return nil, fmt.Errorf("download of %v (%d bytes) into %d bytes", src.Desc, src.Bytes(), len(dst))
	}
	if d.lost != nil {
		return nil, d.lost
	}
	l, err := d.newLate(len(dst))
	if err != nil {
		return nil, err
	}
	l.dst, l.what = dst, src.Desc
	err = firstOf(
		func() C.int {
			return C.meap_to_host(d.ctx, l.host, C.uint64_t(src.Addr), C.size_t(len(dst)), d.compute)
		},
		func() C.int { return C.meap_record(d.ctx, eventHandle(l.event), d.compute) },
	)
	if err != nil {
		return nil, d.check(err, "copying %v from the GPU", src.Desc)
	}
	return l, nil
}

// newLate finds or makes memory for a late download.
func (d *Device) newLate(bytes int) (*late, error) {
	for i, l := range d.idle {
		if l.size >= bytes {
			d.idle = append(d.idle[:i], d.idle[i+1:]...)
			return l, nil
		}
	}
	l := &late{d: d, size: max(4096, bytes)}
	var err error
	if l.host, err = d.pinned(l.size); err != nil {
		return nil, err
	}
	d.lates = append(d.lates, l)
	err = d.do(func() (err error) {
		l.event, err = cu.MakeEvent(cu.DisableTiming)
		return err
	})
	return l, d.check(err, "making an event")
}

// Wait implements graph.Pending.
func (l *late) Wait() error {
	if l.d.lost != nil {
		return l.d.lost
	}
	if err := result(C.meap_event_sync(l.d.ctx, eventHandle(l.event))); err != nil {
		return l.d.check(err, "copying %v from the GPU", l.what)
	}
	copy(l.dst, unsafe.Slice((*byte)(l.host), len(l.dst)))
	l.dst = nil
	l.d.idle = append(l.d.idle, l)
	return nil
}

// Sync implements graph.Device.
func (d *Device) Sync() error {
	if d.lost != nil {
		return d.lost
	}
	return d.check(result(C.meap_stream_sync(d.ctx, d.compute)), "running what was queued")
}

// Async implements graph.Device.
func (d *Device) Async() bool { return true }
