package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// ErrUsage is what every *Error is (errors.Is), and other misuse of the command line may wrap: the program exits with 2.
var ErrUsage = errors.New("wrong usage")

// Error holds every problem that was found in a configuration.
type Error struct {
	Problems []error
}

// Error returns one problem per line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems.
func (e *Error) Unwrap() []error { return e.Problems }

// Is makes an Error match ErrUsage.
func (e *Error) Is(target error) bool { return target == ErrUsage }

// Misnamed makes an error of reading a file that the user named an *Error where no file has that name, and leaves it as it is where the
// file is there.
func Misnamed(path string, err error) error {
	if info, missing := os.Stat(path); errors.Is(missing, fs.ErrNotExist) || missing == nil && info.IsDir() {
		return &Error{Problems: []error{err}}
	}
	return err
}

// Options say where settings come from beside the defaults. Later fields win over earlier ones.
type Options struct {
	File  string                 // a YAML file; "" for none
	Env   []string               // NAME=value as os.Environ returns them; nil takes os.Environ
	Set   []string               // section.key=value, from --set; the last of equal keys wins
	Flags map[string]*pflag.Flag // by full key; only flags that were given count
}

// Validator is what a configuration implements to have its values checked by Load. Joined errors are reported one by one.
type Validator interface {
	Validate() error
}

// Load fills cfg (a pointer to a struct as Keys wants it, holding the defaults) from the sources of the options and then validates it.
// All problems together are returned as one *Error, and cfg is as it was then.
func Load(cfg any, options Options) error {
	ix := newIndex(Keys(cfg))
	environment := options.Env
	if environment == nil {
		environment = os.Environ()
	}
	var problems []error
	layers := []map[string]any{{}, {}, {}, {}}
	if options.File != "" {
		problems = append(problems, ix.readFile(options.File, layers[0])...)
	}
	problems = append(problems, ix.readEnv(environment, layers[1])...)
	problems = append(problems, ix.readSet(options.Set, layers[2])...)
	problems = append(problems, ix.readFlags(options.Flags, layers[3])...)

	resolved, err := merge(cfg, layers)
	if err != nil {
		return err
	}
	// Values are checked even where something could not be read: one run shows all that there is to mend.
	if v, ok := resolved.(Validator); ok {
		problems = append(problems, split(v.Validate())...)
	}
	if len(problems) > 0 {
		return &Error{Problems: problems}
	}
	reflect.ValueOf(cfg).Elem().Set(reflect.ValueOf(resolved).Elem())
	return nil
}

// merge decodes the layers, later ones over earlier ones, into a copy of cfg.
func merge(cfg any, layers []map[string]any) (any, error) {
	v := viper.New()
	for _, layer := range layers {
		tree := map[string]any{}
		for name, value := range layer {
			section, field, _ := strings.Cut(name, ".")
			if tree[section] == nil {
				tree[section] = map[string]any{}
			}
			tree[section].(map[string]any)[field] = value
		}
		if err := v.MergeConfigMap(tree); err != nil {
			return nil, fmt.Errorf("merge the configuration: %w", err)
		}
	}
	resolved := reflect.New(reflect.TypeOf(cfg).Elem())
	resolved.Elem().Set(reflect.ValueOf(cfg).Elem())
	err := v.UnmarshalExact(resolved.Interface(), func(c *mapstructure.DecoderConfig) {
		c.WeaklyTypedInput = false // every value has its field's type already
		c.ZeroFields = true        // a list replaces the default list, not its first items
		c.DecodeHook = nil
	})
	if err != nil {
		return nil, fmt.Errorf("decode the configuration: %w", err)
	}
	return resolved.Interface(), nil
}

// readEnv reads MEAP_SECTION_KEY variables. Names that begin with MEAP_ and a section, or are a typing error away from a setting's,
// must be settings; others may belong to something else (Kubernetes sets MEAP_SERVICE_HOST for a service called meap).
// A variable that is set to nothing counts as not set.
func (ix *index) readEnv(environment []string, values map[string]any) (problems []error) {
	names := slices.Sorted(maps.Keys(ix.byEnv))
	for _, entry := range environment {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || text == "" {
			continue
		}
		key := ix.byEnv[name]
		if key == nil {
			best, distance := nearest(name, names)
			ours := slices.ContainsFunc(ix.sections, func(s string) bool { return strings.HasPrefix(name, envName(s)+"_") })
			if ours || distance <= 3 {
				problems = append(problems, fmt.Errorf("environment: unknown variable %s: did you mean %s (%s)?", name, best, ix.byEnv[best].Name))
			}
			continue
		}
		problems = append(problems, key.read("environment "+name, text, values)...)
	}
	return problems
}

func (ix *index) readSet(settings []string, values map[string]any) (problems []error) {
	for _, setting := range settings {
		name, text, found := strings.Cut(setting, "=")
		name = strings.TrimSpace(name)
		key := ix.byName[name]
		switch {
		case !found || name == "":
			problems = append(problems, fmt.Errorf("--set %s: expected section.key=value", setting))
		case key == nil:
			problems = append(problems, fmt.Errorf("--set: %w", ix.unknown(name)))
		default:
			problems = append(problems, key.read("--set", text, values)...)
		}
	}
	return problems
}

func (ix *index) readFlags(flags map[string]*pflag.Flag, values map[string]any) (problems []error) {
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		flag := flags[name]
		key := ix.byName[name]
		if key == nil {
			panic(fmt.Sprintf("config: flag --%s is bound to %s, which is no key", flag.Name, name))
		}
		if !flag.Changed {
			continue
		}
		// A list flag's items are taken as they are: its text would have to be taken apart again.
		if list, ok := flag.Value.(pflag.SliceValue); ok && key.typ == reflect.TypeFor[[]string]() {
			values[name] = list.GetSlice()
			continue
		}
		problems = append(problems, key.read("--"+flag.Name, flag.Value.String(), values)...)
	}
	return problems
}

// read puts a text into values as the key's type.
func (k *Key) read(origin, text string, values map[string]any) []error {
	v, err := parseText(text, k.typ)
	if err != nil {
		return []error{fmt.Errorf("%s: %w", origin, mismatch(k, text, err))}
	}
	values[k.Name] = v
	return nil
}

// split takes joined errors apart.
func split(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, split(e)...)
		}
		return all
	}
	return []error{err}
}
