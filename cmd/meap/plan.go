package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meap/internal/setup"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

func newPlan(o *options) *cobra.Command {
	var cfg configFlags
	var preset string
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say what a configuration needs before it is run: parameters, FLOPs, memory",
		Long: `Say what a configuration needs before it is run: parameters, FLOPs per token, and memory by kind.

Nothing is allocated and no text is read. The memory is what tensors take. On the CPU kernels add scratch space
of at most some 200 MiB. For a GPU (--device cuda, which works without one) activations are counted as they are
stored there and kernels' memory too; the driver takes some hundred MiB more. Exit code 1 says that less is free
than is needed.

Presets: ` + strings.Join(transformer.Presets(), ", ") + ".",
		Example: `  meap plan --config configs/quickstart.yaml
  meap plan --preset meap-0.1b --set trainer.seq=512 --set trainer.micro_batch=2
  meap plan --preset meap-1b --device cuda --set trainer.dtype=bf16`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := cfg.load(c)
			if err != nil {
				return err
			}
			ids, err := setup.VocabSize(conf)
			if err != nil {
				return err
			}
			model, err := setup.Model(conf, ids)
			if err != nil {
				return err
			}
			p, err := trainer.PlanMemory(model, conf.Trainer, setup.Planner(conf.Trainer))
			if err != nil {
				return err
			}
			flops := model.FLOPsPerToken(conf.Trainer.Seq)
			have, gpu := setup.DeviceFree(conf.Trainer), setup.TakesGPU(conf.Trainer.Device)
			if o.json {
				err = printJSON(c.OutOrStdout(), map[string]any{
					"parameters": model.Parameters(), "flops_per_token": flops, "tokens_per_step": conf.Trainer.TokensPerStep(),
					"memory": p, "memory_bytes": p.Total(), "gpu": gpu, "device_bytes": p.OnDevice(), "free_bytes": have,
				})
			} else {
				w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintf(w, "parameters\t%d\t(%s)\n", model.Parameters(), count(float64(model.Parameters())))
				fmt.Fprintf(w, "FLOPs per token\t%s\t(forward and backward, sequence of %d)\n", count(flops), conf.Trainer.Seq)
				fmt.Fprintf(w, "tokens per step\t%d\t(%d rows of %d)\n", conf.Trainer.TokensPerStep(), conf.Trainer.RowsPerStep(), conf.Trainer.Seq)
				fmt.Fprintf(w, "FLOPs of the run\t%s\t(%d steps)\n", count(flops*float64(conf.Trainer.TokensPerStep())*float64(conf.Trainer.LastStep())), conf.Trainer.LastStep())
				for _, m := range p {
					fmt.Fprintf(w, "%s\t%s\t%s\n", m.Kind, size(float64(m.Bytes)), m.What)
				}
				fmt.Fprintf(w, "memory in all\t%s\t\n", size(float64(p.Total())))
				free := "this machine has"
				if gpu {
					free = "free on the GPU"
					fmt.Fprintf(w, "of that on the GPU\t%s\t\n", size(float64(p.OnDevice())))
				}
				if have > 0 {
					fmt.Fprintf(w, "%s\t%s\t\n", free, size(float64(have)))
				}
				err = w.Flush()
			}
			if err == nil {
				err = setup.CheckMemory(model, conf.Trainer, p)
			}
			return err
		},
	}
	cfg.bind(c)
	c.Flags().StringVar(&preset, "preset", "", "sizes of the model, instead of model.preset")
	cfg.flag(c, "preset", "model.preset")
	c.Flags().String("device", "auto", "where it would be trained: auto, cpu, cuda or cuda:N")
	cfg.flag(c, "device", "trainer.device")
	return c
}
