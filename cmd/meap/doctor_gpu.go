//go:build gpu && linux

package main

import (
	"fmt"

	"meap/pkg/graph/cuda"
)

func probeCUDA(free bool) cudaReport {
	p := cuda.Probe(free)
	r := cudaReport{Built: true, Driver: p.Driver, Version: p.Version, Problem: p.Problem}
	for _, g := range p.GPUs {
		r.GPUs = append(r.GPUs, cudaGPU{
			Name: g.Name, ComputeCapability: fmt.Sprintf("%d.%d", g.Major, g.Minor), Processors: g.Processors, MemoryBytes: g.Memory,
			FreeBytes: g.FreeBytes, PeakTFLOPS: peakTFLOPS(g.Name), Problem: g.Problem,
		})
	}
	for _, l := range p.Libraries {
		r.Libraries = append(r.Libraries, cudaLibrary(l))
	}
	return r
}

// peakTFLOPS is the data sheet's figure for products in bf16, 0 for a GPU that is not in the table.
func peakTFLOPS(name string) float64 {
	peak, _ := cuda.PeakFLOPS(name, true)
	return peak / 1e12
}
