//go:build gpu && linux

package setup

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"meap/pkg/graph"
	"meap/pkg/graph/cuda"
)

func openGPU(ordinal int) (graph.Device, func(), error) {
	d, err := cuda.Open(ordinal, cuda.DefaultOptions(func(text string) { fmt.Fprintln(os.Stderr, "meap: warning:", text) }))
	if err != nil {
		return nil, nil, err
	}
	return d, d.Close, nil
}

// noGPU says that an error is no more than a machine without a GPU.
func noGPU(err error) bool { return errors.Is(err, cuda.ErrNoDriver) }

// probe looks at the GPUs once: making a context takes a part of a second.
var probe = sync.OnceValue(func() cuda.Report { return cuda.Probe(true) })

func gpuWorks() bool {
	r := probe()
	return len(r.GPUs) > 0 && r.GPUs[0].Problem == "" && r.Problem == ""
}

// gpuFree returns the free memory of a GPU, 0 where that is not known.
func gpuFree(device string) int64 {
	r := probe()
	if n, err := Ordinal(device); err == nil && n < len(r.GPUs) {
		return r.GPUs[n].FreeBytes
	}
	return 0
}
