//go:build gpu && linux

package setup

import (
	"errors"
	"fmt"
	"os"

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

func gpuWorks() bool {
	r := cuda.Probe()
	return len(r.GPUs) > 0 && r.GPUs[0].Problem == "" && r.Problem == ""
}
