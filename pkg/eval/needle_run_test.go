package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// stubModel scores by one function and answers by another.
type stubModel struct {
	scorerFunc
	answer func(prompt []int32) string
	calls  int // prompts that were answered
}

func (m *stubModel) Generate(_ context.Context, prompts [][]int32, maxNew int) ([][]int32, error) {
	out := make([][]int32, len(prompts))
	for i, p := range prompts {
		m.calls++
		ids := byteTok{}.Encode([]byte(m.answer(p)), nil)
		out[i] = ids[:min(len(ids), maxNew)]
	}
	return out, nil
}

// knows finds every needle whose answer stands in its prompt; blind reads nothing.
func knows(cases ...NeedleCase) *stubModel {
	inPrompt := func(ids []int32) string {
		text := string(byteTok{}.Decode(ids))
		for _, c := range cases {
			all := strings.HasSuffix(strings.TrimSuffix(text, "\nAnswer:"), c.Question)
			for _, needle := range c.Needles {
				all = all && strings.Contains(text, needle)
			}
			if all {
				return " " + c.Answer + "\n\nQuestion: and now?"
			}
		}
		return ""
	}
	return &stubModel{scorerFunc: scorerFunc{1 << 20, func(ids []int32, at int) float64 {
		for end := at; end > 0 && end > at-200; end-- {
			if ids[end-1] == ':' && inPrompt(ids[:end]) != "" {
				return 0
			}
		}
		return -math.Log(256)
	}}, answer: inPrompt}
}

func blind() *stubModel {
	return &stubModel{scorerFunc: uniform(256, 1<<20), answer: func([]int32) string { return "1234567 !?" }}
}

// A model that knows the answer gets all there is to get in every cell, one that reads nothing gets nothing.
func TestNeedleRun(t *testing.T) {
	n := needlePlan(t, byteTok{}, prose(4000), []int{600, 800}, []float64{0, 30, 100})
	res, err := n.Run(context.Background(), knows(DefaultCase()), "f", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := float64(len(" " + DefaultCase().Answer))
	if len(res.Cells) != 6 || len(res.Prompts) != 6 || res.Above != 1 || res.Mean.Recall != 1 || res.Mean.Exact != 1 || res.Config.MaxNew != int(answer) {
		t.Fatalf("%d cells, %d prompts, %v above zero, mean %+v, answers of %d tokens", len(res.Cells), len(res.Prompts), res.Above, res.Mean, res.Config.MaxNew)
	}
	for i, c := range res.Cells {
		if c.LogPWith != 0 || math.Abs(c.Difference-answer*math.Log(256)) > 1e-4 || math.Abs(c.DifferencePerToken-math.Log(256)) > 1e-6 || c.Exact != 1 {
			t.Errorf("cell %d: %+v", i, c)
		}
		if c.Length != []int{600, 800}[i/3] || c.Depth != []float64{0, 30, 100}[i%3] {
			t.Errorf("cell %d stands for length %d depth %v", i, c.Length, c.Depth)
		}
		p := res.Prompts[i]
		if p.PromptTokens != c.Length-200+67 || !strings.Contains(p.Answer, DefaultCase().Answer) || len(p.Needles) != 1 {
			t.Errorf("prompt %d: %+v", i, p)
		}
	}

	none, err := n.Run(context.Background(), blind(), "f", nil)
	if err != nil {
		t.Fatal(err)
	}
	if none.Mean.Difference != 0 || none.Above != 0 || none.Mean.Recall != 0 || none.Mean.Exact != 0 {
		t.Errorf("a model that reads nothing: mean %+v, above %v", none.Mean, none.Above)
	}
	if m := MetricAuto.shown([]*NeedleResult{none}); m.Metric != MetricDifference {
		t.Errorf("without an exact answer %s is shown", m.Metric)
	}
	if m := MetricAuto.shown([]*NeedleResult{none, res}); m.Metric != MetricRecall {
		t.Errorf("with exact answers %s is shown", m.Metric)
	}
}

// An answer that is no UTF-8, as of a model that has learnt little, is the same once it has been written to the journal and read back.
func TestNeedleAnswerOfBytes(t *testing.T) {
	n := needlePlan(t, byteTok{}, prose(4000), []int{600}, []float64{50})
	babbles := &stubModel{scorerFunc: uniform(256, 1<<20), answer: func([]int32) string { return "7\xff\xc3(\xf0\x9f\x98" }}
	res, err := n.Run(context.Background(), babbles, "f", nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(res.Prompts[0])
	if err != nil {
		t.Fatal(err)
	}
	var back NeedlePrompt
	if err := json.Unmarshal(raw, &back); err != nil || back.Answer != res.Prompts[0].Answer || back.Answer != "7\uFFFD\uFFFD(\uFFFD\uFFFD\uFFFD" {
		t.Errorf("answered %q, read back %q: %v", res.Prompts[0].Answer, back.Answer, err)
	}
}

// Cases are dealt in turn, each with its own control; several in a cell give its mean.
func TestNeedleCases(t *testing.T) {
	cases := make([]NeedleCase, 5)
	for i := range cases {
		cases[i] = NeedleCase{Needles: []string{fmt.Sprintf("The code of door %d is %d.", i, 7000+i)}, Question: fmt.Sprintf("What is the code of door %d?", i), Answer: fmt.Sprint(7000 + i)}
	}
	cfg := DefaultNeedle()
	cfg.Cases, cfg.Samples, cfg.Lengths, cfg.Depths, cfg.Batch = cases, 2, []int{700, 900}, []float64{0, 50, 100}, 4
	run := func() *NeedleResult {
		n, err := NewNeedle(cfg, byteTok{}, haystackOf(t, prose(4000)), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		// It finds the first three only.
		res, err := n.Run(context.Background(), knows(cases[:3]...), "f", nil)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	res := run()
	var order []int
	for _, p := range res.Prompts {
		order = append(order, p.Case)
		if found := p.Case < 3; (p.Exact == 1) != found || (p.Recall == 1) != found || (p.Difference > 20) != found || (p.Difference == 0) == found {
			t.Errorf("case %d: %+v", p.Case, p.NeedleScores)
		}
	}
	if want := []int{0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1}; !slices.Equal(order, want) {
		t.Errorf("cases in the order %v, want %v", order, want)
	}
	if c := res.Cells[1]; c.Exact != 0.5 || res.Cells[0].Exact != 1 || res.Mean.Exact != 8./12 {
		t.Errorf("means %+v, %+v, %+v", res.Cells[0], c, res.Mean)
	}
	seen := map[string]bool{}
	for cfg.Seed = 1; cfg.Seed <= 6; cfg.Seed++ {
		order := []int{}
		for _, p := range run().Prompts {
			order = append(order, p.Case)
		}
		again := []int{}
		for _, p := range run().Prompts {
			again = append(again, p.Case)
		}
		if !slices.Equal(order, again) {
			t.Fatal("one seed gives two orders")
		}
		seen[fmt.Sprint(order)] = true
	}
	if len(seen) < 4 {
		t.Errorf("six seeds give %d orders", len(seen))
	}
}

// Scores don't depend on the batch, nor on where a run was interrupted: what the journal holds isn't done again.
func TestNeedleBatchLimitResume(t *testing.T) {
	noisy := func() *stubModel {
		return &stubModel{scorerFunc: scorerFunc{1 << 20, func(ids []int32, at int) float64 {
			r := rand.New(rand.NewPCG(uint64(len(ids)), uint64(ids[at-1])<<32|uint64(ids[len(ids)/2])))
			return -r.Float64()
		}}, answer: func(p []int32) string { return fmt.Sprint("eat ", p[len(p)/2]) }}
	}
	var want *NeedleResult
	for _, batch := range []int{1, 3, 100} {
		n := needlePlan(t, byteTok{}, prose(4000), []int{600, 700, 800}, []float64{0, 25, 50, 100})
		n.cfg.Batch, n.cfg.Limit = batch, 6
		last := 0
		n.Progress(func(done, prompts int) {
			if prompts != 6 || done < last {
				t.Errorf("batch %d: progress %d of %d after %d", batch, done, prompts, last)
			}
			last = done
		})
		res, err := n.Run(context.Background(), noisy(), "f", nil)
		if err != nil {
			t.Fatal(err)
		}
		if last != 6 || len(res.Cells) != 6 {
			t.Errorf("batch %d: %d done, %d cells", batch, last, len(res.Cells))
		}
		if want == nil {
			want = res
		} else if !reflect.DeepEqual(res.Prompts, want.Prompts) {
			t.Errorf("batch %d: other scores", batch)
		}
		lengths, depths, grid := res.Grid(func(s NeedleScores) float64 { return s.Difference })
		if len(grid) != len(depths) || len(grid[0]) != len(lengths) || grid[1][1] != res.Cells[5].Difference || !math.IsNaN(grid[2][1]) || !math.IsNaN(grid[0][2]) {
			t.Errorf("grid %v", grid)
		}
	}

	// Interrupted after three prompts, then continued with another batch.
	dir := t.TempDir()
	n := needlePlan(t, byteTok{}, prose(4000), []int{600, 700, 800}, []float64{0, 25, 50, 100})
	n.cfg.Batch, n.cfg.Limit = 1, 6
	f, err := n.Fingerprint("model a")
	if err != nil {
		t.Fatal(err)
	}
	journal := func() *Journal[NeedlePrompt] {
		t.Helper()
		j, err := OpenJournal[NeedlePrompt](dir, "needle", f)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := noisy()
	answer := m.answer
	m.answer = func(p []int32) string {
		if m.calls == 3 {
			cancel()
		}
		return answer(p)
	}
	j := journal()
	_, err = n.Run(ctx, interrupted{m}, f, j)
	if !errors.Is(err, context.Canceled) || m.calls != 3 {
		t.Fatalf("%d prompts, %v", m.calls, err)
	}
	j.Close()
	n.cfg.Batch = 2
	m, j = noisy(), journal()
	if len(j.Done) != 3 {
		t.Fatalf("the journal holds %d prompts, want 3", len(j.Done))
	}
	res, err := n.Run(context.Background(), m, f, j)
	if err != nil || m.calls != 3 || !reflect.DeepEqual(res.Prompts, want.Prompts) || !reflect.DeepEqual(res.Mean, want.Mean) {
		t.Errorf("continued: %d prompts were done again, %v\n%+v\nwant\n%+v", m.calls, err, res.Prompts, want.Prompts)
	}
	j.Close()
	// A larger limit goes on from there.
	n.cfg.Limit = 8
	if g, err := n.Fingerprint("model a"); err != nil || g != f {
		t.Errorf("the limit changes the fingerprint: %v", err)
	}
	m, j = noisy(), journal()
	if _, err := n.Run(context.Background(), m, f, j); err != nil || m.calls != 2 {
		t.Errorf("two more cells: %d prompts, %v", m.calls, err)
	}
	if err := j.Remove(); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("%v are left", entries)
	}
}

// interrupted is a model that says when its context is cancelled.
type interrupted struct{ *stubModel }

func (m interrupted) LogProbs(ctx context.Context, seqs []Sequence) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.stubModel.LogProbs(ctx, seqs)
}

// The fingerprint tells apart whatever the scores depend on.
func TestNeedleFingerprint(t *testing.T) {
	base := func() NeedleConfig {
		cfg := DefaultNeedle()
		cfg.Lengths = []int{600}
		return cfg
	}
	text := prose(4000)
	fingerprint := func(cfg NeedleConfig, text, model string) string {
		t.Helper()
		n, err := NewNeedle(cfg, byteTok{}, haystackOf(t, text), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		f, err := n.Fingerprint(model)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	seen := map[string]string{fingerprint(base(), text, "m"): "the first"}
	for name, change := range map[string]func(*NeedleConfig){
		"lengths": func(c *NeedleConfig) { c.Lengths = []int{601} }, "depths": func(c *NeedleConfig) { c.Depths = []float64{1} },
		"exact": func(c *NeedleConfig) { c.Exact = true }, "buffer": func(c *NeedleConfig) { c.Buffer = 199 },
		"max new": func(c *NeedleConfig) { c.MaxNew = 9 }, "answer": func(c *NeedleConfig) { c.Cases[0].Answer = "park" },
		"keywords": func(c *NeedleConfig) { c.Cases[0].Keywords = []string{"park"} }, "boundary": func(c *NeedleConfig) { c.Boundary = BoundaryToken },
		"template": func(c *NeedleConfig) { c.Template = "{context} {question} {answer}" }, "samples": func(c *NeedleConfig) { c.Samples = 2 },
	} {
		cfg := base()
		change(&cfg)
		f := fingerprint(cfg, text, "m")
		if other, ok := seen[f]; ok {
			t.Errorf("%s and %s have the same fingerprint", name, other)
		}
		seen[f] = name
	}
	for name, f := range map[string]string{"text": fingerprint(base(), "x"+text, "m"), "model": fingerprint(base(), text, "n")} {
		if other, ok := seen[f]; ok {
			t.Errorf("%s and %s have the same fingerprint", name, other)
		}
	}
	cfg := base()
	cfg.Batch, cfg.Limit = 7, 3
	if _, ok := seen[fingerprint(cfg, text, "m")]; !ok {
		t.Error("batch or limit changes the fingerprint")
	}
}

func TestNeedleModelErrors(t *testing.T) {
	n := needlePlan(t, byteTok{}, prose(4000), []int{600}, []float64{0})
	nan := blind()
	nan.score = func([]int32, int) float64 { return math.NaN() }
	if _, err := n.Run(context.Background(), nan, "", nil); err == nil || !strings.Contains(err.Error(), "length 600") {
		t.Errorf("NaN: %v", err)
	}
	if _, err := n.Run(context.Background(), deaf{blind()}, "", nil); err == nil || !strings.Contains(err.Error(), "answered 0 prompts of 1") {
		t.Errorf("no answers: %v", err)
	}
}

type deaf struct{ *stubModel }

func (deaf) Generate(context.Context, [][]int32, int) ([][]int32, error) { return nil, nil }

func TestNeedleScore(t *testing.T) {
	usual := DefaultCase()
	for _, c := range []struct {
		c             NeedleCase
		answer        string
		recall, exact float64
	}{
		{usual, " Eat a sandwich and sit in Dolores Park on a sunny day.\n\nQuestion:", 1, 1},
		{usual, "You should eat a sandwich\nand  sit in Dolores Park on a SUNNY day!", 1, 1},
		{usual, "Sit in Dolores Park", 4. / 11, 0},                             // of eat a sandwich and sit in dolores park on sunny day
		{usual, "day sunny a on Park Dolores in sit and sandwich a eat", 1, 0}, // the words, in another order
		{usual, "parks, sitting, sandwiches", 0, 0},                            // other words
		{usual, "", 0, 0}, //
		{NeedleCase{Answer: "7041", Keywords: []string{"7041", "Blue door"}}, "the blue door: 7041.", 1, 1},
		{NeedleCase{Answer: "7041", Keywords: []string{"7041", "Blue door"}}, "the door is blue, 17041", 0, 1}, // a substring, not a word
		{NeedleCase{Answer: "Köln"}, "in KÖLN.", 1, 1},
		{NeedleCase{Answer: "->"}, "a -> b", 1, 1},
		{NeedleCase{Answer: "->"}, "a b", 0, 0},
	} {
		if recall, exact := c.c.recall(c.answer), c.c.exact(c.answer); math.Abs(recall-c.recall) > 1e-12 || exact != c.exact {
			t.Errorf("%q for %q: recall %v, exact %v; want %v, %v", c.answer, c.c.Answer, recall, exact, c.recall, c.exact)
		}
	}
}

// Several needles stand at d, d + (100-d)/n, ..., each once and whole.
func TestNeedleSeveral(t *testing.T) {
	cfg := DefaultNeedle()
	cfg.Cases = []NeedleCase{{Needles: []string{"Figs are needed.", "Prosciutto is needed.", "Goat cheese is needed. "}, Question: "What is needed?", Answer: "figs, prosciutto and goat cheese"}}
	cfg.Lengths, cfg.Depths = []int{20000}, []float64{0, 40, 100}
	n, err := NewNeedle(cfg, byteTok{}, haystackOf(t, prose(9000)), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range cfg.Depths {
		p := n.Prompt(20000, d, 0)
		text := string(byteTok{}.Decode(p.IDs))
		last := -1
		for i, needle := range []string{"\nFigs are needed.\n", "\nProsciutto is needed.\n", "Goat cheese is needed. "} {
			at := strings.Index(text, needle)
			if strings.Count(text, needle) != 1 || at <= last || at+1 != p.Needles[i].Token {
				t.Errorf("depth %v: needle %d %d times, at %d after %d, reported at %d", d, i, strings.Count(text, needle), at, last, p.Needles[i].Token-1)
			}
			last = at
			if want := d + float64(i)*(100-d)/3; math.Abs(p.Needles[i].Depth-want) > 2 || p.Needles[i].Depth > want {
				t.Errorf("depth %v: needle %d at %v %%, want %v", d, i, p.Needles[i].Depth, want)
			}
		}
		if p.Answer != 20000-200+n.parts[0].overhead() || len(n.Control(20000, 0).IDs) != len(p.IDs) {
			t.Errorf("depth %v: %d tokens before the answer, %d in all; the control has %d", d, p.Answer, len(p.IDs), len(n.Control(20000, 0).IDs))
		}
	}
}

// Exact lengths are those of the prompt up to the answer, whatever the question.
func TestNeedleExactLengths(t *testing.T) {
	cfg := DefaultNeedle()
	cfg.Cases = append(cfg.Cases, NeedleCase{Needles: []string{"It is blue."}, Question: "And of which colour is it, if one may ask?", Answer: "blue"})
	cfg.Lengths, cfg.Exact, cfg.Boundary = []int{500, 1001}, true, BoundaryToken
	n, err := NewNeedle(cfg, byteTok{}, haystackOf(t, prose(9000)), 1100)
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range cfg.Lengths {
		for which := range cfg.Cases {
			if p, c := n.Prompt(length, 50, which), n.Control(length, which); p.Answer != length || c.Answer != length {
				t.Errorf("case %d: prompts of %d and %d tokens, want %d", which, p.Answer, c.Answer, length)
			}
		}
	}
}

// A template of one's own, and a chat template around the user's message.
func TestNeedleTemplates(t *testing.T) {
	cfg := DefaultNeedle()
	cfg.Cases = []NeedleCase{{Needles: []string{" k7=q1;"}, Question: "k7=", Answer: "q1"}}
	cfg.Template, cfg.Lengths, cfg.Boundary = "Facts: {context}\n{question}{answer}", []int{400}, BoundaryToken
	n, err := NewNeedle(cfg, byteTok{}, haystackOf(t, prose(900)), 1024)
	if err != nil {
		t.Fatal(err)
	}
	p := n.Prompt(400, 50, 0)
	text := string(byteTok{}.Decode(p.IDs))
	if !strings.HasPrefix(text, "Facts: ") || !strings.HasSuffix(text, "\nk7=q1") || !strings.Contains(text, " k7=q1;") || p.IDs[0] != 256 {
		t.Errorf("prompt %q", text)
	}
	if got := string(byteTok{}.Decode(p.IDs[p.Answer:])); got != "q1" {
		t.Errorf("the answer %q is scored, want q1", got)
	}

	cfg.Cases, cfg.Template, cfg.Chat = []NeedleCase{DefaultCase()}, ChatTemplate, "test"
	render := func(format string) func(user, answer string) ([]int32, []int32, error) {
		return func(user, answer string) ([]int32, []int32, error) {
			return byteTok{}.Encode(fmt.Appendf([]byte(nil), format, user), []int32{256}), byteTok{}.Encode([]byte(answer), nil), nil
		}
	}
	const form = "<user>\n%s</user>\n<model>\n"
	cfg.Render = render(form)
	if n, err = NewNeedle(cfg, byteTok{}, haystackOf(t, prose(900)), 1024); err != nil {
		t.Fatal(err)
	}
	p = n.Prompt(400, 100, 0)
	text = string(byteTok{}.Decode(p.IDs[:p.Answer]))
	before, after, _ := strings.Cut(form, "%s")
	if !strings.HasPrefix(text, before) || !strings.HasSuffix(text, "sunny day.\n\n\nQuestion: "+DefaultCase().Question+after) || slices.Index(p.IDs[1:], 256) >= 0 || p.IDs[0] != 256 {
		t.Errorf("prompt %q", text)
	}
	if got := string(byteTok{}.Decode(p.IDs[p.Answer:])); got != DefaultCase().Answer {
		t.Errorf("the answer %q is scored", got)
	}
	for want, render := range map[string]func(user, answer string) ([]int32, []int32, error){
		"as it is":  render("nothing%.0s"),
		"broken":    func(string, string) ([]int32, []int32, error) { return nil, nil, errors.New("broken") },
		"no tokens": func(user, _ string) ([]int32, []int32, error) { return byteTok{}.Encode([]byte(user), nil), nil, nil },
	} {
		cfg.Render = render
		if _, err := NewNeedle(cfg, byteTok{}, haystackOf(t, prose(900)), 1024); err == nil || !strings.Contains(err.Error(), "--chat test: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	cfg.Render, cfg.Template = render(form), BaseTemplate
	if _, err := NewNeedle(cfg, byteTok{}, haystackOf(t, prose(900)), 1024); err == nil || !strings.Contains(err.Error(), "not at all in a chat") {
		t.Errorf("{answer} in a chat: %v", err)
	}
}

func TestReadNeedles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "needles.jsonl")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"needle": "A is 1.", "question": "A?", "answer": "1"}

{"needles": ["B is 2.", "C is 3."], "question": "B and C?", "answer": "2 and 3", "keywords": ["2", "3"]}`)
	got, err := ReadNeedles(path)
	want := []NeedleCase{{Needles: []string{"A is 1."}, Question: "A?", Answer: "1"},
		{Needles: []string{"B is 2.", "C is 3."}, Question: "B and C?", Answer: "2 and 3", Keywords: []string{"2", "3"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"": "empty", "\n{": ":2:", `{"needle": "a", "question": "b", "answer": "c", "extra": 1}`: "extra",
		`{"question": "b", "answer": "c"}`: "needle", `{"needle": "a", "question": "b", "answer": "c"} {}`: "follows",
	} {
		write(text)
		if _, err := ReadNeedles(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: error %v, want one with %q and the file", text, err, want)
		}
	}
	if _, err := ReadNeedles(path + "x"); err == nil || !strings.Contains(err.Error(), "--needles") {
		t.Errorf("no file: %v", err)
	}
}

func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	open := func(fingerprint string) *Journal[int] {
		t.Helper()
		j, err := OpenJournal[int](dir, "x", fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open("0123456789abcdef-one")
	if err := j.Add(1, 2); err != nil {
		t.Fatal(err)
	}
	if err := j.Add(3); err != nil {
		t.Fatal(err)
	}
	j.Close()
	j = open("0123456789abcdef-one")
	if !slices.Equal(j.Done, []int{1, 2, 3}) {
		t.Errorf("read back: %v", j.Done)
	}
	j.Close()
	other := open("f123456789abcdef-two")
	if len(other.Done) != 0 {
		t.Errorf("another fingerprint has %v", other.Done)
	}
	other.Close()
	// Cut off at any byte, what is whole is kept, and writing goes on behind it.
	path := j.path
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		j := open("0123456789abcdef-one")
		want := bytes.Count(whole[:n], []byte("\n")) - 1
		if len(j.Done) != max(0, want) {
			t.Errorf("cut to %d bytes: %v", n, j.Done)
		}
		if err := j.Add(9); err != nil {
			t.Fatal(err)
		}
		j.Close()
		j = open("0123456789abcdef-one")
		if len(j.Done) != max(0, want)+1 || j.Done[len(j.Done)-1] != 9 {
			t.Errorf("cut to %d bytes and written on: %v", n, j.Done)
		}
		j.Close()
	}
	// The short fingerprint in the name is the same, the whole one isn't.
	if j := open("0123456789abcdef-three"); len(j.Done) != 0 {
		t.Errorf("another fingerprint has %v", j.Done)
	}
	if _, err := OpenJournal[int](path, "x", "f"); err == nil || !strings.Contains(err.Error(), "--output") {
		t.Errorf("a file in the folder's place: %v", err)
	}
}

func FuzzParseCase(f *testing.F) {
	f.Add([]byte(`{"needle": "A is 1.", "question": "A?", "answer": "1", "keywords": ["1"]}`))
	f.Add([]byte(`{"needles": ["B is 2.", " "], "question": "B?", "answer": "."}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		c, err := parseCase(line)
		if err != nil {
			return
		}
		for _, needle := range c.Needles {
			if h := hidden(needle); !strings.Contains(h, needle) {
				t.Errorf("%q is hidden as %q", needle, h)
			}
		}
		if c.exact(c.Answer) != 1 || c.exact("") != 0 {
			t.Errorf("the answer %q is not found in itself, or found in nothing", c.Answer)
		}
		if len(c.Keywords) == 0 && c.recall(c.Answer) != 1 {
			t.Errorf("the answer %q does not recall its own words", c.Answer)
		}
	})
}
