// Package config fills a struct of sections from its defaults, a YAML file, the environment, --set and flags, strictly: what it does not
// know or cannot read is an error that names the full key, and all errors are reported at once.
package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Key describes one setting.
type Key struct {
	Name    string // "trainer.learning_rate"
	Env     string // "MEAP_TRAINER_LEARNING_RATE"
	Type    string // what a value must be, in words: "a whole number"
	Default string // as YAML writes it
	Help    string // the field's tag `help`

	typ   reflect.Type
	index [2]int // of the section in the struct, of the field in the section
}

// Keys lists the settings of a configuration (a pointer to a struct whose fields are sections: structs whose fields are settings)
// in the order of the fields, with the values that the struct holds now as their defaults. Names come from the tag `mapstructure`, a section
// without one has its field's name in lower case. It panics on a struct that is not of this form: a programmer's mistake.
func Keys(cfg any) []Key {
	root := reflect.ValueOf(cfg)
	if root.Kind() != reflect.Pointer || root.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: %T is not a pointer to a struct", cfg))
	}
	root = root.Elem()
	var keys []Key
	for s := range root.NumField() {
		section := nameOf(root.Type().Field(s))
		fields := root.Field(s)
		if fields.Kind() != reflect.Struct {
			panic(fmt.Sprintf("config: section %s is not a struct", section))
		}
		for f := range fields.NumField() {
			field := fields.Type().Field(f)
			name := section + "." + nameOf(field)
			kind, ok := describe(field.Type)
			if !ok {
				panic(fmt.Sprintf("config: %s has a type that no value can be read into: %s", name, field.Type))
			}
			keys = append(keys, Key{
				Name:    name,
				Env:     envName(name),
				Type:    kind,
				Default: inline(fields.Field(f)),
				Help:    field.Tag.Get("help"),
				typ:     field.Type,
				index:   [2]int{s, f},
			})
		}
	}
	return keys
}

// nameOf is a field's name in files. Viper folds names to lower case, so others could never be found again.
func nameOf(field reflect.StructField) string {
	name := field.Tag.Get("mapstructure")
	if name == "" {
		name = strings.ToLower(field.Name)
	}
	if !field.IsExported() || name != strings.ToLower(name) || strings.ContainsAny(name, ".,- ") {
		panic(fmt.Sprintf("config: field %s cannot be named %q", field.Name, name))
	}
	return name
}

const envPrefix = "MEAP_"

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// index finds keys by name and the nearest one to a name that is none.
type index struct {
	keys     []Key
	byName   map[string]*Key
	byEnv    map[string]*Key
	sections []string
}

func newIndex(keys []Key) *index {
	ix := &index{keys: keys, byName: map[string]*Key{}, byEnv: map[string]*Key{}}
	for i := range keys {
		k := &keys[i]
		ix.byName[k.Name] = k
		ix.byEnv[k.Env] = k
		section, _, _ := strings.Cut(k.Name, ".")
		if n := len(ix.sections); n == 0 || ix.sections[n-1] != section {
			ix.sections = append(ix.sections, section)
		}
	}
	return ix
}

// unknown is the error about a name that is no key. A setting under a wrong section, or under none, is found by its own name.
func (ix *index) unknown(name string) error {
	var candidates []string
	section, field, dotted := strings.Cut(name, ".")
	if !dotted {
		section, field = "", name
	}
	byField := map[string]string{}
	for _, k := range ix.keys {
		s, f, _ := strings.Cut(k.Name, ".")
		if f == field && s != section {
			return fmt.Errorf("unknown key %s: did you mean %s?", name, k.Name)
		}
		byField[f] = k.Name
		if dotted {
			candidates = append(candidates, k.Name)
		} else {
			candidates = append(candidates, f)
		}
	}
	best, _ := nearest(name, candidates)
	if !dotted {
		best = byField[best]
	}
	return fmt.Errorf("unknown key %s: did you mean %s?", name, best)
}

// nearest returns the candidate with the fewest changed letters, the first of equals, and their number.
func nearest(name string, candidates []string) (best string, distance int) {
	if len(name) > 200 {
		name = name[:200] // the distance takes time in proportion to the length
	}
	distance = -1
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(c)); distance < 0 || d < distance {
			best, distance = c, d
		}
	}
	return best, distance
}
