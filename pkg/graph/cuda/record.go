//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"fmt"

	"meap/pkg/graph"
)

// recording is a CUDA graph of a program's kernels: graph.Recording.
type recording struct {
	d          *Device
	exec       handle
	generation int
}

// Record implements graph.Recorder by capturing the kernels' stream.
func (d *Device) Record(run func() error) (graph.Recording, error) {
	if d.lost != nil {
		return nil, d.lost
	}
	r, err := d.capture(run)
	if err != nil {
		err = fmt.Errorf("kernels are queued one by one, which is slower, because they cannot be recorded as a CUDA graph: %w", err)
		d.warnOnce(err)
		return nil, err
	}
	return r, nil
}

func (d *Device) capture(run func() error) (*recording, error) {
	if err := result(C.meap_capture_begin(d.ctx, d.compute)); err != nil {
		return nil, d.check(err, "beginning to record")
	}
	d.capturing = true
	err := run()
	d.capturing = false
	r := &recording{d: d, generation: d.generation}
	if end := result(C.meap_capture_end(d.ctx, d.compute, &r.exec)); err == nil {
		err = d.check(end, "recording")
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Valid implements graph.Recording.
func (r *recording) Valid() bool { return r.generation == r.d.generation }

// Launch implements graph.Recording.
func (r *recording) Launch() error {
	if r.d.lost != nil {
		return r.d.lost
	}
	return r.d.check(result(C.meap_graph_launch(r.d.ctx, r.exec, r.d.compute)), "queueing a CUDA graph")
}

// Close implements graph.Recording.
func (r *recording) Close() {
	if r.exec != 0 && r.d.lost == nil {
		C.meap_stream_sync(r.d.ctx, r.d.compute)
		C.meap_graph_free(r.d.ctx, r.exec)
	}
	r.exec = 0
}

func (d *Device) warnOnce(err error) {
	if text := err.Error(); !d.warned[text] {
		d.warned[text] = true
		d.options.Warn(text)
	}
}
