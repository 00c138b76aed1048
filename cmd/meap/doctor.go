package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meap/internal/setup"
	"meap/pkg/dataset"
	"meap/pkg/graph/cpu"
	"meap/pkg/trainer"
)

func newDoctor(o *options) *cobra.Command {
	var device string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine has and what meap makes of it",
		Long: `Show what this machine has and what meap makes of it.

With --device cuda or cuda:N the exit code is 1 where that GPU cannot be used. No memory is taken on it then, not even to learn how
much is free, so this suits a container's health check.`,
		RunE: func(c *cobra.Command, _ []string) error {
			f := cpu.DetectFeatures()
			var levels []string
			for _, isa := range f.Available {
				levels = append(levels, isa.String())
			}
			memory := setup.MachineMemory()
			goroot := "not found: configs/quickstart.yaml needs a Go distribution's source; install Go or set GOROOT"
			if path, err := dataset.ExpandPath("$GOROOT"); err == nil {
				goroot = path
			}
			isCUDA := strings.HasPrefix(device, "cuda")
			ordinal, err := setup.Ordinal(device)
			if err != nil || !isCUDA && device != trainer.Auto && device != "cpu" {
				return usagef("--device %q must be one of auto, cpu, cuda, cuda:N", device)
			}
			gpus := probeCUDA(!isCUDA)
			if o.json {
				err = printJSON(c.OutOrStdout(), map[string]any{
					"version": versionString(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "processor": f.Model, "processors": f.Processors,
					"cpu_isa": levels, "cpu_isa_used": o.isa.String(), "extensions": f.Extensions, "memory_bytes": memory,
					"cuda": gpus, "goroot": goroot,
				})
			} else {
				err = doctorReport(c.OutOrStdout(), f, o.isa, levels, memory, gpus, goroot)
			}
			if why := gpus.unusable(ordinal); err == nil && isCUDA && why != "" {
				err = fmt.Errorf("cuda:%d cannot be used: %s", ordinal, why)
			}
			return err
		},
	}
	c.Flags().StringVar(&device, "device", trainer.Auto, "auto, cpu, cuda or cuda:N: the exit code says whether a GPU can be used")
	return c
}

// doctorReport writes lines of two columns.
func doctorReport(out io.Writer, f cpu.Features, isa cpu.ISA, levels []string, memory int64, gpus cudaReport, goroot string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "meap\t%s, %s/%s\n", versionString(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(w, "processor\t%s, %d threads\n", f.Model, f.Processors)
	fmt.Fprintf(w, "cpu-isa\t%s (used: %s)\n", strings.Join(levels, ", "), isa)
	if len(f.Extensions) > 0 {
		fmt.Fprintf(w, "extensions\t%s\n", strings.Join(f.Extensions, ", "))
	}
	if memory > 0 {
		fmt.Fprintf(w, "memory\t%s\n", size(float64(memory)))
	}
	gpus.print(w)
	fmt.Fprintf(w, "GOROOT\t%s\n", goroot)
	return w.Flush()
}
