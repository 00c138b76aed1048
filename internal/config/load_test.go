package config

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// toy has a field of every type that settings may have.
type toy struct {
	Model struct {
		Path  string   `mapstructure:"path"`
		Tie   *bool    `mapstructure:"tie"`
		Theta *float64 `mapstructure:"theta"`
	} `mapstructure:"model"`
	Data struct {
		Sources []string  `mapstructure:"sources" help:"where text comes from"`
		Sizes   []int     `mapstructure:"sizes"`
		Weights []float64 `mapstructure:"weights"`
	} `mapstructure:"data"`
	Trainer struct {
		Steps        int64   `mapstructure:"steps"`
		Rows         int     `mapstructure:"rows"`
		LearningRate float64 `mapstructure:"learning_rate"`
		MinRate      float64 `mapstructure:"min_learning_rate"`
		Seed         uint64  `mapstructure:"seed"`
		Fast         bool    `mapstructure:"fast"`
		Small        int8    `mapstructure:"small"`
	} `mapstructure:"trainer"`
}

func (t *toy) Validate() error {
	var problems []error
	if t.Trainer.Rows < 1 {
		problems = append(problems, fmt.Errorf("trainer.rows = %d: must be at least 1", t.Trainer.Rows))
	}
	if !(t.Trainer.LearningRate > 0) {
		problems = append(problems, fmt.Errorf("trainer.learning_rate = %v: must be above 0", t.Trainer.LearningRate))
	}
	return errors.Join(problems...)
}

func newToy() *toy {
	t := &toy{}
	t.Data.Sources = []string{"one", "two"}
	t.Trainer.Steps, t.Trainer.Rows, t.Trainer.LearningRate, t.Trainer.Seed = 10, 4, 4e-4, 3407
	return t
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOrderOfSources(t *testing.T) {
	file := write(t, "trainer:\n  steps: 1\n  rows: 1\n  seed: 1\n  small: 1\n")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.Uint64("seed", 99, "")
	flags.Int("rows", 99, "")
	if err := flags.Parse([]string{"--seed=4"}); err != nil {
		t.Fatal(err)
	}
	c := newToy()
	err := Load(c, Options{
		File:  file,
		Env:   []string{"MEAP_TRAINER_STEPS=2", "MEAP_TRAINER_SEED=2", "MEAP_TRAINER_SMALL=2", "MEAP_TRAINER_FAST=", "HOME=/root"},
		Set:   []string{"trainer.steps=0", "trainer.steps=3", "trainer.seed=3"},
		Flags: map[string]*pflag.Flag{"trainer.seed": flags.Lookup("seed"), "trainer.rows": flags.Lookup("rows")},
	})
	if err != nil {
		t.Fatal(err)
	}
	tr := c.Trainer
	if tr.LearningRate != 4e-4 {
		t.Errorf("default: learning_rate %v", tr.LearningRate)
	}
	if tr.Rows != 1 { // the flag was not given, so its default does not count
		t.Errorf("file over default: rows %d", tr.Rows)
	}
	if tr.Small != 2 {
		t.Errorf("environment over file: small %d", tr.Small)
	}
	if tr.Steps != 3 {
		t.Errorf("--set over environment: steps %d", tr.Steps)
	}
	if tr.Seed != 4 {
		t.Errorf("flag over --set: seed %d", tr.Seed)
	}
}

func TestValues(t *testing.T) {
	yes, theta := true, 1e4
	cases := []struct {
		yaml string // a setting in a file; "" where only --set is tried
		set  string
		get  func(*toy) any
		want any
	}{
		{"trainer: {learning_rate: 4e-4}", "trainer.learning_rate=4e-4", func(c *toy) any { return c.Trainer.LearningRate }, 4e-4},
		{"trainer: {learning_rate: 1}", "trainer.learning_rate=1", func(c *toy) any { return c.Trainer.LearningRate }, 1.0},
		{"trainer: {learning_rate: .5}", "trainer.learning_rate=.5", func(c *toy) any { return c.Trainer.LearningRate }, 0.5},
		{"trainer: {learning_rate: '2.5'}", "trainer.learning_rate= 2.5 ", func(c *toy) any { return c.Trainer.LearningRate }, 2.5},
		{"trainer: {steps: 1_000_000}", "trainer.steps=1_000_000", func(c *toy) any { return c.Trainer.Steps }, int64(1000000)},
		{"trainer: {steps: 1e6}", "trainer.steps=1e6", func(c *toy) any { return c.Trainer.Steps }, int64(1000000)},
		{"trainer: {steps: 0100}", "trainer.steps=0100", func(c *toy) any { return c.Trainer.Steps }, int64(100)},
		{"trainer: {steps: 9223372036854775807}", "trainer.steps=9223372036854775807", func(c *toy) any { return c.Trainer.Steps }, int64(math.MaxInt64)},
		{"trainer: {seed: 18446744073709551615}", "trainer.seed=18446744073709551615", func(c *toy) any { return c.Trainer.Seed }, uint64(math.MaxUint64)},
		{"trainer: {fast: yes}", "trainer.fast=on", func(c *toy) any { return c.Trainer.Fast }, true},
		{"model: {tie: true}", "model.tie=true", func(c *toy) any { return c.Model.Tie }, &yes},
		{"model: {theta: 10_000}", "model.theta=1e4", func(c *toy) any { return c.Model.Theta }, &theta},
		{"model: {tie: }", "", func(c *toy) any { return c.Model.Tie }, (*bool)(nil)},
		{"model: {path: yes}", "model.path=yes", func(c *toy) any { return c.Model.Path }, "yes"},
		{"model: {path: 010}", "model.path=010", func(c *toy) any { return c.Model.Path }, "010"},
		{"model: {path: 'a=b,c'}", "model.path=a=b,c", func(c *toy) any { return c.Model.Path }, "a=b,c"},
		{"model: {path: '[a]'}", "model.path=[a]", func(c *toy) any { return c.Model.Path }, "[a]"},
		{"data: {sources: [c]}", "data.sources=c", func(c *toy) any { return c.Data.Sources }, []string{"c"}},
		{"data: {sources: c}", "data.sources=[c]", func(c *toy) any { return c.Data.Sources }, []string{"c"}},
		{"data:\n  sources:\n  - a\n  - 1\n  - 'b, c'", "data.sources=[a, 1, 'b, c']", func(c *toy) any { return c.Data.Sources }, []string{"a", "1", "b, c"}},
		{"data: {sources: [a, b, d]}", "data.sources=a, b,d", func(c *toy) any { return c.Data.Sources }, []string{"a", "b", "d"}},
		{"data: {sources: []}", "data.sources=", func(c *toy) any { return c.Data.Sources }, []string{}},
		{"", "data.sources=[]", func(c *toy) any { return c.Data.Sources }, []string{}},
		{"data: {sources: }", "", func(c *toy) any { return c.Data.Sources }, []string{"one", "two"}},
		{"data: {sizes: [1e3, 2]}", "data.sizes=1e3,2", func(c *toy) any { return c.Data.Sizes }, []int{1000, 2}},
		{"data: {weights: [0.5, 2]}", "data.weights=0.5,2", func(c *toy) any { return c.Data.Weights }, []float64{0.5, 2}},
	}
	for _, c := range cases {
		for _, o := range []Options{{File: c.yaml, Env: []string{}}, {Set: []string{c.set}, Env: []string{}}} {
			switch {
			case o.File != "":
				o.File = write(t, c.yaml)
			case o.Set == nil || c.set == "":
				continue
			}
			cfg := newToy()
			if err := Load(cfg, o); err != nil {
				t.Errorf("%q %v: %v", c.yaml, o.Set, err)
			} else if got := c.get(cfg); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q %v: got %#v, want %#v", c.yaml, o.Set, got, c.want)
			}
		}
	}
}

func TestListFlag(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.StringArray("source", nil, "")
	flags.IntSlice("size", nil, "")
	if err := flags.Parse([]string{"--source=a,b", "--source=[c]", "--size=1,2"}); err != nil {
		t.Fatal(err)
	}
	c := newToy()
	bound := map[string]*pflag.Flag{"data.sources": flags.Lookup("source"), "data.sizes": flags.Lookup("size")}
	if err := Load(c, Options{Env: []string{}, Flags: bound}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a,b", "[c]"}; !reflect.DeepEqual(c.Data.Sources, want) {
		t.Errorf("sources %q, want %q", c.Data.Sources, want)
	}
	if want := []int{1, 2}; !reflect.DeepEqual(c.Data.Sizes, want) {
		t.Errorf("sizes %v, want %v", c.Data.Sizes, want)
	}
}

func TestProblems(t *testing.T) {
	cases := []struct {
		name    string
		file    string
		options Options
		want    []string // one per line, FILE stands for the file's path
	}{
		{name: "typing error in a file", file: "trainer:\n  lerning_rate: 1\n",
			want: []string{"FILE:2: unknown key trainer.lerning_rate: did you mean trainer.learning_rate?"}},
		{name: "typing error in --set", options: Options{Set: []string{"trainer.lerning_rate=1"}},
			want: []string{"--set: unknown key trainer.lerning_rate: did you mean trainer.learning_rate?"}},
		{name: "typing error in the environment", options: Options{Env: []string{"MEAP_TRAINER_LERNING_RATE=1", "MEAP_TRAINR_ROWS=2"}},
			want: []string{
				"environment: unknown variable MEAP_TRAINER_LERNING_RATE: did you mean MEAP_TRAINER_LEARNING_RATE (trainer.learning_rate)?",
				"environment: unknown variable MEAP_TRAINR_ROWS: did you mean MEAP_TRAINER_ROWS (trainer.rows)?"}},
		{name: "wrong case", file: "Trainer: {rows: 1}\ntrainer: {Rows: 1}\n",
			want: []string{"FILE:1: unknown section Trainer: did you mean trainer?", "FILE:2: unknown key trainer.Rows: did you mean trainer.rows?"}},
		{name: "section forgotten", file: "learning_rate: 1\n", options: Options{Set: []string{"rows=1", "lerning_rate=1"}},
			want: []string{"FILE:1: unknown key learning_rate: did you mean trainer.learning_rate?",
				"--set: unknown key rows: did you mean trainer.rows?",
				"--set: unknown key lerning_rate: did you mean trainer.learning_rate?"}},
		{name: "other section", options: Options{Set: []string{"trainer.sources=1"}},
			want: []string{"--set: unknown key trainer.sources: did you mean data.sources?"}},
		{name: "dotted in a file", file: "trainer.rows: 1\n",
			want: []string{"FILE:1: trainer.rows: write it as section trainer: with rows: below it"}},
		{name: "section without keys", file: "trainer: 5\n",
			want: []string{"FILE:1: trainer is a section: write its keys below it, each in a line of its own"}},
		{name: "twice", file: "trainer:\n  rows: 1\n  steps: 2\n  rows: 3\ntrainer: {}\n",
			want: []string{"FILE:4: trainer.rows is given twice, first in line 2", "FILE:5: trainer is given twice, first in line 1"}},
		{name: "not YAML", file: "\n\ntrainer: rows: 1\n", want: []string{"FILE:3: not valid YAML: "}},
		{name: "two documents", file: "trainer: {rows: 1}\n---\ntrainer: {rows: 2}\n", want: []string{"FILE:2: a second document: keep one"}},
		{name: "a list at the top", file: "- trainer\n", want: []string{"FILE:1: expected sections such as model:"}},
		{name: "merge", file: "trainer:\n  <<: {rows: 1}\n", want: []string{"FILE:2: << is not supported: write the keys out"}},
		{name: "types in a file", file: "trainer:\n  rows: many\n  fast: 2\n  learning_rate: .inf\n  seed: -1\n  steps: {a: 1}\n",
			want: []string{
				"FILE:2: trainer.rows = many: expected a whole number",
				"FILE:3: trainer.fast = 2: expected true or false",
				"FILE:4: trainer.learning_rate = .inf: expected a number such as 4e-4",
				"FILE:5: trainer.seed = -1: expected a whole number that is not negative",
				"FILE:6: trainer.steps = {...}: expected a whole number"}},
		{name: "types in --set", options: Options{Set: []string{"trainer.rows=1.5", "trainer.small=128", "trainer.learning_rate=nan", "data.sizes=1,x", "trainer.steps=1e300", "data.sources=[a", "trainer.fast=", "trainer"}},
			want: []string{
				"--set: trainer.rows = 1.5: expected a whole number",
				"--set: trainer.small = 128: too large or too small, expected a whole number",
				"--set: trainer.learning_rate = nan: expected a number such as 4e-4",
				"--set: data.sizes = 1,x: expected a list of numbers such as [a, b]",
				"--set: trainer.steps = 1e300: too large or too small, expected a whole number",
				"--set: data.sources = [a: expected a list of texts such as [a, b]",
				`--set: trainer.fast = "": expected true or false`,
				"--set trainer: expected section.key=value"}},
		{name: "all at once", file: "trainer: {lerning_rate: 1, rows: 0}\n",
			options: Options{Env: []string{"MEAP_TRAINER_STEPS=x"}, Set: []string{"trainer.learning_rate=-1"}},
			want: []string{
				"FILE:1: unknown key trainer.lerning_rate: did you mean trainer.learning_rate?",
				"environment MEAP_TRAINER_STEPS: trainer.steps = x: expected a whole number",
				"trainer.rows = 0: must be at least 1",
				"trainer.learning_rate = -1: must be above 0"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.file != "" {
				c.options.File = write(t, c.file)
			}
			if c.options.Env == nil {
				c.options.Env = []string{}
			}
			cfg := newToy()
			err := Load(cfg, c.options)
			if !errors.Is(err, ErrUsage) {
				t.Fatalf("error %v is not ErrUsage", err)
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(c.want) {
				t.Fatalf("got %d problems, want %d:\n%v", len(got), len(c.want), err)
			}
			for i, want := range c.want {
				want = strings.Replace(want, "FILE", c.options.File, 1)
				if got[i] != want && !(strings.HasSuffix(want, ": ") && strings.HasPrefix(got[i], want)) {
					t.Errorf("problem %d:\n got %s\nwant %s", i, got[i], want)
				}
			}
			if !reflect.DeepEqual(cfg, newToy()) {
				t.Errorf("the configuration was changed: %+v", cfg)
			}
		})
	}
}

func TestForeignVariables(t *testing.T) {
	foreign := []string{"MEAP_SERVICE_HOST=10.0.0.1", "MEAP_PORT_80_TCP_ADDR=x", "MEAP_PORT=tcp://x", "MEAP_TRAINER_STEPS="}
	if err := Load(newToy(), Options{Env: foreign}); err != nil {
		t.Errorf("variables of something else are refused: %v", err)
	}
}

func TestFileProblems(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	big := write(t, strings.Repeat("# much\n", maxFileBytes/7+1))
	for _, path := range []string{missing, t.TempDir(), big} {
		err := Load(newToy(), Options{File: path, Env: []string{}})
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), path) || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "trainer:\n", "\xef\xbb\xbftrainer: {rows: 4}\n"} {
		cfg := newToy()
		if err := Load(cfg, Options{File: write(t, text), Env: []string{}}); err != nil || !reflect.DeepEqual(cfg, newToy()) {
			t.Errorf("file %q: %v, %+v", text, err, cfg)
		}
	}
}

func TestAliases(t *testing.T) {
	cfg := newToy()
	err := Load(cfg, Options{File: write(t, "model: {path: &p here}\ndata:\n  sources: [*p, there]\n"), Env: []string{}})
	if want := []string{"here", "there"}; err != nil || !reflect.DeepEqual(cfg.Data.Sources, want) {
		t.Errorf("%v, %q", err, cfg.Data.Sources)
	}
	for _, text := range []string{"trainer: &a\n  rows: *a\n", "data: {sources: &a [*a]}\n"} {
		if err := Load(newToy(), Options{File: write(t, text), Env: []string{}}); !errors.Is(err, ErrUsage) {
			t.Errorf("%q, which holds itself: %v", text, err)
		}
	}
}

// The default list of a configuration must not be written through by a load into a copy of it.
func TestDefaultsAreNotShared(t *testing.T) {
	defaults := newToy()
	cfg := *defaults
	if err := Load(&cfg, Options{Set: []string{"data.sources=x"}, Env: []string{}}); err != nil {
		t.Fatal(err)
	}
	if defaults.Data.Sources[0] != "one" {
		t.Errorf("the defaults became %q", defaults.Data.Sources)
	}
}

func TestKeys(t *testing.T) {
	keys := Keys(newToy())
	if len(keys) != 13 {
		t.Fatalf("%d keys", len(keys))
	}
	k := keys[3]
	want := Key{Name: "data.sources", Env: "MEAP_DATA_SOURCES", Type: "a list of texts", Default: "[one, two]", Help: "where text comes from"}
	if k.Name != want.Name || k.Env != want.Env || k.Type != want.Type || k.Default != want.Default || k.Help != want.Help {
		t.Errorf("got %+v, want %+v", k, want)
	}
	if keys[8].Default != "0.0004" {
		t.Errorf("default of %s: %s", keys[8].Name, keys[8].Default)
	}
}

func TestKeysPanicsOnUnfitStructs(t *testing.T) {
	for _, cfg := range []any{
		toy{},
		&struct{ Steps int }{},
		&struct{ A struct{ B map[string]int } }{},
		&struct{ A struct{ B [][]int } }{},
		&struct {
			A struct {
				B int `mapstructure:"Big"`
			}
		}{},
		&struct{ A struct{ b int } }{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T passed", cfg)
				}
			}()
			Keys(cfg)
		}()
	}
}
