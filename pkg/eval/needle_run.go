package eval

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
)

// NeedleScores are the measures of a prompt, or their means. Log-probabilities
// are natural and those of the whole expected answer.
type NeedleScores struct {
	// Recall is the share of the expected words that the model's answer holds,
	// each counted once; Exact is 1 if it holds the expected answer as it is.
	Recall float64 `json:"recall"`
	Exact  float64 `json:"exact"`
	// LogPWith is the expected answer's after the prompt, LogPWithout after the
	// same prompt with as much more text in the needle's place. Difference is
	// LogPWith - LogPWithout: how many nats of evidence for the answer the model
	// takes from the needle. This is a measure of our own; it tells models apart
	// that are too small to answer.
	LogPWith           float64 `json:"logp_with"`
	LogPWithout        float64 `json:"logp_without"`
	Difference         float64 `json:"difference"`
	DifferencePerToken float64 `json:"difference_per_token"`
}

// NeedlePrompt is one prompt with what the model made of it.
type NeedlePrompt struct {
	Length       int      `json:"length"`
	Depth        float64  `json:"depth"`  // asked for, percent
	Sample       int      `json:"sample"` // among those of the cell
	Case         int      `json:"case"`   // index in the configuration's cases
	PromptTokens int      `json:"prompt_tokens"`
	Needles      []Placed `json:"needles"`
	Answer       string   `json:"answer"` // the model's, as valid UTF-8
	NeedleScores
}

// NeedleCell is one place of the grid: means over its samples.
type NeedleCell struct {
	Length int     `json:"length"`
	Depth  float64 `json:"depth"`
	NeedleScores
}

// NeedleResult is one model's grid with its scores, cells by length, then by
// depth.
type NeedleResult struct {
	Model        string   `json:"model"`
	Haystack     string   `json:"haystack"`
	HaystackSeed uint64   `json:"haystack_seed"`
	Boundary     Boundary `json:"boundary"` // the kind used
	// Fingerprint stands for model, configuration and text.
	Fingerprint string       `json:"fingerprint"`
	Config      NeedleConfig `json:"config"`
	// Mean is over all prompts; Above the share of them with a difference
	// greater than zero.
	Mean    NeedleScores   `json:"mean"`
	Above   float64        `json:"above_zero"`
	Cells   []NeedleCell   `json:"cells"`
	Prompts []NeedlePrompt `json:"prompts"`
}

// promptKey tells the prompts of a grid apart.
type promptKey struct {
	length int
	depth  float64
	sample int
}

func (p *NeedlePrompt) key() promptKey { return promptKey{p.Length, p.Depth, p.Sample} }

// Fingerprint identifies what the scores of this grid by a model depend on;
// model is what identifies the model's weights and how they are computed.
func (n *Needle) Fingerprint(model string) (string, error) {
	cfg := n.cfg
	cfg.Limit = 0 // it tells how many scores there are, not what they are
	texts, err := json.Marshal(cfg)
	if err != nil {
		return "", fmt.Errorf("needle: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "needle 1\n%s\n%s\n%v\n%v\n%v\n", model, texts, n.hay, n.cuts, n.parts)
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// plan lists the prompts of the grid in order, without scores.
func (n *Needle) plan() []NeedlePrompt {
	var all []NeedlePrompt
	cell := 0
	for _, length := range n.cfg.Lengths {
		for _, depth := range n.cfg.Depths {
			if n.cfg.Limit > 0 && cell == n.cfg.Limit {
				return all
			}
			for s := range n.cfg.Samples {
				all = append(all, NeedlePrompt{Length: length, Depth: depth, Sample: s, Case: n.order[(cell*n.cfg.Samples+s)%len(n.order)]})
			}
			cell++
		}
	}
	return all
}

// Run scores the grid by a model of the fingerprint's. What the journal holds
// isn't done again, and what is new goes there; nil keeps nothing.
func (n *Needle) Run(ctx context.Context, m LanguageModel, fingerprint string, j *Journal[NeedlePrompt]) (*NeedleResult, error) {
	res := &NeedleResult{
		Haystack: n.source, HaystackSeed: n.seed, Boundary: n.boundary, Fingerprint: fingerprint, Config: n.cfg, Prompts: n.plan(),
	}
	done := map[promptKey]NeedlePrompt{}
	if j != nil {
		for _, p := range j.Done {
			done[p.key()] = p
		}
	}
	var open []*NeedlePrompt
	for i := range res.Prompts {
		p := &res.Prompts[i]
		if have, ok := done[p.key()]; ok {
			*p = have
		} else {
			open = append(open, p)
		}
	}
	progress := func() {
		if n.progress != nil {
			n.progress(len(res.Prompts)-len(open), len(res.Prompts))
		}
	}
	progress()
	for len(open) > 0 {
		// The prompts of one length run together: they are equally long, and
		// those of one case have a control in common.
		k := 1
		for k < len(open) && open[k].Length == open[0].Length {
			k++
		}
		controls, err := n.controls(ctx, m, open[:k])
		if err != nil {
			return nil, err
		}
		for end := len(open) - k; len(open) > end; {
			batch := open[:min(n.cfg.Batch, len(open)-end)]
			if err := n.score(ctx, m, batch, controls); err != nil {
				return nil, err
			}
			if j != nil {
				items := make([]NeedlePrompt, len(batch))
				for i, p := range batch {
					items[i] = *p
				}
				if err := j.Add(items...); err != nil {
					return nil, err
				}
			}
			open = open[len(batch):]
			progress()
		}
	}
	res.summarise()
	return res, nil
}

// controls scores the answers of the prompts' cases without needles, by case.
func (n *Needle) controls(ctx context.Context, m LanguageModel, prompts []*NeedlePrompt) (map[int]float64, error) {
	scores := map[int]float64{}
	var cases []int
	for _, p := range prompts {
		if _, ok := scores[p.Case]; !ok {
			scores[p.Case] = 0
			cases = append(cases, p.Case)
		}
	}
	length := prompts[0].Length
	for len(cases) > 0 {
		batch := cases[:min(n.cfg.Batch, len(cases))]
		var seqs []Sequence
		for _, c := range batch {
			seqs = append(seqs, n.Control(length, c).Sequence())
		}
		rows, err := logProbs(ctx, m, seqs, fmt.Sprintf("needle: length %d", length))
		if err != nil {
			return nil, err
		}
		for i, c := range batch {
			scores[c] = sum(rows[i])
		}
		cases = cases[len(batch):]
	}
	return scores, nil
}

// score fills in what a model makes of prompts of one length.
func (n *Needle) score(ctx context.Context, m LanguageModel, prompts []*NeedlePrompt, controls map[int]float64) error {
	what := fmt.Sprintf("needle: length %d", prompts[0].Length)
	var seqs []Sequence
	var questions [][]int32
	for _, p := range prompts {
		built := n.Prompt(p.Length, p.Depth, p.Case)
		p.PromptTokens, p.Needles = built.Answer, built.Needles
		seqs = append(seqs, built.Sequence())
		questions = append(questions, built.IDs[:built.Answer:built.Answer])
	}
	rows, err := logProbs(ctx, m, seqs, what)
	if err != nil {
		return err
	}
	answers, err := m.Generate(ctx, questions, n.cfg.MaxNew)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if len(answers) != len(prompts) {
		return fmt.Errorf("%s: the model answered %d prompts of %d", what, len(answers), len(prompts))
	}
	for i, p := range prompts {
		c := &n.cfg.Cases[p.Case]
		// Bytes that are no UTF-8 become U+FFFD here already, as they do in JSON, so that an answer that is read back is the same.
		p.Answer = string([]rune(string(n.tok.Decode(answers[i]))))
		with, without := sum(rows[i]), controls[p.Case]
		p.NeedleScores = NeedleScores{
			Recall: c.recall(p.Answer), Exact: c.exact(p.Answer),
			LogPWith: with, LogPWithout: without, Difference: with - without,
			DifferencePerToken: (with - without) / float64(len(rows[i])),
		}
	}
	return nil
}

// meanScores of prompts, of which there is at least one.
func meanScores(prompts []NeedlePrompt) NeedleScores {
	var m NeedleScores
	sums := func(s *NeedleScores) []*float64 {
		return []*float64{&s.Recall, &s.Exact, &s.LogPWith, &s.LogPWithout, &s.Difference, &s.DifferencePerToken}
	}
	for i := range prompts {
		from := sums(&prompts[i].NeedleScores)
		for k, to := range sums(&m) {
			*to += *from[k]
		}
	}
	for _, v := range sums(&m) {
		*v /= float64(len(prompts))
	}
	return m
}

// summarise derives cells and means from the prompts.
func (r *NeedleResult) summarise() {
	r.Cells, r.Mean, r.Above = nil, NeedleScores{}, 0
	per := r.Config.Samples
	for i := 0; i < len(r.Prompts); i += per {
		p := r.Prompts[i : i+per]
		r.Cells = append(r.Cells, NeedleCell{Length: p[0].Length, Depth: p[0].Depth, NeedleScores: meanScores(p)})
	}
	if len(r.Prompts) == 0 {
		return
	}
	r.Mean = meanScores(r.Prompts)
	above := 0
	for _, p := range r.Prompts {
		if p.Difference > 0 {
			above++
		}
	}
	r.Above = float64(above) / float64(len(r.Prompts))
}

// Grid returns a measure of the cells as [depth][length], NaN where a cell was
// not scored, with the axes' values.
func (r *NeedleResult) Grid(measure func(NeedleScores) float64) (lengths []int, depths []float64, grid [][]float64) {
	lengths, depths = r.Config.Lengths, r.Config.Depths
	grid = make([][]float64, len(depths))
	for i := range grid {
		grid[i] = make([]float64, len(lengths))
		for j := range grid[i] {
			grid[i][j] = math.NaN()
			if k := j*len(depths) + i; k < len(r.Cells) {
				grid[i][j] = measure(r.Cells[k].NeedleScores)
			}
		}
	}
	return lengths, depths, grid
}
