package main

import (
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meap/internal/setup"
	"meap/pkg/dataset"
	"meap/pkg/graph/cpu"
)

func newDoctor(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine has and what meap makes of it",
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
			gpus := probeCUDA()
			if o.json {
				return printJSON(c.OutOrStdout(), map[string]any{
					"version": versionString(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "processor": f.Model, "processors": f.Processors,
					"cpu_isa": levels, "cpu_isa_default": cpu.DetectISA().String(), "extensions": f.Extensions, "memory_bytes": memory,
					"cuda": gpus, "goroot": goroot,
				})
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "meap\t%s, %s/%s\n", versionString(), runtime.GOOS, runtime.GOARCH)
			fmt.Fprintf(w, "processor\t%s, %d threads\n", f.Model, f.Processors)
			fmt.Fprintf(w, "cpu-isa\t%s (used: %s)\n", strings.Join(levels, ", "), cpu.DetectISA())
			if len(f.Extensions) > 0 {
				fmt.Fprintf(w, "extensions\t%s\n", strings.Join(f.Extensions, ", "))
			}
			if memory > 0 {
				fmt.Fprintf(w, "memory\t%s\n", size(float64(memory)))
			}
			gpus.print(w)
			fmt.Fprintf(w, "GOROOT\t%s\n", goroot)
			return w.Flush()
		},
	}
}
