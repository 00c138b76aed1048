package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meap/internal/config"
)

// configFlags are the flags of commands that read a configuration.
type configFlags struct {
	file string
	set  []string
	keys map[string]*pflag.Flag
	// defaults changes what holds where nothing is set, for commands whose usual case is another than a training run's.
	defaults func(*config.Config)
}

// bind adds --config and --set to a command, and lets the flags named here set keys of the configuration.
func (f *configFlags) bind(c *cobra.Command) {
	c.Flags().StringVarP(&f.file, "config", "c", "", "YAML `FILE` with the configuration; meap config lists its keys")
	c.Flags().StringArrayVar(&f.set, "set", nil, "set a key of the configuration: `section.key=value` (repeat for more)")
	f.keys = map[string]*pflag.Flag{}
}

// flag lets a flag of the command set a key.
func (f *configFlags) flag(c *cobra.Command, name, key string) { f.keys[key] = c.Flags().Lookup(name) }

// load resolves the configuration: defaults, file, environment, --set, flags.
func (f *configFlags) load(c *cobra.Command) (*config.Config, error) {
	cfg := config.Default()
	if f.defaults != nil {
		f.defaults(&cfg)
	}
	flags := map[string]*pflag.Flag{
		"trainer.threads": c.Flags().Lookup("threads"),
		"trainer.cpu_isa": c.Flags().Lookup("cpu-isa"),
	}
	for key, flag := range f.keys {
		flags[key] = flag
	}
	if err := config.Load(&cfg, config.Options{File: f.file, Set: f.set, Flags: flags}); err != nil {
		return nil, err
	}
	return &cfg, nil
}

// name is what the run is called where no output folder is given: the configuration file's name, or "default" without one (and for
// one that is called .yaml): the folder of all runs must not become a run's.
func (f *configFlags) name() string {
	base := filepath.Base(f.file)
	if name := strings.TrimSuffix(base, filepath.Ext(base)); name != "" {
		return name
	}
	return "default"
}

func newConfig(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "List every key of the configuration with its default and its meaning",
		Long: `List every key of the configuration.

Where values come from, later ones winning: defaults, the file of --config, the environment
(MEAP_TRAINER_STEPS for trainer.steps), --set section.key=value, flags of the command.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg := config.Default()
			for _, k := range config.Keys(&cfg) {
				if o.json {
					if err := printJSON(c.OutOrStdout(), map[string]string{"key": k.Name, "type": k.Type, "default": k.Default, "help": k.Help}); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: %s\n    %s (%s)\n", k.Name, k.Default, k.Help, k.Type)
			}
			return nil
		},
	}
}
