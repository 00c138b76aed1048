//go:build !gpu || !linux

package setup

import (
	"errors"

	"meap/pkg/graph"
)

func openGPU(int) (graph.Device, func(), error) { return nil, nil, errNotBuilt }

func noGPU(err error) bool { return errors.Is(err, errNotBuilt) }

func gpuProblem(int) error { return errNotBuilt }

func gpuWorks() bool { return false }

func gpuFree(string) int64 { return 0 }
