package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes is far above any configuration; it keeps a data file that was named by mistake from being parsed.
const maxFileBytes = 1 << 20

// readFile reads the settings of a YAML file into values. Every problem is reported with file and line; what could be read is
// in values all the same.
func (ix *index) readFile(path string, values map[string]any) (problems []error) {
	unreadable := func(err error) []error {
		if pathError, ok := errors.AsType[*fs.PathError](err); ok {
			err = pathError.Err // the path is named already
		}
		return []error{fmt.Errorf("configuration %s: %w", path, err)}
	}
	file, err := os.Open(path)
	if err != nil {
		return unreadable(err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return unreadable(err)
	}
	if len(data) > maxFileBytes {
		return []error{fmt.Errorf("configuration %s: more than %d bytes: is this a configuration?", path, maxFileBytes)}
	}
	return ix.readYAML(path, data, values)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)

// readYAML reads the settings of a YAML text; path is for messages. The document is read as nodes, not as maps, because only
// nodes know lines, and because names given twice would be lost in a map.
func (ix *index) readYAML(path string, data []byte, values map[string]any) (problems []error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return []error{yamlError(path, err)}
	}
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		return []error{fmt.Errorf("%s:%d: a second document: keep one", path, second.Line)}
	} else if !errors.Is(err, io.EOF) {
		return []error{yamlError(path, err)}
	}
	w := walker{ix: ix, path: path, values: values}
	for _, root := range document.Content {
		w.sections(root)
	}
	return w.problems
}

func yamlError(path string, err error) error {
	text := err.Error()
	place := path
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if m[1] != "" {
			place += ":" + m[1]
		}
	}
	if strings.Contains(text, "cannot start any token") {
		text += " (a tab? YAML is indented with spaces)"
	}
	return fmt.Errorf("%s: not valid YAML: %s", place, text)
}

// walker goes through the two levels of a document: sections and their settings.
type walker struct {
	ix       *index
	path     string
	values   map[string]any
	problems []error
}

func (w *walker) problem(node *yaml.Node, format string, args ...any) {
	w.problems = append(w.problems, fmt.Errorf("%s:%d: %w", w.path, node.Line, fmt.Errorf(format, args...)))
}

// entries calls visit for each entry of a mapping, and reports names that are no text, given twice, or merged.
func (w *walker) entries(mapping *yaml.Node, prefix string, visit func(name string, at, value *yaml.Node)) {
	lines := map[string]int{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		at, value := mapping.Content[i], mapping.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if at.Kind != yaml.ScalarNode {
			w.problem(at, "a key must be a name")
			continue
		}
		if at.Tag == "!!merge" {
			w.problem(at, "<< is not supported: write the keys out")
			continue
		}
		if first, twice := lines[at.Value]; twice {
			w.problem(at, "%s%s is given twice, first in line %d", prefix, at.Value, first)
			continue
		}
		lines[at.Value] = at.Line
		visit(at.Value, at, value)
	}
}

func (w *walker) sections(root *yaml.Node) {
	if isNull(root) {
		return
	}
	if root.Kind != yaml.MappingNode {
		w.problem(root, "expected sections such as %s:", w.ix.sections[0])
		return
	}
	w.entries(root, "", func(name string, at, value *yaml.Node) {
		switch {
		case !slices.Contains(w.ix.sections, name):
			w.unknownSection(name, at, value)
		case isNull(value): // a section all of whose keys are comments
		case value.Kind != yaml.MappingNode:
			w.problem(at, "%s is a section: write its keys below it, each in a line of its own", name)
		default:
			w.entries(value, name+".", func(field string, at, value *yaml.Node) { w.setting(name+"."+field, at, value) })
		}
	})
}

// unknownSection reports a name at the top that is no section.
func (w *walker) unknownSection(name string, at, value *yaml.Node) {
	if section, field, _ := strings.Cut(name, "."); w.ix.byName[name] != nil {
		w.problem(at, "%s: write it as section %s: with %s: below it", name, section, field)
		return
	}
	best, distance := nearest(name, w.ix.sections)
	if value.Kind != yaml.MappingNode && distance > 2 {
		w.problem(at, "%w", w.ix.unknown(name)) // a setting that was written at the top
		return
	}
	w.problem(at, "unknown section %s: did you mean %s?", name, best)
}

func (w *walker) setting(name string, at, value *yaml.Node) {
	key := w.ix.byName[name]
	if key == nil {
		w.problem(at, "%w", w.ix.unknown(name))
		return
	}
	if isNull(value) {
		return // `key:` with nothing after it leaves the default
	}
	v, err := parseNode(value, key.typ)
	if err != nil {
		w.problem(at, "%w", mismatch(key, nodeText(value), err))
		return
	}
	w.values[name] = v
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

// nodeText is a value as a message shows it.
func nodeText(node *yaml.Node) string {
	if node.Kind == yaml.ScalarNode {
		return node.Value
	}
	if node.Kind == yaml.MappingNode {
		return "{...}"
	}
	return "[...]"
}
