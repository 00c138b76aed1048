package eval

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"
)

// NeedleConfig describes a needle-in-a-haystack grid. Its zero fields are not
// defaults; start from [DefaultNeedle].
type NeedleConfig struct {
	Needle   string `json:"needle"`   // the sentence to be found, with the line breaks around it
	Question string `json:"question"` // asked after the document
	Answer   string `json:"answer"`   // whose probability is measured

	// Lengths are nominal context lengths in tokens. Document and needle
	// together are length - buffer tokens long; BOS, question and answer come
	// on top.
	Lengths []int `json:"lengths"`
	// Depths are the places of the needle in percent of the document, 0 its
	// start, 100 its end.
	Depths []float64 `json:"depths"`
	// Buffer is the part of the nominal length kept free for the question and
	// the answer.
	Buffer int `json:"buffer"`
	// Boundary is the kind of place that a needle is walked back to.
	Boundary Boundary `json:"boundary"`
	// Batch is the number of prompts handed to the model at once, at least 1.
	Batch int `json:"batch"`
	// Limit ends after that many cells of the grid, 0 for all.
	Limit int `json:"limit"`
	// Progress is called after every batch with the number of cells done and
	// wanted; nil for none.
	Progress func(done, cells int) `json:"-"`
}

// DefaultNeedle returns the needle, question and depths of the original test
// (github.com/gkamradt/LLMTest_NeedleInAHaystack) without lengths, which depend
// on the model: see [NeedleConfig.Bounds].
func DefaultNeedle() NeedleConfig {
	return NeedleConfig{
		Needle:   "\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.\n",
		Question: "What is the best thing to do in San Francisco?",
		Answer:   "eat a sandwich and sit in Dolores Park on a sunny day.",
		Depths:   Linspace(0, 100, 11),
		Buffer:   200,
		Boundary: BoundaryAuto,
		Batch:    1,
	}
}

// Linspace returns n evenly spaced values from lo to hi, both included.
func Linspace(lo, hi float64, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = lo
		if n > 1 {
			v[i] += (hi - lo) * float64(i) / float64(n-1)
		}
	}
	return v
}

// LinspaceLengths is [Linspace] rounded to whole tokens, without repetitions.
func LinspaceLengths(lo, hi, n int) []int {
	var lengths []int
	for _, v := range Linspace(float64(lo), float64(hi), n) {
		if l := int(math.RoundToEven(v)); len(lengths) == 0 || l > lengths[len(lengths)-1] {
			lengths = append(lengths, l)
		}
	}
	return lengths
}

// Prompt is one cell's sequence: [BOS] document question answer.
type Prompt struct {
	IDs          []int32
	Answer       int     // index of the answer's first token
	Needle       int     // index of the needle's first token, -1 without a needle
	NeedleTokens int     // length of the needle, 0 without
	Depth        float64 // where the needle came to stand, in percent of the document
}

// Sequence is the prompt with its answer to be scored.
func (p Prompt) Sequence() Sequence { return Sequence{IDs: p.IDs, From: p.Answer} }

// parts are the fixed pieces around a document, as ids.
type parts struct {
	bos, needle, question, answer []int32
}

// encode turns the texts into ids. The document before the needle ends in a
// full stop, hence the seam.
func (c *NeedleConfig) encode(tok Tokenizer) parts {
	var p parts
	if bos := tok.BOS(); bos >= 0 {
		p.bos = []int32{bos}
	}
	question := "\n\nQuestion: " + c.Question + "\nAnswer:"
	p.needle = encodeAfter(tok, ".", c.Needle)
	p.question = encodeAfter(tok, ".", question)
	p.answer = encodeAfter(tok, question, " "+strings.TrimSpace(c.Answer))
	return p
}

// overhead is how many tokens a prompt holds besides document and needle.
func (p parts) overhead() int { return len(p.bos) + len(p.question) + len(p.answer) }

// Bounds returns the smallest and the largest nominal length that fit: the
// document is at least as long as the needle, and the whole prompt no longer
// than a model with maxSeq positions takes. lo > hi means that none fits.
func (c *NeedleConfig) Bounds(tok Tokenizer, maxSeq int) (lo, hi int) {
	p := c.encode(tok)
	return c.Buffer + 2*len(p.needle), maxSeq + 1 - p.overhead() + c.Buffer
}

// Needle builds the prompts of a grid.
type Needle struct {
	cfg      NeedleConfig
	source   string
	seed     uint64
	parts    parts
	hay      []int32
	boundary Boundary
	cuts     []int // where hay may be cut, ascending; nil: anywhere
}

// NewNeedle tokenises as much of the haystack as the longest context needs and
// finds the places where a needle may stand. maxSeq is the model's.
func NewNeedle(cfg NeedleConfig, tok Tokenizer, hay *Haystack, maxSeq int) (*Needle, error) {
	if err := cfg.check(tok, maxSeq); err != nil {
		return nil, err
	}
	n := &Needle{cfg: cfg, source: hay.Source, seed: hay.Seed, parts: cfg.encode(tok)}
	longest := cfg.Lengths[len(cfg.Lengths)-1] - cfg.Buffer // check saw that they ascend
	// A document may start later than the haystack does so that it ends at a
	// boundary; this much is kept for that.
	want := longest + 8*boundaryReach
	var text []byte
	for size := 4 * want; len(n.hay) < want; size *= 2 {
		var err error
		if text, err = hay.Text(size); err != nil {
			return nil, err
		}
		n.hay = tok.Encode(text, nil)
		if len(n.hay) == 0 {
			return nil, fmt.Errorf("--haystack %s: the tokenizer makes no tokens of it", hay.Source)
		}
	}
	bytesPerToken := float64(len(text)) / float64(len(n.hay))
	n.hay = n.hay[:want]
	if core := bytes.TrimSpace([]byte(cfg.Needle)); bytes.Contains(tok.Decode(n.hay), core) {
		return nil, fmt.Errorf("--haystack %s: the text already holds the needle %q; choose another --needle", hay.Source, core)
	}
	var err error
	n.boundary, n.cuts, err = chooseBoundary(tok, n.hay, cfg.Boundary, bytesPerToken, cfg.Lengths[0]-cfg.Buffer-len(n.parts.needle))
	return n, err
}

// check refuses what cannot be run, naming the flag.
func (c *NeedleConfig) check(tok Tokenizer, maxSeq int) error {
	switch {
	case strings.TrimSpace(c.Needle) == "":
		return errors.New("--needle: give the sentence to be hidden")
	case strings.TrimSpace(c.Question) == "":
		return errors.New("--question: give the question that the needle answers")
	case strings.TrimSpace(c.Answer) == "":
		return errors.New("--answer: give the answer whose probability is measured")
	case len(c.Lengths) == 0:
		return errors.New("--lengths: give at least one context length in tokens")
	case len(c.Depths) == 0:
		return errors.New("--depths: give at least one depth in percent")
	case c.Buffer < 0:
		return fmt.Errorf("--buffer %d: 0 or more tokens", c.Buffer)
	case c.Batch < 1:
		return fmt.Errorf("--batch %d: at least 1", c.Batch)
	case c.Limit < 0:
		return fmt.Errorf("--limit %d: give a number of cells, or 0 for all", c.Limit)
	}
	for i, d := range c.Depths {
		if !(d >= 0 && d <= 100) {
			return fmt.Errorf("--depths %v: between 0 and 100 percent", d)
		}
		if i > 0 && d <= c.Depths[i-1] {
			return fmt.Errorf("--depths %v after %v: give them in ascending order, each once", d, c.Depths[i-1])
		}
	}
	lo, hi := c.Bounds(tok, maxSeq)
	if lo > hi {
		return fmt.Errorf("--lengths: no length fits: the shortest for this needle and --buffer %d is %d tokens, the longest for the model's max_seq %d is %d; use a shorter needle, question or answer, or a model with a larger max_seq", c.Buffer, lo, maxSeq, hi)
	}
	for i, l := range c.Lengths {
		switch {
		case l > hi:
			return fmt.Errorf("--lengths %d: the prompt is %d tokens long and the model's max_seq is %d; the longest length that fits is %d", l, l-hi+maxSeq+1, maxSeq, hi)
		case l < lo:
			return fmt.Errorf("--lengths %d: too short for the needle, a document as long and --buffer %d; the shortest length that fits is %d", l, c.Buffer, lo)
		case i > 0 && l <= c.Lengths[i-1]:
			return fmt.Errorf("--lengths %d after %d: give them in ascending order, each once", l, c.Lengths[i-1])
		}
	}
	return nil
}

// Boundary is the kind of place that needles are walked back to.
func (n *Needle) Boundary() Boundary { return n.boundary }

// document returns the bounds in hay of length-buffer tokens that end at a
// boundary: the haystack from its start, moved on by less than a sentence.
func (n *Needle) document(length int) (from, to int) {
	size := length - n.cfg.Buffer
	if i := sort.SearchInts(n.cuts, size); i < len(n.cuts) {
		return n.cuts[i] - size, n.cuts[i]
	}
	return 0, size
}

// Control returns the prompt without a needle: the same document, begun earlier
// by as many tokens as the needle has, so that the answer stands at the same
// position after the same text.
func (n *Needle) Control(length int) Prompt {
	from, to := n.document(length)
	p := Prompt{Needle: -1}
	p.IDs = append(p.IDs, n.parts.bos...)
	p.IDs = append(p.IDs, n.hay[from:to]...)
	n.ask(&p)
	return p
}

// Prompt returns the prompt with the needle at floor(tokens * depth / 100) of
// the document, walked back to a boundary; depth 100 appends it.
func (n *Needle) Prompt(length int, depth float64) Prompt {
	from, to := n.document(length)
	from += len(n.parts.needle)
	at := from + int(math.Floor(float64(to-from)*depth/100))
	if n.cuts != nil && at < to {
		// The start of the document is a boundary as well.
		i := sort.SearchInts(n.cuts, at+1)
		back := from
		if i > 0 {
			back = max(from, n.cuts[i-1])
		}
		at = back
	}
	var p Prompt
	p.IDs = append(p.IDs, n.parts.bos...)
	p.IDs = append(p.IDs, n.hay[from:at]...)
	p.Needle, p.NeedleTokens = len(p.IDs), len(n.parts.needle)
	p.Depth = 100 * float64(at-from) / float64(to-from)
	p.IDs = append(p.IDs, n.parts.needle...)
	p.IDs = append(p.IDs, n.hay[at:to]...)
	n.ask(&p)
	return p
}

// ask appends question and answer.
func (n *Needle) ask(p *Prompt) {
	p.IDs = append(p.IDs, n.parts.question...)
	p.Answer = len(p.IDs)
	p.IDs = append(p.IDs, n.parts.answer...)
}

// NeedleCell is one place of the grid. Log-probabilities are natural.
type NeedleCell struct {
	Length       int     `json:"length"`
	Depth        float64 `json:"depth"`        // asked for, percent
	ActualDepth  float64 `json:"actual_depth"` // after the walk back to a boundary
	PromptTokens int     `json:"prompt_tokens"`
	NeedleToken  int     `json:"needle_token"` // index in the prompt, BOS included
	LogPWith     float64 `json:"logp_with"`    // of the whole answer
	LogPWithout  float64 `json:"logp_without"` // the same length's control
	// Difference is LogPWith - LogPWithout: how many nats of evidence for the
	// answer the model takes from the needle.
	Difference         float64 `json:"difference"`
	DifferencePerToken float64 `json:"difference_per_token"`
}

// NeedleResult is a grid with its scores, cells by length, then by depth.
type NeedleResult struct {
	Haystack     string   `json:"haystack"`
	HaystackSeed uint64   `json:"haystack_seed"`
	Boundary     Boundary `json:"boundary"` // the kind used
	NeedleTokens int      `json:"needle_tokens"`
	AnswerTokens int      `json:"answer_tokens"`
	// MeanDifference is over all cells scored; Above the share of them with a
	// difference greater than zero.
	MeanDifference float64      `json:"mean_difference"`
	Above          float64      `json:"above_zero"`
	Config         NeedleConfig `json:"config"`
	Cells          []NeedleCell `json:"cells"`
}

// Run scores the grid: per length one control, then every depth.
func (n *Needle) Run(ctx context.Context, m Scorer) (*NeedleResult, error) {
	res := &NeedleResult{
		Haystack: n.source, HaystackSeed: n.seed, Boundary: n.boundary,
		NeedleTokens: len(n.parts.needle), AnswerTokens: len(n.parts.answer), Config: n.cfg,
	}
	total := len(n.cfg.Lengths) * len(n.cfg.Depths)
	if n.cfg.Limit > 0 {
		total = min(total, n.cfg.Limit)
	}
	for _, length := range n.cfg.Lengths {
		depths := n.cfg.Depths[:min(len(n.cfg.Depths), total-len(res.Cells))]
		if len(depths) == 0 {
			break
		}
		prompts := []Prompt{n.Control(length)}
		for _, d := range depths {
			prompts = append(prompts, n.Prompt(length, d))
		}
		var scores []float64
		for len(scores) < len(prompts) {
			seqs := []Sequence{}
			for _, p := range prompts[len(scores):min(len(prompts), len(scores)+n.cfg.Batch)] {
				seqs = append(seqs, p.Sequence())
			}
			rows, err := logProbs(ctx, m, seqs, fmt.Sprintf("needle: length %d", length))
			if err != nil {
				return nil, err
			}
			for _, row := range rows {
				scores = append(scores, sum(row))
			}
			if n.cfg.Progress != nil {
				n.cfg.Progress(len(res.Cells)+len(scores)-1, total)
			}
		}
		for i, d := range depths {
			p := prompts[i+1]
			res.Cells = append(res.Cells, newCell(length, d, p, scores[i+1], scores[0]))
		}
	}
	res.summarise()
	return res, nil
}

// newCell scores one prompt against its control.
func newCell(length int, depth float64, p Prompt, with, without float64) NeedleCell {
	return NeedleCell{
		Length: length, Depth: depth, ActualDepth: p.Depth,
		PromptTokens: p.Answer, NeedleToken: p.Needle,
		LogPWith: with, LogPWithout: without,
		Difference:         with - without,
		DifferencePerToken: (with - without) / float64(len(p.IDs)-p.Answer),
	}
}

// summarise derives the means from the cells.
func (r *NeedleResult) summarise() {
	var total float64
	above := 0
	for _, c := range r.Cells {
		total += c.Difference
		if c.Difference > 0 {
			above++
		}
	}
	if k := float64(len(r.Cells)); k > 0 {
		r.MeanDifference, r.Above = total/k, float64(above)/k
	}
}

// Grid returns the cells' differences as [depth][length], NaN where a cell was
// not scored, with the axes' values.
func (r *NeedleResult) Grid() (lengths []int, depths []float64, diff [][]float64) {
	lengths, depths = r.Config.Lengths, r.Config.Depths
	diff = make([][]float64, len(depths))
	for i := range diff {
		diff[i] = make([]float64, len(lengths))
		for j := range diff[i] {
			diff[i][j] = math.NaN()
			if k := j*len(depths) + i; k < len(r.Cells) {
				diff[i][j] = r.Cells[k].Difference
			}
		}
	}
	return lengths, depths, diff
}
