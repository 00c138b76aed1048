package dialogue

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"meap/pkg/masking"
	"meap/pkg/tokenizer"
)

// Names of templates that are not built in.
const (
	TemplateAuto  = "auto"  // the model's own, alpaca where it has none
	TemplateModel = "model" // the model's own
)

const templateEnding = ".jinja"

// The files of a model folder that may hold its chat template, and the key in the second.
const (
	templateFile = "chat_template.jinja"
	templateKey  = "chat_template"
)

//go:embed templates
var builtin embed.FS

var builtinNames = []string{"plain", "alpaca", "llama3", "chatml"}

func isFile(name string) bool { return strings.HasSuffix(name, templateEnding) }

// Template writes dialogues as tokens. It may be used by several goroutines at once.
type Template struct {
	Name   string // as sft.template names it, never auto
	Source string // Jinja, as a model's tokenizer_config.json holds it

	jinja *jinja
	*encoder
	end int32
}

// LoadTemplate returns the template of a name (sft.template). modelDir is the folder of the model or tokenizer, which may have one of
// its own. A template that ends answers with no special token of the tokenizer is refused: what is trained with it never ends.
func LoadTemplate(name, modelDir string, tok tokenizer.Tokenizer) (*Template, error) {
	name, source, err := findTemplate(name, modelDir)
	if err != nil {
		return nil, fmt.Errorf("sft.template: %w", err)
	}
	t := &Template{Name: name, Source: source, encoder: newEncoder(tok), end: -1}
	if t.jinja, err = compile(source); err != nil {
		return nil, fmt.Errorf("sft.template = %s: read the template: %w; write it in simpler words into a %s file, or choose one of %s",
			name, err, templateEnding, strings.Join(builtinNames, ", "))
	}
	sample, err := t.Encode([]Message{{Role: User, Content: "question"}, {Role: Assistant, Content: "answer"},
		{Role: User, Content: "another question"}, {Role: Assistant, Content: "another answer"}})
	if err != nil {
		return nil, fmt.Errorf("sft.template = %s: try the template on a dialogue: %w; choose another of %s, or a tokenizer that has the template's special tokens",
			name, err, strings.Join(builtinNames, ", "))
	}
	t.end = sample.IDs[len(sample.IDs)-1]
	return t, nil
}

func findTemplate(name, modelDir string) (found, source string, err error) {
	if isFile(name) {
		text, err := os.ReadFile(name)
		return name, string(text), err
	}
	if name == TemplateAuto || name == TemplateModel {
		source, err := modelTemplate(modelDir)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return TemplateModel, source, err
		}
		if name == TemplateModel {
			return name, "", fmt.Errorf("%w; choose one of %s", err, strings.Join(builtinNames, ", "))
		}
		name = "alpaca"
	}
	text, err := builtin.ReadFile("templates/" + name + templateEnding)
	return name, string(text), err
}

// modelTemplate reads the chat template of a model's folder; the error is fs.ErrNotExist where it has none.
func modelTemplate(dir string) (string, error) {
	if dir != "" {
		text, err := os.ReadFile(filepath.Join(dir, templateFile))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return string(text), err
		}
		path := filepath.Join(dir, tokenizer.ConfigFile)
		text, err = os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err == nil {
			source, err := configTemplate(text)
			if err != nil {
				return "", fmt.Errorf("read %s: %w", path, err)
			}
			if source != "" {
				return source, nil
			}
		}
	}
	return "", fmt.Errorf("the model folder %q has no chat template: %w", dir, fs.ErrNotExist)
}

// configTemplate finds the template in a tokenizer_config.json: a string, or a list of which one is called default.
func configTemplate(text []byte) (string, error) {
	var c struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return "", err
	}
	if len(c.Template) == 0 || string(c.Template) == "null" {
		return "", nil
	}
	if c.Template[0] == '"' {
		var source string
		return source, json.Unmarshal(c.Template, &source)
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(c.Template, &list); err != nil {
		return "", fmt.Errorf("%s: %w", templateKey, err)
	}
	for _, t := range list {
		if t.Name == "default" {
			return t.Template, nil
		}
	}
	return "", nil
}

// Save puts the template into the tokenizer_config.json of a model's folder that is being written, so that other tools ask the model
// as it was trained.
func (t *Template) Save(dir string) error {
	path := filepath.Join(dir, tokenizer.ConfigFile)
	c := map[string]json.RawMessage{}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put the chat template into %s: %w", path, err)
	}
	if c[templateKey], err = json.Marshal(t.Source); err != nil {
		return err
	}
	if text, err = json.MarshalIndent(c, "", "  "); err != nil {
		return err
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("put the chat template into %s: %w", path, err)
	}
	return nil
}

// End is the id that ends an answer.
func (t *Template) End() int32 { return t.end }

// render writes messages as text. With prompt, the words that an answer follows are written after the last one.
func (t *Template) render(messages []map[string]any, prompt bool) (string, error) {
	text, err := t.jinja.render(map[string]any{
		"messages": messages, "add_generation_prompt": prompt, "bos_token": t.token(t.tok.BOS()), "eos_token": t.token(t.tok.EOS()),
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errTemplate, err)
	}
	return text, nil
}

func (t *Template) token(id int32) string {
	if id < 0 {
		return ""
	}
	return string(t.tok.Decode([]int32{id}))
}

// variables are messages as templates see them.
func (t *Template) variables(messages []Message) []map[string]any {
	all := make([]map[string]any, len(messages))
	for i, m := range messages {
		all[i] = map[string]any{"role": m.Role, "content": t.hide(m.Content)}
		if m.Input != "" {
			all[i]["instruction"], all[i]["input"] = t.hide(m.Instruction), t.hide(m.Input)
		}
	}
	return all
}

// Prompt returns the tokens of a dialogue that waits for an answer.
func (t *Template) Prompt(messages []Message) ([]int32, error) {
	text, err := t.render(t.variables(messages), true)
	if err != nil {
		return nil, err
	}
	return t.encode(text, nil), nil
}

// Example is a dialogue as tokens, with which of them are answers.
type Example struct {
	IDs     []int32        // ends with the end of the last answer
	Answers []masking.Span // IDs[End] is the token that ends the answer, and is no part of it
	Bytes   []int          // of each answer's text
}

// Encode returns the tokens of a dialogue. What the template writes after the last answer's end is left out.
func (t *Template) Encode(messages []Message) (Example, error) {
	var e Example
	vars := t.variables(messages)
	done, before := "", "" // the text so far, and the special token that it ends with
	for i, m := range messages {
		if m.Role != Assistant {
			continue
		}
		prompt, err := t.render(vars[:i], true)
		if err != nil {
			return e, err
		}
		full, err := t.render(vars[:i+1], false)
		if err != nil {
			return e, err
		}
		if !strings.HasPrefix(prompt, done) || !strings.HasPrefix(full, prompt) {
			return e, fmt.Errorf("%w: it writes what comes before answer %d otherwise once the answer is there", errTemplate, len(e.Answers)+1)
		}
		content := strings.TrimSpace(vars[i]["content"].(string))
		written, rest, ok := strings.Cut(full[len(prompt):], content)
		if !ok {
			return e, fmt.Errorf("%w: it does not write answer %d as it is", errTemplate, len(e.Answers)+1)
		}
		var end []int
		if t.pattern != nil {
			end = t.pattern.FindStringIndex(rest)
		}
		if end == nil {
			return e, fmt.Errorf("%w: it ends an answer with %q, which holds no special token of the tokenizer", errTemplate, rest)
		}
		question, answer := prompt[len(done):], written+content+rest[:end[1]]
		q, a := t.turn(before, question, answer)
		done, before = prompt+answer, rest[end[0]:end[1]]
		span := masking.Span{Start: len(e.IDs) + len(q), End: len(e.IDs) + len(q) + len(a) - 1}
		switch {
		case len(a) < 2:
			return e, fmt.Errorf("%w: answer %d has no tokens", errEmptyAnswer, len(e.Answers)+1)
		case span.Start == 0:
			return e, fmt.Errorf("%w: nothing stands before the first answer, from which it could be predicted", errTemplate)
		case a[len(a)-1] != t.special[before]:
			return e, fmt.Errorf("%w: the token %q at the end of an answer is not written by itself", errTemplate, before)
		}
		e.IDs = append(append(e.IDs, q...), a...)
		e.Answers = append(e.Answers, span)
		e.Bytes = append(e.Bytes, len(m.Content))
	}
	return e, nil
}

// turns returns the example's first n answers and what comes before them.
func (e Example) turns(n int) Example {
	return Example{IDs: e.IDs[:e.Answers[n-1].End+1], Answers: e.Answers[:n], Bytes: e.Bytes[:n]}
}
