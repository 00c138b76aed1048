// Command meap pretrains and evaluates decoder-only Transformers with Mask-Enhanced Autoregressive Prediction (MEAP).
//
// Each subcommand has a file of its own, which turns flags into a configuration and makes one call; what the calls have in common
// is in internal/setup.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"meap/internal/config"
	"meap/pkg/dataset"
	"meap/pkg/trainer"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1   // also because a file is damaged, or cannot be read or written
	exitMisused     = 2   // what was typed or configured cannot be right: an unknown name, a wrong value, a path that leads nowhere
	exitInterrupted = 130 // and a checkpoint was saved
)

// interrupts are the signals that ask a command to end.
var interrupts = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}

func main() {
	// The first signal asks the work to end well; the second ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	// A terminal that is closed asks for the same, but may ask twice; under nohup it does not ask at all.
	if !signal.Ignored(syscall.SIGHUP) {
		ctx, _ = signal.NotifyContext(ctx, syscall.SIGHUP)
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	out := &checkedWriter{Writer: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil && out.err != nil {
		err = fmt.Errorf("write to standard output: %w", out.err)
	}
	if err != nil {
		fmt.Fprintf(stderr, "meap: %v\n", err)
	}
	return exitCode(ctx, err)
}

func exitCode(ctx context.Context, err error) int {
	var holds *trainer.HoldsRunError
	var changed *trainer.ResumeError
	var data *dataset.ConfigError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, trainer.ErrInterrupted), ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, config.ErrUsage), errors.As(err, &holds), errors.As(err, &changed), errors.As(err, &data):
		return exitMisused
	}
	return exitFailed
}
