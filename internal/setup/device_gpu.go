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

// probe looks at the GPUs once, without touching any.
var probe = sync.OnceValue(func() cuda.Report { return cuda.Probe(false) })

// gpuProblem says why a GPU cannot be used, nil where it can.
func gpuProblem(ordinal int) error {
	r := probe()
	switch {
	case r.Problem != "":
		return errors.New(r.Problem)
	case ordinal >= len(r.GPUs):
		return fmt.Errorf("cuda:%d: this machine has %d GPUs, counted from 0; `meap doctor` lists them", ordinal, len(r.GPUs))
	case r.GPUs[ordinal].Problem != "":
		return fmt.Errorf("cuda:%d (%s): %s; use --device cpu", ordinal, r.GPUs[ordinal].Name, r.GPUs[ordinal].Problem)
	}
	return nil
}

func gpuWorks() bool { return gpuProblem(0) == nil }

// gpuFree returns the free memory of a GPU, 0 where that is not known.
func gpuFree(device string) int64 {
	n, err := Ordinal(device)
	if err != nil || gpuProblem(n) != nil {
		return 0
	}
	free, err := cuda.FreeBytes(n)
	if err != nil {
		return 0
	}
	return free
}
