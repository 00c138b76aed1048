package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
)

// golden is what scripts/peer/tokenizer_goldens.py writes: texts with the ids
// that Hugging Face's tokenizers gives and what it decodes them to.
type golden struct {
	Tokenizer json.RawMessage
	Cases     []goldenCase
}

type goldenCase struct {
	text    string
	ids     []int32
	decoded string
}

func (c *goldenCase) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&c.text, &c.ids, &c.decoded})
}

func readGolden(t testing.TB, file string, v any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatalf("%v; write it anew with scripts/peer/tokenizer_goldens.py", err)
	}
}

// goldenTexts are the texts of all golden cases.
func goldenTexts(t testing.TB) []string {
	var texts []string
	readGolden(t, "testdata/hf/texts.json", &texts)
	if len(texts) < 90 {
		t.Fatalf("only %d texts", len(texts))
	}
	return texts
}

// llama2 returns the folder of Llama-2's tokenizer, which is too large to be
// part of the repository.
func llama2(t testing.TB) string {
	dir := filepath.Join("..", "..", "..", "shared", "tokenizers", "llama2-mask")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("Llama-2's tokenizer is not beside the repository, in ../shared/tokenizers/llama2-mask")
	}
	return dir
}

func TestIdsOfHuggingFace(t *testing.T) {
	files, err := filepath.Glob("testdata/hf/*.json")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if name == "texts" || name == "train" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var g golden
			readGolden(t, file, &g)
			var tok Tokenizer
			var err error
			if isNull(g.Tokenizer) {
				tok, err = Load(llama2(t))
			} else {
				tok, err = parse(g.Tokenizer, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(g.Cases) < 20 {
				t.Fatalf("only %d cases", len(g.Cases))
			}
			for _, c := range g.Cases {
				ids := tok.Encode([]byte(c.text), nil)
				if !slices.Equal(ids, c.ids) {
					t.Errorf("%q:\nids          %v\nHugging Face %v", c.text, ids, c.ids)
				}
				if c.decoded == c.text || !strings.Contains(c.decoded, "\uFFFD") { // else it shows broken characters, which Decode leaves as bytes
					if got := string(tok.Decode(c.ids)); got != c.decoded {
						t.Errorf("%q: decoded %q, Hugging Face %q", c.text, got, c.decoded)
					}
				}
			}
		})
	}
}

func TestUnicodeFormsOfHuggingFace(t *testing.T) {
	var cases [][5]string
	readGolden(t, "testdata/forms.json", &cases)
	if len(cases) < 500 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		for i, f := range []norm.Form{norm.NFC, norm.NFD, norm.NFKC, norm.NFKD} {
			if got := string(unicodeForm(f).normalize([]byte(c[0]), nil)); got != c[i+1] {
				t.Errorf("form %d of %+q: %+q, Hugging Face %+q", f, c[0], got, c[i+1])
			}
		}
	}
}

// A character whose lower 16 bits are those of a letter composes with nothing.
// That is what Hugging Face does; package norm composes.
func TestUnicodeFormsBeyondTheBasicPlane(t *testing.T) {
	for _, text := range []string{"\U000E0067\u0301", "\U00010041\u0300", "x\U00020061\u0308\u0301", "\U000E0061\u030A"} {
		if got := string(unicodeForm(norm.NFC).normalize([]byte(text), nil)); got != text {
			t.Errorf("NFC of %+q: %+q", text, got)
		}
	}
	for text, want := range map[string]string{"\U00011099\U000110BA": "\U0001109A", "g\u0301": "\u01F5", "\u1100\u1161\u11A8": "\uAC01", "a\u0308\u0304": "\u01DF"} {
		if got := string(unicodeForm(norm.NFC).normalize([]byte(text), nil)); got != want {
			t.Errorf("NFC of %+q: %+q, want %+q", text, got, want)
		}
	}
}
