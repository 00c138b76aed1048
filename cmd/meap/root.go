package main

import (
	"errors"
	"fmt"
	"os/signal"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meap/internal/config"
	"meap/pkg/graph/cpu"
)

// options are the flags that every subcommand has.
type options struct {
	threads int
	cpuISA  string
	isa     cpu.ISA // what cpuISA stands for
	json    bool
}

// check refuses what no command could do, also where the command does not use it.
func (o *options) check() (err error) {
	if o.threads < 0 {
		return usagef("--threads %d is negative; leave it out for one per core", o.threads)
	}
	if o.isa, err = cpu.ParseISA(o.cpuISA); err != nil {
		return usagef("--%v", err)
	}
	return nil
}

func newRoot() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "meap",
		Short: "Pretrain, fine-tune and evaluate language models with mask-enhanced autoregressive prediction",
		Long: `meap trains decoder-only Transformers by next-token prediction with a small share of the
input tokens replaced by [MASK] (MEAP, arXiv 2502.07490), and measures what that does to
retrieval from long contexts. Models are folders that Hugging Face tools read.

Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted (training has saved a checkpoint).`,
		Example: `  meap pretrain --config configs/quickstart.yaml
  meap eval needle --model runs/quickstart
  meap generate --model runs/quickstart --prompt 'func main() {'`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if c.Annotations[endsWell] == "" {
				signal.Reset(interrupts...)
			}
			return o.check()
		},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%v; see `%s --help`", flagProblem(err), c.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.IntVar(&o.threads, "threads", 0, "worker threads; results do not depend on them (0: one per core)")
	flags.StringVar(&o.cpuISA, "cpu-isa", "auto", "instruction set of the CPU kernels, as meap doctor lists them")
	flags.BoolVar(&o.json, "json", false, "one JSON object per line on standard output, for programs")
	root.AddCommand(
		newPretrain(o), newSFT(o), newEval(o), newData(o), newTokenizer(o), newGenerate(o), newPlan(o), newBench(o), newConfig(o), newDoctor(o), newVersion(o),
	)
	usageArgs(root)
	return root
}

// flagProblem says in words what a flag takes that was given something else; other errors stay.
func flagProblem(err error) error {
	value := (*pflag.InvalidValueError)(nil)
	if !errors.As(err, &value) {
		return err
	}
	takes := map[string]string{
		"int": "a whole number", "int64": "a whole number", "uint64": "a whole number that is not negative", "float64": "a number", "bool": "true or false",
	}[value.GetFlag().Value.Type()]
	switch {
	case takes == "":
		return err
	case errors.Is(err, strconv.ErrRange):
		takes += ", not one as large as this"
	}
	return fmt.Errorf("--%s %s: expected %s", value.GetFlag().Name, value.GetValue(), takes)
}

// endsWell annotates the commands that an interrupt asks to end well: they save what they have done, or remove what is half done. It
// ends the others at once.
const endsWell = "ends well"

func endingWell(c *cobra.Command) *cobra.Command {
	c.Annotations = map[string]string{endsWell: "yes"}
	return c
}

// usageArgs makes wrong arguments of a command and its subcommands a misuse, which exits with 2.
func usageArgs(c *cobra.Command) {
	c.SuggestionsMinimumDistance = 2
	check := c.Args
	switch {
	case c.HasSubCommands():
		check = knownCommand
	case check == nil:
		check = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usagef("%v; see `%s --help`", err, c.CommandPath())
		}
		return nil
	}
	for _, sub := range c.Commands() {
		usageArgs(sub)
	}
}

// knownCommand refuses what is no subcommand, with the nearest one.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q: did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// usagef is an error of the person who typed the command.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

type usageError struct{ text string }

func (e *usageError) Error() string        { return e.text }
func (e *usageError) Is(target error) bool { return target == config.ErrUsage }

// group makes a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		return usagef("%s needs a subcommand; see `%s --help`", c.CommandPath(), c.CommandPath())
	}}
	c.AddCommand(subs...)
	return c
}
