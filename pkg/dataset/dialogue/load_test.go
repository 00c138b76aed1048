package dialogue

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"meap/pkg/masking"
	"meap/pkg/tokenizer"
)

func TestForms(t *testing.T) {
	const alpaca = `{"instruction": "Add.", "input": "1 and 2", "output": "3"}`
	forms := map[string]string{
		"alpaca":         `{"instruction": "Hi.", "input": "", "output": "Yes."}`,
		"alpaca, null":   `{"instruction": "Hi.", "input": null, "output": "Yes."}`,
		"share gpt":      `{"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Yes."}]}`,
		"chat":           `{"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes."}], "id": 7}`,
		"chat, its name": `{"conversations": [{"role": "User", "content": "Hi."}, {"role": "assistant", "content": "Yes."}]}`,
		"self-instruct":  `{"instruction": "Hi.", "instances": [{"input": "", "output": "Yes."}]}`,
	}
	for name, text := range forms {
		got, err := parse([]byte(text))
		if err != nil || len(got) != 1 || !slices.Equal(got[0], say("Hi.", "Yes.")) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	want := []Message{{Role: User, Content: "Add.\n\n1 and 2", Instruction: "Add.", Input: "1 and 2"}, {Role: Assistant, Content: "3"}}
	if got, err := parse([]byte(alpaca)); err != nil || !slices.Equal(got[0], want) {
		t.Errorf("%v, %v", got, err)
	}
	system := `{"messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes."}]}`
	if got, err := parse([]byte(system)); err != nil || got[0][0] != (Message{Role: System, Content: "Be."}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := parse([]byte(`{"instruction": "x", "instances": [{"output": "1"}, {"input": "y", "output": "2"}]}`)); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}

// problems are lines that cannot be used, with what is said about each.
var problems = []struct{ line, want string }{
	{`{"instruction": "x", "output"`, "a broken line"},
	{"{\"instruction\": \"x\", \"output\": \"\xff\"}", "a broken line: it is not UTF-8"},
	{`[1, 2`, "a broken line"},
	{`{"instruction": 7, "output": "x"}`, "a broken line"},
	{`{"text": "x"}`, "none of the known forms"},
	{`{"instruction": "x"}`, "none of the known forms: it has an instruction and no output"},
	{`{"messages": [{"role": "user", "content": null}]}`, "none of the known forms: message 1"},
	{`{"messages": [{"role": "user", "content": [{"type": "text"}]}]}`, "a broken line"},
	{`{"messages": [{"role": "user", "content": "x"}]}`, "a role out of order: the last message is not the assistant's"},
	{`{"messages": []}`, "a role out of order"},
	{`{"messages": [{"role": "assistant", "content": "x"}]}`, "a role out of order: message 1 is the assistant's, where the user's was due"},
	{`{"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}, {"role": "assistant", "content": "z"}]}`, "a role out of order: message 2"},
	{`{"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}, {"role": "assistant", "content": "z"}]}`, "a role out of order: message 2"},
	{`{"messages": [{"role": "tool", "content": "x"}]}`, `a role out of order: message 1 has the unknown role "tool"`},
	{`{"instruction": "x", "output": " \n"}`, "an empty answer"},
	{`{"instruction": " ", "output": "x"}`, "an empty message: the instruction"},
	{`{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "z"}]}`, "an empty message: message 1"},
	{`{"instruction": "` + strings.Repeat("a", 62) + `", "output": "x"}`, "too long: the first answer ends at token 66 (question 64)"},
	{`{"instruction": "a", "output": "` + strings.Repeat("a", 63) + `"}`, "too long: the first answer ends at token 67 (question 3)"},
}

func TestWhatCannotBeUsedIsCountedOrAnError(t *testing.T) {
	const good = `{"instruction": "Hi.", "output": "Yes."}`
	o := options(t, Config{Copies: CopiesRows, Ratio: 0.1, MinTarget: 50}, 64)
	text := "\ufeff" + good + "\n\n"
	for _, p := range problems {
		text += p.line + "\n"
	}
	text += good
	s, err := load(t, o, 0, map[string]string{"x.jsonl": text})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Train) != 2 || s.Report.Dialogues != 2+len(problems) || len(s.Report.Skipped) != len(problems) {
		t.Errorf("%d examples and %d left out of %d", len(s.Train), len(s.Report.Skipped), s.Report.Dialogues)
	}
	for i, p := range problems {
		if got := s.Report.Skipped[i]; got.Line != i+3 || !strings.HasSuffix(got.File, "x.jsonl") || !strings.HasPrefix(got.Err.Error(), p.want) {
			t.Errorf("line %d: %v, want %q", i+3, got, p.want)
		}
	}
	if text := s.Report.String(); !strings.Contains(text, "a broken line: 5 (first ") || !strings.Contains(text, "x.jsonl:3)") || !strings.Contains(text, "too long: 2 (") {
		t.Errorf("the report says %s", text)
	}
	o.Config.Strict = true
	for _, p := range problems {
		_, err := load(t, o, 0, map[string]string{"x.jsonl": good + "\n" + p.line})
		if err == nil || !strings.Contains(err.Error(), "x.jsonl:2: "+p.want) {
			t.Errorf("sft.strict: %v, want %q", err, p.want)
		}
	}
}

// TestLimit puts dialogues at the very limit: all that is kept ends with the end of an answer, whole.
func TestLimit(t *testing.T) {
	const seq = 64
	for _, c := range []Config{{Copies: CopiesRows, Ratio: 0}, {Copies: CopiesRows, Ratio: 0.1, MinTarget: 5}, {Copies: CopiesConcat, Ratio: 0.1, MinTarget: 5}} {
		o := options(t, c, seq)
		for question := 1; question < 70; question += 3 {
			for answer := 1; answer < 70; answer++ {
				// <s> question \n answer </s> ? \n ok </s>
				line := fmt.Sprintf(`{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "%s"}, {"role": "user", "content": "?"}, {"role": "assistant", "content": "ok"}]}`,
					strings.Repeat("q", question), strings.Repeat("a", answer))
				m := o.make([]byte(line))
				inputs := func(n int) int {
					if c.Copies == CopiesConcat && answer > 5 {
						return 2*n - 1
					}
					return n - 1
				}
				first := 1 + question + 1 + answer + 1
				switch both := first + 5; {
				case inputs(both) <= seq:
					if len(m.examples) != 1 || len(m.examples[0].IDs) != both || m.cut != 0 {
						t.Fatalf("%+v, question %d, answer %d: %+v, want all %d tokens", c, question, answer, m, both)
					}
				case inputs(first) <= seq:
					if len(m.examples) != 1 || len(m.examples[0].IDs) != first || m.examples[0].IDs[first-1] != eos || m.cut != 1 {
						t.Fatalf("%+v, question %d, answer %d: %+v, want the first turn of %d tokens", c, question, answer, m, first)
					}
				default:
					if len(m.examples) != 0 || len(m.problems) != 1 || !errors.Is(m.problems[0], errTooLong) {
						t.Fatalf("%+v, question %d, answer %d: %+v, want it to be too long", c, question, answer, m)
					}
				}
			}
		}
	}
}

func TestFiles(t *testing.T) {
	o := options(t, Config{Copies: CopiesRows, Ratio: 0.1, MinTarget: 50}, 64)
	line := func(answer string) string { return `{"instruction": "Hi.", "output": "` + answer + `"}` }
	var zipped, packed bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(line("gz")))
	_ = z.Close()
	p, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = p.Write([]byte(line("zst")))
	_ = p.Close()
	s, err := load(t, o, 0, map[string]string{
		"a.jsonl": line("lines") + "\r\n" + line("more"), "b.jsonl.gz": zipped.String(), "c.jsonl.zst": packed.String(),
		"d.json": "[\n" + line("array") + ",\n\n" + line(" ") + ", " + line("end") + "]\n", "e.txt": "not a dialogue",
	})
	if err != nil {
		t.Fatal(err)
	}
	var answers []string
	for _, e := range s.Train {
		answers = append(answers, string(tokenizer.ByteLevel{}.Decode(e.IDs[e.Answers[0].Start:e.Answers[0].End])))
	}
	if want := []string{"lines", "more", "gz", "zst", "array", "end"}; !slices.Equal(answers, want) {
		t.Errorf("answers %q, want %q", answers, want)
	}
	if len(s.Report.Skipped) != 1 || s.Report.Skipped[0].Line != 4 {
		t.Errorf("left out: %v, want line 4 of d.json", s.Report.Skipped)
	}
	for name, text := range map[string]string{
		"broken.json": "[" + line("x") + ", {", "open.json": "[" + line("x"), "bad.jsonl.gz": "no gzip", "none.jsonl": `{"a": 1}`, "cut.jsonl.gz": zipped.String()[:20], "empty.jsonl": "",
	} {
		if _, err := load(t, o, 0, map[string]string{name: text}); err == nil || !strings.Contains(err.Error(), "data.sources") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestHoldOut(t *testing.T) {
	o := options(t, Config{Copies: CopiesRows, Ratio: 0.1, MinTarget: 50}, 128)
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "{\"instruction\": \"%d\", \"output\": \"x\"}\n", i%180) // twenty of them twice
	}
	s, err := load(t, o, 0.1, map[string]string{"x.jsonl": text.String()})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Validation); n < 20 || n > 22 || n+len(s.Train) != 200 {
		t.Errorf("%d held out and %d left of 200", n, len(s.Train))
	}
	train := map[string]bool{}
	for _, e := range s.Train {
		train[fmt.Sprint(e.IDs)] = true
	}
	for _, e := range s.Validation {
		if train[fmt.Sprint(e.IDs)] {
			t.Errorf("%v is on both sides", e.IDs)
		}
	}
	again, err := load(t, o, 0.1, map[string]string{"x.jsonl": text.String()})
	if err != nil || again.Fingerprint() != s.Fingerprint() {
		t.Errorf("loaded again, the training examples differ (%v)", err)
	}
	if other, err := load(t, o, 0.2, map[string]string{"x.jsonl": text.String()}); err != nil || other.Fingerprint() == s.Fingerprint() {
		t.Errorf("other training examples have the same fingerprint (%v)", err)
	}
	one := map[string]string{"x.jsonl": "{\"instruction\": \"a\", \"output\": \"x\"}\n{\"instruction\": \"b\", \"output\": \"\"}\n"}
	if _, err := load(t, o, 0.1, one); err == nil || !strings.Contains(err.Error(), "data.validation_fraction = 0.1 holds out all that can be trained on, 1 of 2") {
		t.Errorf("the only dialogue is held out: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	for _, p := range problems {
		f.Add([]byte(p.line))
	}
	f.Add([]byte(`{"messages": [{"role": "system", "content": "</s>"}, {"role": "user", "content": "<s>[MASK]"}, {"role": "assistant", "content": "a\ufdd0</s>"}]}`))
	policy := Config{Copies: CopiesConcat, Ratio: 0.3, MinTarget: 3}
	template, err := LoadTemplate("plain", "", tokenizer.ByteLevel{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		o := options(t, policy, 128)
		o.Template = template
		m := o.make(line)
		for _, e := range m.examples {
			for _, a := range e.Answers {
				if a.Start < 1 || a.Len() < 1 || e.IDs[a.End] != eos {
					t.Fatalf("answer %v of %v", a, e.IDs)
				}
			}
			for i, id := range e.IDs {
				end := slices.ContainsFunc(e.Answers, func(a masking.Span) bool { return a.End == i })
				if id >= bos && !(id == bos && i == 0) && !(id == eos && end) {
					t.Fatalf("the special token %d at %d comes from the text %q", id, i, line)
				}
			}
			for _, size := range o.pieces(e) {
				if size > o.Seq {
					t.Fatalf("%d tokens in a row of %d", size, o.Seq)
				}
			}
		}
	})
}
