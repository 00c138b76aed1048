package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/graph"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// runFlags are the flags of commands that train.
type runFlags struct {
	configFlags
	output, resume string
}

// bind adds the flags to a command; where says in words which folder is the default of --output.
func (f *runFlags) bind(c *cobra.Command, where string) {
	f.configFlags.bind(c)
	c.Flags().StringVarP(&f.output, "output", "o", "", "folder `DIR` of the run (default "+where+")")
	c.Flags().StringVar(&f.resume, "resume", trainer.ResumeAuto, "auto: continue the run in --output, or start one; off: only start; or `DIR`, a checkpoint's folder")
	c.Flags().String("device", "auto", "where to train: auto, cpu, cuda or cuda:N")
	f.flag(c, "device", "trainer.device")
}

// training is a run whose data is not there yet.
type training struct {
	*setup.Opened
	model  transformer.Config
	device graph.Device
	close  func()
}

// open opens all that a run needs but its data. Call close when done.
func (f *runFlags) open(c *cobra.Command, cfg *config.Config) (*training, error) {
	if err := setup.CheckDevice(cfg.Trainer); err != nil {
		return nil, err
	}
	opened, err := open(c, cfg)
	if err != nil {
		return nil, err
	}
	t := &training{Opened: opened}
	if t.model, err = opened.Model(); err != nil {
		return nil, err
	}
	if err := f.refuse(cfg, t.model); err != nil {
		return nil, err
	}
	t.device, t.close, err = setup.Device(cfg.Trainer)
	return t, err
}

// refuse says before the data is prepared what can be known before that.
func (f *runFlags) refuse(cfg *config.Config, model transformer.Config) error {
	plan, err := trainer.PlanMemory(model, cfg.Trainer, setup.Planner(cfg.Trainer))
	if err != nil {
		return err
	}
	if err := setup.CheckMemory(model, cfg.Trainer, plan); err != nil {
		return err
	}
	if err := trainer.CheckResume(f.output, f.resume); errors.Is(err, fs.ErrNotExist) {
		return usagef("%v", err)
	} else if err != nil {
		return err
	}
	return trainer.CheckOutput(f.output)
}

// train runs to the end and reports as the flags ask.
func (f *runFlags) train(c *cobra.Command, o *options, run *trainer.Run) error {
	run.Output, run.Resume = f.output, f.resume
	if o.json {
		run.Reporter = trainer.NewJSONReporter(c.OutOrStdout(), c.ErrOrStderr())
	} else {
		run.Reporter = trainer.NewProgress(c.ErrOrStderr())
	}
	// A reader of standard output that goes away (| head) interrupts the run, which saves; by default it would kill the process.
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGPIPE)
	defer stop()
	if err := run.Train(ctx); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "done: %s\n", f.output)
	return nil
}
