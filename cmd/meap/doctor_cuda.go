package main

import (
	"fmt"
	"io"
)

// cudaReport is what `meap doctor` knows about GPUs, and its object in JSON.
type cudaReport struct {
	Built     bool          `json:"built"` // this program has code for GPUs
	Driver    string        `json:"driver,omitempty"`
	Version   string        `json:"cuda_version,omitempty"` // of CUDA that the driver is made for
	GPUs      []cudaGPU     `json:"gpus,omitempty"`
	Libraries []cudaLibrary `json:"libraries,omitempty"`
	Problem   string        `json:"problem,omitempty"` // why no GPU can be used
}

type cudaGPU struct {
	Name              string  `json:"name"`
	ComputeCapability string  `json:"compute_capability"`
	Processors        int     `json:"processors"`
	MemoryBytes       int64   `json:"memory_bytes"`
	FreeBytes         int64   `json:"free_bytes,omitempty"`
	PeakTFLOPS        float64 `json:"peak_bf16_tflops,omitempty"` // by its data sheet, left out where it is not in the table
	Problem           string  `json:"problem,omitempty"`
}

type cudaLibrary struct {
	Name    string `json:"name"`
	Path    string `json:"path,omitempty"`
	Version string `json:"version,omitempty"`
	Needed  bool   `json:"needed"`
	Problem string `json:"problem,omitempty"`
}

// unusable says why a GPU cannot be used, "" where it can.
func (r cudaReport) unusable(ordinal int) string {
	switch {
	case r.Problem != "":
		return r.Problem
	case ordinal >= len(r.GPUs):
		return fmt.Sprintf("this machine has %d GPUs, counted from 0", len(r.GPUs))
	}
	return r.GPUs[ordinal].Problem
}

// print writes lines of two columns.
func (r cudaReport) print(w io.Writer) {
	if r.Driver != "" {
		fmt.Fprintf(w, "cuda\tdriver %s for CUDA %s\n", r.Driver, r.Version)
	}
	for i, g := range r.GPUs {
		text := fmt.Sprintf("%s, compute capability %s, %d processors, %s", g.Name, g.ComputeCapability, g.Processors, size(float64(g.MemoryBytes)))
		if g.FreeBytes > 0 {
			text += ", " + size(float64(g.FreeBytes)) + " free"
		}
		if g.PeakTFLOPS > 0 {
			text += fmt.Sprintf(", %.0f TFLOP/s in bf16 by its data sheet", g.PeakTFLOPS)
		}
		if g.Problem != "" {
			text += ": cannot be used: " + g.Problem
		}
		fmt.Fprintf(w, "cuda:%d\t%s\n", i, text)
	}
	for _, l := range r.Libraries {
		switch {
		case l.Problem == "":
			fmt.Fprintf(w, "%s\t%s, %s\n", l.Name, l.Version, l.Path)
		case l.Needed:
			fmt.Fprintf(w, "%s\tmissing, and no GPU can be used without it: %s\n", l.Name, l.Problem)
		default:
			fmt.Fprintf(w, "%s\tmissing; the driver compiles the kernels instead: %s\n", l.Name, l.Problem)
		}
	}
	if r.Problem != "" {
		fmt.Fprintf(w, "GPU\tnone can be used: %s\n", r.Problem)
	}
}
