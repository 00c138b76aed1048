package eval

import (
	"context"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meap/pkg/tokenizer"
)

// essays are the haystack of the original test, where this machine has them.
func essays(t *testing.T) *Haystack {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "data", "needle", "PaulGrahamEssays")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the essays are not here: %v", err)
	}
	h, err := FindHaystack(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// families are a tokenizer of either kind: Llama 2's, and a byte-level BPE.
func families(t *testing.T, h *Haystack) map[string]tokenizer.Tokenizer {
	t.Helper()
	all := map[string]tokenizer.Tokenizer{}
	dir := filepath.Join("..", "..", "..", "shared", "tokenizers", "llama2-mask")
	if _, err := os.Stat(dir); err != nil {
		t.Logf("Llama 2's tokenizer is not here: %v", err)
	} else if all["llama 2"], err = tokenizer.Load(dir); err != nil {
		t.Fatal(err)
	}
	text, err := h.Text(300_000)
	if err != nil {
		t.Fatal(err)
	}
	texts := iter.Seq2[[]byte, error](func(yield func([]byte, error) bool) { yield(text, nil) })
	if all["byte-level"], err = tokenizer.Train(context.Background(), texts, tokenizer.TrainOptions{VocabSize: 2000}); err != nil {
		t.Fatal(err)
	}
	return all
}

// In prompts over the essays the needle stands once and whole, after the end of a sentence and within 2 % of the depth asked for,
// and what is scored is the answer.
func TestNeedlePlacementInEssays(t *testing.T) {
	h := essays(t)
	for name, tok := range families(t, h) {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultNeedle()
			cfg.Lengths, cfg.Depths = []int{2000, 4000, 16000}, Linspace(0, 100, 35)
			if testing.Short() {
				cfg.Lengths = cfg.Lengths[:2]
			}
			n, err := NewNeedle(cfg, tok, h, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if n.Boundary() != BoundarySentence {
				t.Errorf("boundary %q", n.Boundary())
			}
			whole, c := cfg.Cases[0].Needles[0], cfg.Cases[0]
			for _, length := range cfg.Lengths {
				inside := 0
				for _, depth := range cfg.Depths {
					p := n.Prompt(length, depth, 0)
					text := string(tok.Decode(p.IDs[1:]))
					if strings.Count(text, whole) != 1 {
						t.Fatalf("length %d depth %.1f: the needle stands %d times in the prompt", length, depth, strings.Count(text, whole))
					}
					before, _, _ := strings.Cut(text, whole)
					if end := strings.TrimRight(before, " \n\"')"); end != "" {
						inside++
						if !strings.ContainsAny(end[len(end)-1:], ".!?") {
							t.Errorf("length %d depth %.1f: the needle stands after %q", length, depth, before[max(0, len(before)-30):])
						}
					}
					// A document of few sentences has none within 2 % of every depth; the lengths of the original test have.
					if at := p.Needles[0].Depth; at > depth || length >= 4000 && depth-at > 2 {
						t.Errorf("length %d depth %.1f: the needle stands at %.2f %%", length, depth, at)
					}
					if share := 100 * float64(len(before)) / float64(len(text)-len(whole)); length >= 4000 && math.Abs(share-p.Needles[0].Depth) > 5 {
						t.Errorf("length %d: at depth %.1f %.1f %% of the text's bytes stand before the needle", length, p.Needles[0].Depth, share)
					}
					if !strings.HasSuffix(text, "\n\nQuestion: "+c.Question+"\nAnswer: "+c.Answer) {
						t.Errorf("length %d depth %.1f: the prompt ends %q", length, depth, text[len(text)-150:])
					}
					if got := strings.TrimSpace(string(tok.Decode(p.IDs[p.Answer:]))); got != c.Answer {
						t.Errorf("length %d depth %.1f: %q is scored", length, depth, got)
					}
					if p.IDs[0] != tok.BOS() || p.Answer-n.parts[0].overhead() != length-cfg.Buffer {
						t.Errorf("length %d depth %.1f: begins with %d, document and needle have %d tokens", length, depth, p.IDs[0], p.Answer-n.parts[0].overhead())
					}
				}
				if inside < 30 {
					t.Errorf("length %d: %d of 35 needles stand behind some text", length, inside)
				}
			}
		})
	}
}

// With real tokenizers too, a model that copies the answer scores 100 %, and one that doesn't 0 %.
func TestNeedleStubOnEssays(t *testing.T) {
	h := essays(t)
	for name, tok := range families(t, h) {
		cfg := DefaultNeedle()
		cfg.Lengths, cfg.Depths, cfg.Batch = []int{1500, 3000}, Linspace(0, 100, 5), 3
		n, err := NewNeedle(cfg, tok, h, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, knows := range []bool{true, false} {
			res, err := n.Run(context.Background(), copyist{uniform(32000, 1<<20), tok, knows}, "", nil)
			want := map[bool]float64{true: 1}[knows]
			if err != nil || res.Mean.Recall != want || res.Mean.Exact != want || len(res.Cells) != 10 {
				t.Errorf("%s, knows %v: %+v, %v", name, knows, res.Mean, err)
			}
		}
	}
}

// copyist answers by what follows "San Francisco is" in its prompt, or by nothing that is in it.
type copyist struct {
	scorerFunc
	tok   tokenizer.Tokenizer
	knows bool
}

func (c copyist) Generate(_ context.Context, prompts [][]int32, maxNew int) ([][]int32, error) {
	var out [][]int32
	for _, p := range prompts {
		answer := "1 2 3"
		if _, after, ok := strings.Cut(string(c.tok.Decode(p)), "San Francisco is "); ok && c.knows {
			answer = after[:80]
		}
		ids := c.tok.Encode([]byte(answer), nil)
		out = append(out, ids[:min(maxNew, len(ids))])
	}
	return out, nil
}
