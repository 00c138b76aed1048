package dialogue

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// jinja is a compiled chat template, rendered as Hugging Face transformers renders one (utils/chat_template_utils.py): the first
// line break after a block and the blanks before one are removed; raise_exception, strftime_now, break, continue and generation
// blocks are known; tojson keeps the order of keys and escapes neither HTML nor other scripts. A template reads no files.
type jinja struct{ template *exec.Template }

const rootTemplate = "/chat_template"

func compile(source string) (t *jinja, err error) {
	defer recovered(&err)
	loader, err := loaders.NewMemoryLoader(map[string]string{rootTemplate: source})
	if err != nil {
		return nil, err
	}
	c := config.New()
	c.TrimBlocks, c.LeftStripBlocks = true, true
	compiled, err := exec.NewTemplate(rootTemplate, c, loader, environment())
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), source, "...")) // the engine quotes the whole template
	}
	return &jinja{compiled}, nil
}

// render gives the text for the variables of a template. It may be called by several goroutines at once.
func (t *jinja) render(variables map[string]any) (text string, err error) {
	defer recovered(&err)
	return t.template.ExecuteToString(exec.NewContext(variables))
}

// recovered turns a panic of the template engine over a template that it cannot read into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the template engine failed: %v", p)
	}
}

func environment() *exec.Environment {
	functions := exec.NewContext(map[string]any{
		"raise_exception": func(_ *exec.Evaluator, params *exec.VarArgs) (string, error) {
			if len(params.Args) == 0 {
				return "", errors.New("the template refuses this dialogue")
			}
			return "", errors.New(params.Args[0].String())
		},
		"strftime_now": func(_ *exec.Evaluator, params *exec.VarArgs) (string, error) {
			if len(params.Args) != 1 {
				return "", errors.New("strftime_now takes one format")
			}
			return strftime(trainingDay, params.Args[0].String()), nil
		},
	})
	filters := exec.NewFilterSet(map[string]exec.FilterFunction{}).Update(builtins.Filters).
		Update(exec.NewFilterSet(map[string]exec.FilterFunction{"tojson": toJSON}))
	structures := exec.NewControlStructureSet(map[string]parser.ControlStructureParser{"generation": parseGeneration}).
		Update(builtins.ControlStructures)
	methods := builtins.Methods
	methods.Str = stringMethods()
	return &exec.Environment{
		Context:           exec.EmptyContext().Update(builtins.GlobalFunctions).Update(builtins.GlobalVariables).Update(functions),
		Filters:           filters,
		Tests:             builtins.Tests,
		ControlStructures: structures,
		Methods:           methods,
	}
}

// trainingDay is today to templates that write the date into the system message: a fixed one, so that the same data gives the same
// rows on every day.
var trainingDay = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

// strftime knows the directives that dates are written with.
func strftime(t time.Time, format string) string {
	return strings.NewReplacer("%%", "%", "%d", t.Format("02"), "%m", t.Format("01"), "%Y", t.Format("2006"), "%y", t.Format("06"),
		"%b", t.Format("Jan"), "%B", t.Format("January"), "%a", t.Format("Mon"), "%A", t.Format("Monday"), "%H", t.Format("15"),
		"%M", t.Format("04"), "%S", t.Format("05")).Replace(format)
}

// stringMethods are the engine's, with strip, lstrip and rstrip as Python has them: without an argument they take all white space,
// not blanks alone, and what they take may be longer than a byte.
func stringMethods() *exec.MethodSet[string] {
	methods := map[string]exec.Method[string]{
		"strip":  stripMethod(strings.TrimFunc),
		"lstrip": stripMethod(strings.TrimLeftFunc),
		"rstrip": stripMethod(strings.TrimRightFunc),
	}
	for _, name := range []string{"capitalize", "count", "endswith", "find", "format", "isalnum", "isalpha", "isdigit", "islower", "isspace",
		"isupper", "join", "lower", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rpartition", "rsplit", "split",
		"splitlines", "startswith", "swapcase", "title", "upper", "zfill"} {
		if m, ok := builtins.Methods.Str.Get(name); ok {
			methods[name] = m
		}
	}
	return exec.NewMethodSet(methods)
}

func stripMethod(trim func(string, func(rune) bool) string) exec.Method[string] {
	return func(self string, _ *exec.Value, arguments *exec.VarArgs) (any, error) {
		switch {
		case len(arguments.Args) > 1 || len(arguments.KwArgs) > 0:
			return nil, exec.ErrInvalidCall(errors.New("strip takes at most the characters to remove"))
		case len(arguments.Args) == 0 || arguments.Args[0].IsNil():
			return trim(self, unicode.IsSpace), nil
		}
		cut := arguments.Args[0].String()
		return trim(self, func(r rune) bool { return strings.ContainsRune(cut, r) }), nil
	}
}

// toJSON is the filter tojson as transformers defines it: json.dumps(value, ensure_ascii=False, indent=indent).
func toJSON(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if in.IsError() {
		return in
	}
	var w jsonWriter
	if indent := params.KwArgs["indent"]; indent != nil && indent.IsInteger() {
		w.indent, w.lines = indent.Integer(), true
	}
	if err := w.write(in.Interface(), 0); err != nil {
		return exec.AsValue(fmt.Errorf("tojson: %w", err))
	}
	return exec.AsSafeValue(w.String())
}

// jsonWriter writes JSON with Python's separators.
type jsonWriter struct {
	bytes.Buffer
	indent int
	lines  bool
}

func (w *jsonWriter) write(v any, depth int) error {
	switch v := v.(type) {
	case *exec.Value:
		return w.write(v.Interface(), depth)
	case *exec.Dict:
		return w.list('{', '}', len(v.Pairs), depth, func(i int) error { return w.pair(v.Pairs[i].Key.String(), v.Pairs[i].Value, depth) })
	case map[string]any:
		keys := slices.SortedFunc(maps.Keys(v), compareKeys)
		return w.list('{', '}', len(keys), depth, func(i int) error { return w.pair(keys[i], v[keys[i]], depth) })
	case []any:
		return w.list('[', ']', len(v), depth, func(i int) error { return w.write(v[i], depth+1) })
	case []map[string]any:
		return w.list('[', ']', len(v), depth, func(i int) error { return w.write(v[i], depth+1) })
	case exec.ValuesList:
		return w.list('[', ']', len(v), depth, func(i int) error { return w.write(v[i], depth+1) })
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	w.Truncate(w.Len() - 1) // the line break
	return nil
}

func (w *jsonWriter) pair(key string, v any, depth int) error {
	if err := w.write(key, depth); err != nil {
		return err
	}
	w.WriteString(": ")
	return w.write(v, depth+1)
}

func (w *jsonWriter) list(begin, end byte, n, depth int, item func(int) error) error {
	w.WriteByte(begin)
	for i := range n {
		switch {
		case w.lines && i > 0:
			w.WriteByte(',')
		case i > 0:
			w.WriteString(", ")
		}
		w.newLine(depth + 1)
		if err := item(i); err != nil {
			return err
		}
	}
	if n > 0 {
		w.newLine(depth)
	}
	w.WriteByte(end)
	return nil
}

func (w *jsonWriter) newLine(depth int) {
	if w.lines {
		w.WriteString("\n" + strings.Repeat(" ", w.indent*depth))
	}
}

// messageKeys is the order in which a message's keys are written everywhere.
var messageKeys = []string{"role", "content", "instruction", "input"}

// compareKeys puts a message's keys first, in their order; other keys follow by name.
func compareKeys(a, b string) int {
	rank := func(key string) int {
		if i := slices.Index(messageKeys, key); i >= 0 {
			return i
		}
		return len(messageKeys)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

// generation is the block {% generation %} ... {% endgeneration %}, with which templates mark the assistant's text for transformers.
type generation struct {
	at   *tokens.Token
	body *nodes.Wrapper
}

func parseGeneration(p *parser.Parser, args *parser.Parser) (nodes.ControlStructure, error) {
	g := &generation{at: p.Current()}
	body, _, err := p.WrapUntil("endgeneration")
	if err != nil {
		return nil, err
	}
	if !args.End() {
		return nil, args.Error("generation takes no arguments", args.Current())
	}
	g.body = body
	return g, nil
}

// Position and String implement nodes.ControlStructure.
func (g *generation) Position() *tokens.Token { return g.at }
func (g *generation) String() string          { return "generation" }

// Execute renders what is inside.
func (g *generation) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	return r.ExecuteWrapper(g.body)
}
