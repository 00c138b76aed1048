package facts

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// One document, planted by hand: five lines of text have six places, and a line at the share s of them goes before line floor(6 s).
func TestInsert(t *testing.T) {
	text := "one\ntwo\nthree\nfour\nfive\n"
	at := func(share float64) int { return int(share * places) }
	lines := []planted{
		{at(0.5), "b: 2"}, // floor(3.0): before the fourth line
		{at(0.1), "a: 1"}, // floor(0.6): before the first
		{at(0.5), "b? 2"}, // the same place, later in the list
		{at(0.99), "a? 1"},
		{at(0.34), "c: 3"}, // floor(2.04): before the third
		{at(0.66), "c? 3"}, // floor(3.96): before the fourth, after what is at 0.5
	}
	want := "a: 1\none\ntwo\nc: 3\nthree\nb: 2\nb? 2\nc? 3\nfour\nfive\na? 1\n"
	if got := string(insert([]byte(text), lines)); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		text        string
		size        int
		piece, rest string
	}{
		{"abcdef", 4, "abc\n", "def"},
		{"abc", 4, "abc\n", ""},
		{"ab", 4, "", ""},                         // too short
		{"abé", 4, "ab\n\n", "é"},                 // é has two bytes
		{"a世界", 6, "a世\n\n", "界"},                 // 世 has three
		{"\xff\xfe\xfd", 3, "\xff\xfe\n", "\xfd"}, // no UTF-8
		{"\x80\x80\x80", 3, "\x80\x80\n", "\x80"}, // nor this, where no byte begins a character
	} {
		piece, rest := cut([]byte(c.text), c.size)
		if string(piece) != c.piece || string(rest) != c.rest {
			t.Errorf("cut(%q, %d) = %q, %q, want %q, %q", c.text, c.size, piece, rest, c.piece, c.rest)
		}
	}
}

var (
	factLine     = regexp.MustCompile(`^([a-z]{4})=(\d{3})$`)
	questionLine = regexp.MustCompile(`^([a-z]{4})\?(\d{3})$`)
)

// source has lines of many lengths, none of which looks like a fact, and characters of several bytes.
func source(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d %s\n", i, strings.Repeat("é世x", i%9))
	}
	return b.Bytes()
}

// Every document has the length asked for, states each fact once and asks only for what it has stated, rightly; without the planted
// lines and the line breaks it is the text.
func TestDocuments(t *testing.T) {
	c := DefaultConfig()
	c.PerDocument, c.Questions, c.DocumentBytes = 6, 14, 400
	text := source(20000)
	var left []byte
	documents, having := 0, map[int]int{}
	for d := range (Planter{Config: c}).Documents(text) {
		documents++
		if len(d.Text) != c.DocumentBytes || !utf8.Valid(d.Text) || !bytes.HasSuffix(d.Text, []byte("\n")) {
			t.Fatalf("document %d: %d bytes: %q", documents, len(d.Text), d.Text)
		}
		stated, asked := map[string]string{}, map[string]int{}
		for line := range strings.SplitSeq(string(d.Text), "\n") {
			if m := factLine.FindStringSubmatch(line); m != nil {
				if _, twice := stated[m[1]]; twice {
					t.Errorf("document %d states %s twice", documents, m[1])
				}
				stated[m[1]] = m[2]
			} else if m := questionLine.FindStringSubmatch(line); m != nil {
				if stated[m[1]] != m[2] {
					t.Errorf("document %d: %q, but before it %q", documents, line, stated[m[1]])
				}
				asked[m[1]]++
			} else {
				left = append(left, line...)
			}
		}
		for _, f := range d.Facts {
			if stated[f.Name] != f.Code {
				t.Errorf("document %d: %v is not in it", documents, f)
			}
			if n, each := asked[f.Name], 14/len(d.Facts); n != each && n != each+1 {
				t.Errorf("document %d asks %d times for %s, one of %d facts", documents, n, f.Name, len(d.Facts))
			}
		}
		if n := len(d.Facts); n != len(stated) || n < 1 || n > 6 {
			t.Errorf("document %d has %d facts", documents, n)
		} else {
			having[n]++
		}
	}
	if len(having) != 6 {
		t.Errorf("documents by their number of facts: %v, want some with each from 1 to 6", having)
	}
	want := bytes.ReplaceAll(text, []byte("\n"), nil)
	if documents < 50 || !bytes.HasPrefix(want, left) || len(want)-len(left) > c.DocumentBytes {
		t.Errorf("%d documents hold %d bytes of a text of %d", documents, len(left), len(want))
	}
}

// A document is the same whenever it is made; another text, and another place in a text, have other facts.
func TestDocumentsAreAFunctionOfTheText(t *testing.T) {
	p := Planter{Config: DefaultConfig()}
	p.PerDocument = 4
	all := func(text []byte) []Document { return slices.Collect(p.Documents(text)) }
	text := source(5000)
	a, b := all(text), all(slices.Clone(text))
	for i := range a {
		if !bytes.Equal(a[i].Text, b[i].Text) || !slices.Equal(a[i].Facts, b[i].Facts) {
			t.Fatalf("document %d differs", i)
		}
		if i > 0 && slices.Equal(a[i].Facts, a[i-1].Facts) {
			t.Errorf("documents %d and %d have the same facts", i-1, i)
		}
	}
	if other := all(append([]byte("x"), text...)); slices.Equal(other[0].Facts, a[0].Facts) {
		t.Error("another text has the same facts")
	}
	if short := all(text[:100]); len(short) != 0 {
		t.Errorf("%d documents of a text that is too short", len(short))
	}
}

// No name of an evaluation is in a training document, and there are many of both.
func TestHeldOutNames(t *testing.T) {
	c := DefaultConfig()
	c.PerDocument, c.Questions, c.DocumentBytes = 8, 0, 88
	names := func(p Planter) map[string]bool {
		found := map[string]bool{}
		for d := range p.Documents(source(400_000)) {
			for _, f := range d.Facts {
				found[f.Name] = true
			}
		}
		return found
	}
	train, held := names(Planter{Config: c}), names(Planter{Config: c, HeldOut: true})
	// 70^2 = 4900 names, of which one in eight is held out.
	if len(train) < 4000 || len(train) > 4288 || len(held) < 600 || len(held) > 612 {
		t.Errorf("%d names in training, %d held out", len(train), len(held))
	}
	for _, k := range (Planter{Config: c}).Cases(1000, 3, 7) {
		if len(k.Lines) != 4 {
			t.Fatalf("%d lines, want the fact and 3 others", len(k.Lines))
		}
		for _, line := range k.Lines {
			m := factLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
			if m == nil {
				t.Fatalf("a fact %q", line)
			}
			held[m[1]] = true
		}
		fact := factLine.FindStringSubmatch(strings.TrimSuffix(k.Lines[0], "\n"))
		if k.Question != fact[1]+"?" || k.Answer != fact[2] {
			t.Errorf("%q is asked %q, %q", k.Lines[0], k.Question, k.Answer)
		}
	}
	for name := range held {
		if train[name] {
			t.Errorf("%s is in training and held out", name)
		}
	}
}

func TestCasesDependOnTheSeed(t *testing.T) {
	p := Planter{Config: DefaultConfig()}
	a, b := p.Cases(20, 0, 1), p.Cases(30, 0, 1)
	for i := range a {
		if a[i].Lines[0] != b[i].Lines[0] {
			t.Errorf("case %d is another one where there are more", i)
		}
	}
	if c := p.Cases(20, 0, 2); c[0].Lines[0] == a[0].Lines[0] {
		t.Error("another seed has the same first case")
	}
}

func TestValidate(t *testing.T) {
	with := func(change func(*Config)) Config {
		c := DefaultConfig()
		c.PerDocument = 4
		change(&c)
		return c
	}
	if errs := with(func(*Config) {}).Validate(); len(errs) != 0 {
		t.Errorf("the defaults: %v", errs)
	}
	for want, c := range map[string]Config{
		"facts.per_document = -1: ":  with(func(c *Config) { c.PerDocument = -1 }),
		"facts.per_document = 999: ": with(func(c *Config) { c.PerDocument = 999 }),
		"facts.questions = -1: ":     with(func(c *Config) { c.Questions = -1 }),
		// Lines of 9 bytes: 4 facts and 8 questions take 108, and 16 bytes of text are the least.
		"facts.document_bytes = 123: the facts and questions of a document take 108, so it must be at least 124": with(func(c *Config) { c.DocumentBytes = 123 }),
		`facts.fact = "{name}": `:              with(func(c *Config) { c.Fact = "{name}" }),
		"facts.fact = \"{name}\\n{code}\": ":   with(func(c *Config) { c.Fact = "{name}\n{code}" }),
		`facts.question = "{code} {name}": `:   with(func(c *Config) { c.Question = "{code} {name}" }),
		`facts.question = "{name}{code}{code}`: with(func(c *Config) { c.Question = "{name}{code}{code}" }),
	} {
		if errs := c.Validate(); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), want) {
			t.Errorf("%v, want %s", errs, want)
		}
	}
	if errs := with(func(c *Config) { c.DocumentBytes = 124 }).Validate(); len(errs) != 0 {
		t.Errorf("a document that just holds all: %v", errs)
	}
}
