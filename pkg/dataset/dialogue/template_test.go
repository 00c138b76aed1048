package dialogue

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meap/pkg/masking"
	"meap/pkg/tokenizer"
)

// flat joins ids and texts to the ids of byte-level text.
func flat(parts ...any) (ids []int32) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			ids = tokenizer.ByteLevel{}.Encode([]byte(p), ids)
		case int:
			ids = append(ids, int32(p))
		case int32:
			ids = append(ids, p)
		}
	}
	return ids
}

func TestBuiltInTemplates(t *testing.T) {
	const (
		with = "Below is an instruction that describes a task, paired with an input that provides further context. " +
			"Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:"
		without = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n" +
			"### Instruction:\nAdd 1, 2.\n\n### Response:"
	)
	start, end := chatID("<|im_start|>"), chatID("<|im_end|>")
	head, headEnd, turnEnd := chatID("<|start_header_id|>"), chatID("<|end_header_id|>"), chatID("<|eot_id|>")
	input := []Message{{Role: User, Content: "Add.\n\n1, 2", Instruction: "Add.", Input: "1, 2"}, {Role: Assistant, Content: "3"}}
	two := say("Add 1, 2.", "3", "Sure?", "Yes ")
	system := append([]Message{{Role: System, Content: "Count."}}, two[:2]...)
	for _, c := range []struct {
		template string
		messages []Message
		ids      []int32
		answers  []string
	}{
		{"plain", two, flat(bos, "Add 1, 2.\n3", eos, "Sure?\nYes ", eos), []string{"3", "Yes "}},
		{"plain", system, flat(bos, "Count.\nAdd 1, 2.\n3", eos), []string{"3"}},
		{"plain", input, flat(bos, "Add.\n\n1, 2\n3", eos), []string{"3"}},
		{"alpaca", input, flat(bos, with, "3", eos), []string{"3"}},
		{"alpaca", two, flat(bos, without, "3", eos, "\n\n### Instruction:\nSure?\n\n### Response:Yes ", eos), []string{"3", "Yes "}},
		{"alpaca", system, flat(bos, "Count.\n\n### Instruction:\nAdd 1, 2.\n\n### Response:3", eos), []string{"3"}},
		{"chatml", two, flat(start, "user\nAdd 1, 2.", end, "\n", start, "assistant\n3", end, "\n", start, "user\nSure?", end, "\n", start, "assistant\nYes ", end),
			[]string{"3", "Yes "}},
		{"llama3", system, flat(bos, head, "system", headEnd, "\n\nCount.", turnEnd, head, "user", headEnd, "\n\nAdd 1, 2.", turnEnd, head, "assistant", headEnd, "\n\n3", turnEnd),
			[]string{"3"}},
		{"llama3", two[2:], flat(bos, head, "user", headEnd, "\n\nSure?", turnEnd, head, "assistant", headEnd, "\n\nYes", turnEnd), []string{"Yes"}},
	} {
		tok := chatTokens{}
		template := loadTemplate(t, c.template, tok)
		e, err := template.Encode(c.messages)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		if !slices.Equal(e.IDs, c.ids) {
			t.Errorf("%s:\n got %q\nwant %q", c.template, tok.Decode(e.IDs), tok.Decode(c.ids))
			continue
		}
		var answers []string
		for _, a := range e.Answers {
			answers = append(answers, string(tok.Decode(e.IDs[a.Start:a.End])))
			if e.IDs[a.End] != template.End() {
				t.Errorf("%s: an answer ends with id %d, not %d", c.template, e.IDs[a.End], template.End())
			}
		}
		if !slices.Equal(answers, c.answers) {
			t.Errorf("%s: answers %q, want %q", c.template, answers, c.answers)
		}
		prompt, err := template.Prompt(c.messages[:len(c.messages)-1])
		if last := e.Answers[len(e.Answers)-1]; err != nil || !slices.Equal(prompt, e.IDs[:last.Start]) {
			t.Errorf("%s: the prompt is %q (%v), want what the last answer follows, %q", c.template, tok.Decode(prompt), err, tok.Decode(e.IDs[:last.Start]))
		}
	}
}

// TestTextSpellsNoSpecialToken writes special tokens' strings into questions and answers: they are text, in whole and nested.
func TestTextSpellsNoSpecialToken(t *testing.T) {
	tok := chatTokens{}
	for _, text := range []string{"a</s>b", "<|im_end|>\n<|im_start|>user\n", "[MASK]", "<<s>s>", "</s></s>", "<|im_<|im_end|>end|>", "x\ufdd0<s>"} {
		for _, name := range builtinNames {
			e, err := loadTemplate(t, name, tok).Encode(say("q "+text+" q", text+"."))
			if err != nil {
				t.Errorf("%s, %q: %v", name, text, err)
				continue
			}
			want := strings.ReplaceAll(text, hidden, "") + "."
			if name == "llama3" {
				want = strings.TrimSpace(want)
			}
			a := e.Answers[0]
			got := e.IDs[a.Start:a.End]
			if !slices.Equal(got, flat(want)) {
				t.Errorf("%s: the answer %q became %q (%v)", name, text, tok.Decode(got), got)
			}
		}
	}
}

func TestTemplateIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		f, err := os.CreateTemp(dir, "*.jinja")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return f.Name()
	}
	for _, c := range []struct{ template, want string }{
		{"chatml", "holds no special token"},
		{"llama3", "holds no special token"},
		{"model", "has no chat template"},
		{filepath.Join(dir, "none.jinja"), "none.jinja"},
		{file("{% for message in messages %}"), "read the template"},
		{file("{% include '/etc/passwd' %}"), "sft.template"},
		{file("{{ bos_token }}{% for m in messages %}{{ m.content }}\n{% endfor %}"), "holds no special token"},
		{file("{{ bos_token }}{% for m in messages %}{{ m.role }}{{ eos_token }}{% endfor %}"), "does not write answer 1"},
		{file("{{ bos_token }}{{ messages | length }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"), "otherwise once the answer is there"},
		{file("{{ raise_exception('no ' ~ messages[0].role) }}"), "no user"},
		{file("{% for m in messages if m.role == 'assistant' %}{{ m.content }}{{ eos_token }}{% endfor %}"), "nothing stands before"},
	} {
		if _, err := LoadTemplate(c.template, dir, tokenizer.ByteLevel{}); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "sft.template") {
			t.Errorf("%s: error %v, want %q", c.template, err, c.want)
		}
	}
}

func TestModelsOwnTemplate(t *testing.T) {
	const own = "{{ bos_token }}{% for m in messages %}{{ m.role ~ ':' ~ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
	quoted, err := json.Marshal(own)
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string]string{
		"none":   {},
		"null":   {"tokenizer_config.json": `{"chat_template": null}`},
		"string": {"tokenizer_config.json": `{"chat_template": ` + string(quoted) + `}`},
		"list":   {"tokenizer_config.json": `{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": ` + string(quoted) + `}]}`},
		"file":   {"chat_template.jinja": own, "tokenizer_config.json": `{"chat_template": "x"}`},
	} {
		dir := t.TempDir()
		for file, text := range files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		template, err := LoadTemplate(TemplateAuto, dir, tokenizer.ByteLevel{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := TemplateModel
		if name == "none" || name == "null" {
			want = "alpaca"
		} else if e, err := template.Encode(say("a", "b")); err != nil || !slices.Equal(e.IDs, flat(bos, "user:aassistant:b", eos)) {
			t.Errorf("%s: %v, %v", name, e, err)
		}
		if template.Name != want {
			t.Errorf("%s: the template is %s, want %s", name, template.Name, want)
		}
	}
	if _, err := LoadTemplate(TemplateAuto, "testdata/broken", tokenizer.ByteLevel{}); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// TestSavedTemplateIsTheModels saves each built-in template with a tokenizer, and loads it as the model's own.
func TestSavedTemplateIsTheModels(t *testing.T) {
	for _, name := range builtinNames {
		dir, tok := t.TempDir(), chatTokens{}
		if err := tok.Save(dir); err != nil {
			t.Fatal(err)
		}
		saved := loadTemplate(t, name, tok)
		if err := saved.Save(dir); err != nil {
			t.Fatal(err)
		}
		loaded, err := LoadTemplate(TemplateModel, dir, tok)
		if err != nil {
			t.Fatal(err)
		}
		if loaded.Source != saved.Source {
			t.Errorf("%s came back as %q", name, loaded.Source)
		}
		if _, err := tokenizer.Load(dir); err != nil {
			t.Errorf("%s: the tokenizer beside it: %v", name, err)
		}
	}
}

// TestIDsOfLlama2 compares with the ids that Hugging Face's tokenizer gives what transformers renders.
func TestIDsOfLlama2(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "..", "shared", "tokenizers", "llama2-mask")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("needs Llama 2's tokenizer in %s", dir)
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, c := range renderCases(t) {
		var messages []Message
		for _, m := range c.Messages {
			field := func(key string) string { s, _ := m[key].(string); return s }
			messages = append(messages, Message{Role: field("role"), Content: field("content"), Instruction: field("instruction"), Input: field("input")})
		}
		source, err := os.ReadFile(c.Template)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), filepath.Base(c.Template))
		if err := os.WriteFile(file, source, 0o644); err != nil {
			t.Fatal(err)
		}
		template, err := LoadTemplate(file, "", tok)
		if err != nil || c.Error != "" {
			continue // ends answers with tokens that Llama 2 does not have
		}
		if c.AddGenerationPrompt {
			if got, err := template.Prompt(messages); err != nil || !slices.Equal(got, c.Llama2IDs) {
				t.Errorf("%s, %s: prompt\n%v, want\n%v (%v)", c.Template, c.Dialogue, got, c.Llama2IDs, err)
			}
			compared++
			continue
		}
		if messages[len(messages)-1].Role != Assistant {
			continue
		}
		e, err := template.Encode(messages)
		if err != nil {
			t.Errorf("%s, %s: %v", c.Template, c.Dialogue, err)
			continue
		}
		if n := len(e.IDs); n > len(c.Llama2IDs) || !slices.Equal(e.IDs, c.Llama2IDs[:n]) {
			t.Errorf("%s, %s:\n got %v\nwant %v\n%q", c.Template, c.Dialogue, e.IDs, c.Llama2IDs, c.Text)
		}
		for i, a := range e.Answers {
			text := strings.TrimSpace(string(tok.Decode(e.IDs[a.Start:a.End])))
			if !strings.Contains(text, strings.TrimSpace(messages[indexOfAnswer(messages, i)].Content)) || e.IDs[a.End] != tok.EOS() {
				t.Errorf("%s, %s: answer %d is %q", c.Template, c.Dialogue, i+1, text)
			}
		}
		compared++
	}
	if compared < 20 {
		t.Errorf("only %d dialogues were compared", compared)
	}
}

func indexOfAnswer(messages []Message, n int) int {
	for i, m := range messages {
		if m.Role != Assistant {
			continue
		}
		if n == 0 {
			return i
		}
		n--
	}
	return -1
}

// FuzzEncode holds any question and answer against what a dialogue must be.
func FuzzEncode(f *testing.F) {
	f.Add("question", "answer")
	f.Add("<|im_end|>", "\ufdd0</s>")
	f.Add("{{ bos_token }}", "{% raw %}")
	tok := chatTokens{}
	var templates []*Template
	for _, name := range builtinNames {
		template, err := LoadTemplate(name, "", tok)
		if err != nil {
			f.Fatal(err)
		}
		templates = append(templates, template)
	}
	f.Fuzz(func(t *testing.T, question, answer string) {
		for _, template := range templates {
			e, err := template.Encode(say(question, answer, question, answer))
			if err != nil || blank(answer) || blank(strings.ReplaceAll(answer, hidden, "")) {
				continue
			}
			if len(e.Answers) != 2 || e.Answers[1].End != len(e.IDs)-1 {
				t.Fatalf("%s: answers %v of %d tokens", template.Name, e.Answers, len(e.IDs))
			}
			ends := 0
			for _, id := range e.IDs {
				if id == template.End() {
					ends++
				}
			}
			if want := map[string]int{"chatml": 4, "llama3": 4}[template.Name]; ends != max(2, want) {
				t.Fatalf("%s: %d ends in %q", template.Name, ends, tok.Decode(e.IDs))
			}
			for _, a := range e.Answers {
				text := string(tok.Decode(e.IDs[a.Start:a.End]))
				if strings.TrimSpace(text) != strings.TrimSpace(strings.ReplaceAll(answer, hidden, "")) {
					t.Fatalf("%s: the answer %q became %q", template.Name, answer, text)
				}
			}
			if slices.ContainsFunc(e.Answers, func(a masking.Span) bool { return a.Start < 1 }) {
				t.Fatalf("%s: answers %v", template.Name, e.Answers)
			}
		}
	})
}
