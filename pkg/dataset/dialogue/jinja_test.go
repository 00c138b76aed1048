package dialogue

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// renderCase is one rendering by Hugging Face transformers, see scripts/peer/chat_templates.py.
type renderCase struct {
	Template            string           `json:"template"`
	Dialogue            string           `json:"dialogue"`
	Messages            []map[string]any `json:"messages"`
	AddGenerationPrompt bool             `json:"add_generation_prompt"`
	BOS                 string           `json:"bos_token"`
	EOS                 string           `json:"eos_token"`
	Text                string           `json:"text"`
	Error               string           `json:"error"`
	Llama2IDs           []int32          `json:"llama2_ids"`
}

func renderCases(t *testing.T) []renderCase {
	t.Helper()
	data, err := os.ReadFile("testdata/chat_templates.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct{ Cases []renderCase }
	if err := json.Unmarshal(data, &golden); err != nil || len(golden.Cases) == 0 {
		t.Fatalf("%d cases, %v", len(golden.Cases), err)
	}
	return golden.Cases
}

func TestTemplatesRenderAsTransformersDoes(t *testing.T) {
	compiled := map[string]*jinja{}
	for _, c := range renderCases(t) {
		if compiled[c.Template] == nil {
			source, err := os.ReadFile(c.Template)
			if err != nil {
				t.Fatal(err)
			}
			if compiled[c.Template], err = compile(string(source)); err != nil {
				t.Fatalf("%s: %v", c.Template, err)
			}
		}
		text, err := compiled[c.Template].render(map[string]any{
			"messages": c.Messages, "add_generation_prompt": c.AddGenerationPrompt, "bos_token": c.BOS, "eos_token": c.EOS,
		})
		switch {
		case c.Error != "":
			if err == nil || !strings.Contains(err.Error(), c.Error) {
				t.Errorf("%s, %s: error %v, want %q", c.Template, c.Dialogue, err, c.Error)
			}
		case err != nil:
			t.Errorf("%s, %s: %v", c.Template, c.Dialogue, err)
		case text != c.Text:
			t.Errorf("%s, %s, generation prompt %v:\n%q, transformers renders\n%q", c.Template, c.Dialogue, c.AddGenerationPrompt, text, c.Text)
		}
	}
}
