package eval

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// needlePlan builds the grid over text, for a model of any length.
func needlePlan(t *testing.T, tok Tokenizer, text string, lengths []int, depths []float64) *Needle {
	t.Helper()
	cfg := DefaultNeedle()
	cfg.Lengths, cfg.Depths, cfg.Batch = lengths, depths, 4
	n, err := NewNeedle(cfg, tok, haystackOf(t, text), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Decoded prompts hold the needle once, whole, after the end of a sentence and
// near the depth asked for; document and needle are exactly as long as said.
func TestNeedlePlacement(t *testing.T) {
	for _, tc := range []struct {
		name    string
		tok     Tokenizer
		text    string
		lengths []int
		within  float64 // percent
	}{
		{"bytes", byteTok{}, prose(9000), []int{8000, 20000}, 2},
		{"pieces", newPieceTok(), prose(9000), []int{4000, 16000}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := needlePlan(t, tc.tok, tc.text, tc.lengths, Linspace(0, 100, 35))
			if n.Boundary() != BoundarySentence {
				t.Fatalf("boundary %q", n.Boundary())
			}
			whole := n.cfg.Cases[0].Needles[0]
			sentence := strings.TrimSpace(whole)
			needleTokens := n.parts[0].needleTokens()
			for _, length := range n.cfg.Lengths {
				for _, depth := range n.cfg.Depths {
					p := n.Prompt(length, depth, 0)
					text := string(tc.tok.Decode(p.IDs))
					if strings.Count(text, whole) != 1 {
						t.Fatalf("length %d depth %.1f: needle found %d times", length, depth, strings.Count(text, sentence))
					}
					before, _, _ := strings.Cut(text, whole)
					end := strings.TrimRight(before, " \n\"")
					if before != "" && !strings.HasSuffix(end, ".") && !strings.HasSuffix(end, "?") && !strings.HasSuffix(end, "!") {
						t.Errorf("length %d depth %.1f: the needle stands after %q", length, depth, before[max(0, len(before)-30):])
					}
					if !strings.HasSuffix(text, "\n\nQuestion: "+n.cfg.Cases[0].Question+"\nAnswer: "+n.cfg.Cases[0].Answer) {
						t.Errorf("length %d depth %.1f: the prompt ends %q", length, depth, text[len(text)-150:])
					}
					if got := string(tc.tok.Decode(p.IDs[p.Needles[0].Token : p.Needles[0].Token+needleTokens])); strings.TrimSpace(got) != sentence {
						t.Errorf("length %d depth %.1f: tokens at %d are %q", length, depth, p.Needles[0].Token, got)
					}
					if got := string(tc.tok.Decode(p.IDs[p.Answer:])); strings.TrimSpace(got) != n.cfg.Cases[0].Answer {
						t.Errorf("length %d depth %.1f: the scored tokens are %q", length, depth, got)
					}
					if size := p.Answer - n.parts[0].overhead(); size != length-200 {
						t.Errorf("length %d depth %.1f: document and needle have %d tokens, want %d", length, depth, size, length-200)
					}
					document := float64(length - 200 - needleTokens)
					if actual := 100 * float64(p.Needles[0].Token-1) / document; math.Abs(actual-depth) > tc.within || actual != p.Needles[0].Depth {
						t.Errorf("length %d depth %.1f: the needle stands at %.2f %%, reported %.2f", length, depth, actual, p.Needles[0].Depth)
					}
				}
			}
		})
	}
}

// The control is as long as the prompt, holds no needle, and both end in the
// same text.
func TestNeedleControl(t *testing.T) {
	n := needlePlan(t, byteTok{}, prose(9000), []int{2000}, []float64{0, 50})
	c := n.Control(2000, 0)
	needleTokens := n.parts[0].needleTokens()
	if strings.Contains(string(byteTok{}.Decode(c.IDs)), "Dolores Park on a sunny day.\n") {
		t.Error("the control holds the needle")
	}
	for _, d := range []float64{0, 50} {
		p := n.Prompt(2000, d, 0)
		at := p.Needles[0].Token
		if len(p.IDs) != len(c.IDs) || p.Answer != c.Answer {
			t.Errorf("depth %v: %d tokens, answer at %d; control %d, %d", d, len(p.IDs), p.Answer, len(c.IDs), c.Answer)
		}
		tail := p.IDs[at+needleTokens:]
		if !slices.Equal(tail, c.IDs[len(c.IDs)-len(tail):]) {
			t.Errorf("depth %v: the text after the needle is not the control's", d)
		}
		head := p.IDs[1:at]
		if !slices.Equal(head, c.IDs[1+needleTokens:at+needleTokens]) {
			t.Errorf("depth %v: the text before the needle is not the control's", d)
		}
	}
}

func TestNeedleBoundaries(t *testing.T) {
	code := strings.Repeat("func add(a, b int) int {\n\treturn a + b\n}\n\n", 200)
	n := needlePlan(t, byteTok{}, code, []int{3000}, Linspace(0, 100, 21))
	if n.Boundary() != BoundaryLine {
		t.Fatalf("source code: boundary %q, want line", n.Boundary())
	}
	for _, d := range n.cfg.Depths {
		p := n.Prompt(3000, d, 0)
		if at := p.Needles[0]; at.Token > 1 && p.IDs[at.Token-1] != '\n' || math.Abs(at.Depth-d) > 2 {
			t.Errorf("depth %.0f: at %.2f after %q", d, at.Depth, rune(p.IDs[at.Token-1]))
		}
	}
	// In a short document sentences would be too coarse; lines are taken if
	// there are enough of them, sentences if not.
	narrow := regexp.MustCompile(`(.{18}\S*) `).ReplaceAllString(prose(9000), "$1\n")
	for _, c := range []struct {
		text   string
		length int
		want   Boundary
	}{
		{narrow, 394, BoundaryLine}, {narrow, 1000, BoundarySentence},
		{strings.ReplaceAll(prose(9000), "\n", " "), 394, BoundarySentence},
	} {
		if n := needlePlan(t, byteTok{}, c.text, []int{c.length}, []float64{50}); n.Boundary() != c.want {
			t.Errorf("length %d: boundary %q, want %q", c.length, n.Boundary(), c.want)
		}
	}
	blob := needlePlan(t, byteTok{}, strings.Repeat("x1", 9000), []int{1000}, []float64{0, 37, 100})
	if blob.Boundary() != BoundaryToken {
		t.Errorf("one long word: boundary %q, want token", blob.Boundary())
	}
	if at := blob.Prompt(1000, 37, 0).Needles[0]; math.Abs(at.Depth-37) > 100./700 {
		t.Errorf("one long word: depth %v, want 37", at.Depth)
	}
}

// The needle stands at the last boundary at or before its target, the target
// itself included.
func TestNeedleNearestBoundary(t *testing.T) {
	lines := strings.Repeat("a line\n\nanother, a longer line\n", 200)
	n := needlePlan(t, byteTok{}, lines, []int{2000}, Linspace(0, 100, 101))
	exact := 0
	for _, d := range n.cfg.Depths {
		p := n.Prompt(2000, d, 0)
		at, needleTokens := p.Needles[0].Token, n.parts[0].needleTokens()
		document := slices.Concat(p.IDs[1:at], p.IDs[at+needleTokens:])[:1800-needleTokens]
		target := int(float64(len(document)) * d / 100)
		want := target
		for want > 0 && document[want-1] != '\n' {
			want--
		}
		if want == target {
			exact++
		}
		if at-1 != want {
			t.Errorf("depth %.0f: the needle stands at token %d, want %d", d, at-1, want)
		}
	}
	if exact < 5 {
		t.Errorf("only %d targets are boundaries themselves: the test shows nothing about them", exact)
	}
}

// Depth 100 appends even where no boundary is near the document's end.
func TestNeedleSparseBoundaries(t *testing.T) {
	cfg := DefaultNeedle()
	cfg.Lengths, cfg.Boundary = []int{2000}, BoundarySentence
	text := strings.Repeat("word ", 100) + "end. " + strings.Repeat("word ", 4000)
	n, err := NewNeedle(cfg, byteTok{}, haystackOf(t, text), 4096)
	if err != nil {
		t.Fatal(err)
	}
	if at := n.Prompt(2000, 100, 0).Needles[0]; at.Depth != 100 {
		t.Errorf("depth 100 became %v", at.Depth)
	}
	if at := n.Prompt(2000, 60, 0).Needles[0]; at.Token != 1+505-n.parts[0].needleTokens() {
		t.Errorf("depth 60: at token %d, want the only sentence end, 505 bytes from the haystack's start", at.Token)
	}
}

// strictTok shows what is not a whole character as U+FFFD, as some decoders do.
type strictTok struct{ byteTok }

func (t strictTok) Decode(ids []int32) []byte {
	return bytes.ToValidUTF8(t.byteTok.Decode(ids), []byte("\uFFFD"))
}

func TestBoundariesInsideCharacters(t *testing.T) {
	for _, text := range []string{"fin. é. Été! ", "终。日本。x", "fin. é", prose(500)} {
		ids := byteTok{}.Encode([]byte(text), nil)
		for _, kind := range []Boundary{BoundarySentence, BoundaryLine} {
			raw, strict := boundaries(byteTok{}, ids, kind), boundaries(strictTok{}, ids, kind)
			if !slices.Equal(raw, strict) {
				t.Errorf("%.20q: %s ends %v, with a strict decoder %v", text, kind, raw, strict)
			}
		}
	}
}

func TestEndsAt(t *testing.T) {
	for _, c := range []struct {
		before, after  string
		sentence, line bool
	}{
		{"It rained.", " Then", true, false},
		{"It rained. ", "Then", true, false},
		{"He said \"no.\"", " Then", true, false},
		{"(as ever.)\n\n", "Then", true, true},
		{"It rained.", "", true, false},
		{"about 3.", "14 miles", false, false},
		{"fmt.", "Println", false, false},
		{"no end", " here", false, false},
		{"a line\n", "\tmore", false, true},
		{"   \n", "x", false, true},
		{"下雨了。", "然后", true, false},
		{"wait…", " what", true, false},
		{"cut. ", "\xa9", false, false},
	} {
		if got := endsAt([]byte(c.before), []byte(c.after), BoundarySentence); got != c.sentence {
			t.Errorf("sentence end between %q and %q: %v", c.before, c.after, got)
		}
		if got := endsAt([]byte(c.before), []byte(c.after), BoundaryLine); got != c.line {
			t.Errorf("line end between %q and %q: %v", c.before, c.after, got)
		}
	}
}

func TestNeedleCheck(t *testing.T) {
	hay := haystackOf(t, prose(1000))
	good := DefaultNeedle()
	lo, hi, err := good.Bounds(byteTok{}, 1024)
	// By hand: BOS, "\n\nQuestion: ...\nAnswer:" and " eat ..." are 1 + 66 + 55
	// bytes; the needle has 95 and two line ends. The answer may have the 55
	// tokens that it needs, more than the usual 50.
	if lo != 200+2*97 || hi != 1025-(1+66+55)+200 || err != nil {
		t.Fatalf("bounds %d..%d, %v", lo, hi, err)
	}
	good.Exact = true
	if lo, hi, err := good.Bounds(byteTok{}, 1024); lo != 67+2*97 || hi != 1025-55 || err != nil {
		t.Errorf("exact lengths: bounds %d..%d, %v", lo, hi, err)
	}
	good.MaxNew = 100
	if _, hi, err := good.Bounds(byteTok{}, 1024); hi != 1025-100 || err != nil {
		t.Errorf("answers of 100 tokens: up to %d, %v", hi, err)
	}
	good.Exact, good.MaxNew = false, 0
	good.Lengths = []int{lo, hi}
	n, err := NewNeedle(good, byteTok{}, hay, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(n.Prompt(hi, 50, 0).IDs); got != 1025 {
		t.Errorf("the longest prompt that fits has %d tokens, want max_seq + 1", got)
	}
	for _, c := range []struct {
		want   string
		change func(*NeedleConfig)
	}{
		{"--lengths 1104: prompt and answer would be 1 tokens more than the model's max_seq, which is 1024; the longest length that fits is 1103", func(c *NeedleConfig) { c.Lengths = []int{hi + 1} }},
		{"--lengths 393: too short", func(c *NeedleConfig) { c.Lengths = []int{lo - 1} }},
		{"--lengths 500 after 600", func(c *NeedleConfig) { c.Lengths = []int{600, 500} }},
		{"--lengths:", func(c *NeedleConfig) { c.Lengths = nil }},
		{"no length fits", func(c *NeedleConfig) { c.Cases[0].Question = strings.Repeat("why ", 300) }},
		{"no length fits", func(c *NeedleConfig) { c.MaxNew = 1100 }},
		{"--depths 101", func(c *NeedleConfig) { c.Depths = []float64{0, 101} }},
		{"--depths NaN", func(c *NeedleConfig) { c.Depths = []float64{math.NaN()} }},
		{"--depths 5 after 5", func(c *NeedleConfig) { c.Depths = []float64{5, 5} }},
		{"--needle", func(c *NeedleConfig) { c.Cases[0].Needles = []string{"good. ", " \n"} }},
		{"--needle", func(c *NeedleConfig) { c.Cases[0].Needles = nil }},
		{"--needle", func(c *NeedleConfig) { c.Cases = nil }},
		{"--question", func(c *NeedleConfig) { c.Cases[0].Question = "" }},
		{"--answer", func(c *NeedleConfig) { c.Cases[0].Answer = "" }},
		{"--answer", func(c *NeedleConfig) { c.Cases[0].Answer = " . " }},
		{"--keyword \"-\"", func(c *NeedleConfig) { c.Cases[0].Keywords = []string{"park", "-"} }},
		{`--answer: "in Golden Gate Park" does not occur in the needle`, func(c *NeedleConfig) { c.Cases[0].Answer = "in Golden Gate Park" }},
		{`--keyword "picnic" does not occur in the needle`, func(c *NeedleConfig) { c.Cases[0].Keywords = []string{"park", "picnic"} }},
		{`--answer: "a picnic" does not occur`, func(c *NeedleConfig) {
			c.Cases[0].Needles, c.Cases[0].Answer = []string{"B is 2.", "C is 3."}, "a picnic"
		}},
		{"--samples 1048577", func(c *NeedleConfig) { c.Samples = 1<<20 + 1 }},
		{"--texts 1048577", func(c *NeedleConfig) { c.Texts = 1<<20 + 1 }},
		{"case 2: answer", func(c *NeedleConfig) { c.Cases = append(c.Cases, NeedleCase{Needles: []string{"x"}, Question: "x"}) }},
		{"--template", func(c *NeedleConfig) { c.Template = "{context} {question}" }},
		{"--template", func(c *NeedleConfig) { c.Template = "{answer} {context} {question} {answer}" }},
		{"--template", func(c *NeedleConfig) { c.Template = "{context} {answer}" }},
		{"--template", func(c *NeedleConfig) { c.Template = "{context} {context} {question} {answer}" }},
		{"--samples", func(c *NeedleConfig) { c.Samples = 0 }},
		{"--max-new", func(c *NeedleConfig) { c.MaxNew = -1 }},
		{"--buffer", func(c *NeedleConfig) { c.Buffer = -1 }},
		{"--batch", func(c *NeedleConfig) { c.Batch = 0 }},
		{"--limit", func(c *NeedleConfig) { c.Limit = -1 }},
		{"--boundary page", func(c *NeedleConfig) { c.Boundary = "page" }},
		{"--boundary sentence: the haystack has none", func(c *NeedleConfig) { c.Boundary = BoundarySentence }},
		{"already holds the needle", func(c *NeedleConfig) { c.Cases[0].Needles, c.Cases[0].Answer = []string{"xy xy"}, "xy" }},
	} {
		cfg := good
		cfg.Cases = []NeedleCase{DefaultCase()}
		c.change(&cfg)
		_, err := NewNeedle(cfg, byteTok{}, haystackOf(t, strings.Repeat("xy ", 500)), 1024)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
}

// An answer may be put together of several needles, be told by keywords, or stand there in other letters.
func TestAnswersInTheNeedle(t *testing.T) {
	for _, c := range []NeedleCase{
		DefaultCase(),
		{Needles: []string{"The code is  4711-b."}, Answer: "4711-B."},
		{Needles: []string{"The code is 4711-b."}, Answer: "code is 4711 b"},
		{Needles: []string{"图书馆在多洛雷斯公园旁边。"}, Answer: "多洛雷斯公园"},
		{Needles: []string{"The code is 4711."}, Answer: "four thousand", Keywords: []string{"4711"}},
		{Needles: []string{"B is 2.", "C is 3."}, Answer: "2 and 3"},
		{Needles: []string{"x is ->."}, Answer: "->"},
	} {
		c.Question = "?"
		if err := c.check(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Of a file that is much larger than needed, only the start is read, and no character is cut.
func TestHaystackReadsNoMoreThanNeeded(t *testing.T) {
	for _, c := range []string{"x", "é", "图", "🦊"} {
		text := strings.Repeat(c, 1<<20/len(c))
		got, err := haystackOf(t, text).Text(1001)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(got); n < 1001 || n > 1001+beyond || n%len(c) != 0 || !strings.HasPrefix(text, string(got)) {
			t.Errorf("%s: %d bytes of %d", c, n, len(text))
		}
	}
}

func TestHaystackFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.txt": "second", "a.txt": "first\n", "sub/c.txt": "third",
		".hidden": "no", "bin": "\x00\x01", "latin.txt": "caf\xe9", "empty.txt": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := FindHaystack(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := h.Text(40)
	if err != nil {
		t.Fatal(err)
	}
	if want := "first\n\nsecond\n\nthird\n\nfirst\n\nsecond\n\nthird"; string(text) != want {
		t.Errorf("text %q, want %q", text, want)
	}
	if text, _ := h.Text(3); string(text) != "first" {
		t.Errorf("three bytes read more than one file: %q", text)
	}
	orders := map[string]bool{}
	for seed := range uint64(20) {
		h, err := FindHaystack(dir, seed)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := FindHaystack(dir, seed)
		if !slices.Equal(h.Files, again.Files) {
			t.Fatalf("seed %d gives two orders", seed)
		}
		orders[strings.Join(h.Files, " ")] = true
	}
	if len(orders) < 5 {
		t.Errorf("20 seeds gave %d orders", len(orders))
	}
	if _, err := FindHaystack(filepath.Join(dir, "none"), 0); err == nil || !strings.Contains(err.Error(), "--haystack") {
		t.Errorf("a missing path: %v", err)
	}
	binary := &Haystack{Source: "bin", Files: []string{filepath.Join(dir, "bin")}}
	if _, err := binary.Text(10); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("no text: %v", err)
	}
}

// By hand: 100 / (1 + exp(2.5)) = 7.586 at 25 %.
func TestSigmoid(t *testing.T) {
	if got := Sigmoid(Linspace(0, 100, 5)); !slices.Equal(got, []float64{0, 7.586, 50, 92.414, 100}) {
		t.Errorf("%v", got)
	}
}

func TestLinspace(t *testing.T) {
	if got := LinspaceLengths(1000, 16000, 35); len(got) != 35 || got[0] != 1000 || got[1] != 1441 || got[34] != 16000 {
		t.Errorf("lengths of the original test: %v", got)
	}
	if got := LinspaceLengths(5, 7, 10); !slices.Equal(got, []int{5, 6, 7}) {
		t.Errorf("a narrow range: %v", got)
	}
	if got := Linspace(50, 100, 1); !slices.Equal(got, []float64{50}) {
		t.Errorf("one value: %v", got)
	}
}
