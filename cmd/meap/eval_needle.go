package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"meap/internal/config"
	"meap/internal/setup"
	"meap/pkg/dataset"
	"meap/pkg/eval"
)

// needleFlags are the flags of eval needle beside those of every evaluation.
type needleFlags struct {
	evalFlags
	cfg                        eval.NeedleConfig
	one                        eval.NeedleCase
	cases, haystack            string
	distractors                int
	lengths, depths, spacing   string
	boundary, template, metric string
}

func newEvalNeedle(o *options) *cobra.Command {
	f := needleFlags{cfg: eval.DefaultNeedle()}
	c := &cobra.Command{
		Use:   "needle",
		Short: "Needle in a haystack: does the model find a sentence in a long text?",
		Long: `Needle in a haystack: a sentence is hidden at several depths of texts of several lengths, then asked for.

Three measures: keyword recall, the share of the expected answer's words in what the model answers;
exact answers, which hold the expected one as it is; and, because small models do not answer, how much
more likely the needle makes the expected answer, in nats (our own measure).

An interrupted evaluation continues when the same command is given again.`,
		Example: `  meap eval needle --model runs/quickstart
  meap eval needle --model runs/ntp --model runs/meap --haystack essays/ --lengths 1000:16000:35 --depths 0:100:35
  meap eval needle --model runs/retrieval/meap
  meap eval needle --model runs/quickstart --needles facts.jsonl --samples 5 --lengths 384,512 --exact
  meap eval needle --model llama --rope-scaling yarn:4 --chat auto --lengths 4000:32000:8`,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c, o) },
	}
	f.bind(c, true)
	fl := c.Flags()
	fl.StringVar(&f.haystack, "haystack", "", "file or folder with the text to hide the needle in (default: the text the run was trained on)")
	fl.StringVar(&f.lengths, "lengths", "", "context lengths in tokens, a,b,c or FROM:TO:COUNT (default: six that the model takes)")
	fl.BoolVar(&f.cfg.Exact, "exact", false, "lengths are those of the whole prompt (default: document and needle are --buffer tokens shorter, the question comes on top)")
	fl.StringVar(&f.depths, "depths", "0:100:11", "places of the needle in percent of the document, a,b,c or FROM:TO:COUNT")
	fl.StringVar(&f.spacing, "depth-spacing", "linear", "spacing of --depths FROM:TO:COUNT: linear, or sigmoid for more at both ends")
	fl.StringArrayVar(&f.one.Needles, "needle", nil, "sentence to hide; repeat it to hide several (default: the best thing to do in San Francisco)")
	fl.StringVar(&f.one.Question, "question", "", "question after the document")
	fl.StringVar(&f.one.Answer, "answer", "", "what a right answer contains, and whose likelihood is measured")
	fl.StringArrayVar(&f.one.Keywords, "keyword", nil, "word or phrase that recall counts; repeat it for more (default: the words of the answer)")
	fl.StringVar(&f.cases, "needles", "", "file with needles to take in turn, one JSON object per line: needle, question, answer; or planted: facts as the run was trained on, about other names (default for such a run)")
	fl.IntVar(&f.distractors, "distractors", -1, "other facts hidden with each planted one (-1: as many as training documents have)")
	fl.IntVar(&f.cfg.Samples, "samples", f.cfg.Samples, fmt.Sprintf("prompts per length and depth (planted needles: %d)", plantedSamples))
	fl.IntVar(&f.cfg.Texts, "texts", 0, "different stretches of the haystack that the needles take in turn (0: one; for planted needles, as many as there are prompts)")
	fl.StringVar(&f.template, "template", "", "prompt with {context}, {question} and, at its end, {answer} (default: Question: ... Answer:)")
	fl.StringVar(&f.cfg.Chat, "chat", "", "ask by a chat template: auto, model, plain, alpaca, llama3, chatml or a .jinja file (default: a base model's prompt)")
	fl.IntVar(&f.cfg.MaxNew, "max-new", 0, "tokens of an answer at most (0: 50, or what the expected answer needs)")
	fl.IntVar(&f.cfg.Buffer, "buffer", f.cfg.Buffer, "part of the length kept free for question and answer")
	fl.StringVar(&f.boundary, "boundary", string(f.cfg.Boundary), "where a needle may stand: after a sentence, line or token, or auto")
	fl.StringVar(&f.metric, "metric", string(eval.MetricAuto), "what the terminal and the picture show: recall, exact, difference, or auto: recall where any answer is exact")
	fl.Uint64Var(&f.cfg.Seed, "seed", 0, "shuffles the haystack's files and the order of --needles (0: neither)")
	return endingWell(c)
}

// run evaluates one model after the other on the same grid.
func (f *needleFlags) run(c *cobra.Command, o *options) error {
	models, runs, err := f.find("needle")
	if err != nil {
		return err
	}
	if err := f.configure(); err != nil {
		return err
	}
	planted := f.cases == plantedNeedles || f.cases == "" && !f.own() && plantsFacts(runs[0])
	if planted {
		if err := f.plant(c, models[0].Name, runs[0]); err != nil {
			return err
		}
	}
	hay, err := f.findHaystack(runs[0], planted)
	if err != nil {
		return err
	}
	var needles []*eval.Needle
	ends := make([][]int32, len(models))
	cfgs := make([]eval.NeedleConfig, len(models))
	lo, hi := 0, 1<<30
	for i, m := range models {
		cfgs[i] = f.cfg
		if f.cfg.Chat != "" {
			render, end, err := setup.ChatRenderer(f.cfg.Chat, m.Dir, m.Tokenizer)
			if err != nil {
				return usagef("--chat %s: %v", f.cfg.Chat, err)
			}
			cfgs[i].Render, ends[i] = render, []int32{end}
		}
		l, h, err := cfgs[i].Bounds(m.Tokenizer, m.Config.MaxSeq)
		if err != nil {
			return usagef("%v", err)
		}
		lo, hi = max(lo, l), min(hi, h)
	}
	if f.lengths == "" {
		if lo > hi {
			return usagef("the prompt alone does not fit into the model's context: choose a shorter --needle, --question and --answer, a smaller --max-new, or a smaller --buffer")
		}
		f.cfg.Lengths = eval.LinspaceLengths(lo, hi, 6)
		if planted {
			f.cfg.Lengths = []int{hi} // prompt, answer and what ends a document are as long as a row of training
		}
	}
	for i, m := range models {
		cfgs[i].Lengths = f.cfg.Lengths
		n, err := eval.NewNeedle(cfgs[i], m.Tokenizer, hay, m.Config.MaxSeq)
		if err != nil {
			return usagef("%v", err)
		}
		needles = append(needles, n)
	}
	report := &eval.Report{Title: "Needle in a haystack", Metric: eval.Metric(f.metric)}
	var journals []*eval.Journal[eval.NeedlePrompt]
	for i, m := range models {
		result, journal, err := f.evaluate(c, o, m, needles[i], ends[i])
		if journal != nil {
			defer journal.Close()
		}
		if err != nil {
			return err
		}
		result.Model = m.Name
		report.Needle, journals = append(report.Needle, result), append(journals, journal)
	}
	if err := f.finish(c, o, models, runs, report); err != nil {
		return err
	}
	for _, j := range journals {
		if err := j.Remove(); err != nil {
			return err
		}
	}
	return nil
}

// configure turns flags into the grid's configuration, but for the lengths that depend on the models.
func (f *needleFlags) configure() error {
	f.cfg.Batch, f.cfg.Limit, f.cfg.Boundary = f.batch, f.limit, eval.Boundary(f.boundary)
	f.cfg.Template = f.template
	if f.template == "" {
		f.cfg.Template = eval.BaseTemplate
		if f.cfg.Chat != "" {
			f.cfg.Template = eval.ChatTemplate
		}
	}
	if !slices.Contains(eval.Metrics(), eval.Metric(f.metric)) {
		return usagef("--metric %s: one of auto, recall, exact, difference", f.metric)
	}
	own := f.own()
	switch {
	case f.cases != "" && (own || len(f.one.Keywords) > 0):
		return usagef("give either --needles, or --needle, --question and --answer")
	case f.cases == plantedNeedles: // the run says which
	case f.cases != "":
		var err error
		if f.cfg.Cases, err = eval.ReadNeedles(f.cases); err != nil {
			return usagef("%v", err)
		}
	case own && (len(f.one.Needles) == 0 || f.one.Question == "" || f.one.Answer == ""):
		return usagef("--needle, --question and --answer belong together: give all three")
	case own:
		f.cfg.Cases = []eval.NeedleCase{f.one}
	default:
		f.cfg.Cases[0].Keywords = f.one.Keywords
	}
	lengths, err := series("lengths", f.lengths, false)
	if err != nil {
		return err
	}
	f.cfg.Lengths = nil
	for _, l := range lengths {
		f.cfg.Lengths = append(f.cfg.Lengths, int(l))
	}
	if f.spacing != "linear" && f.spacing != "sigmoid" {
		return usagef("--depth-spacing %s: linear or sigmoid", f.spacing)
	}
	f.cfg.Depths, err = series("depths", f.depths, f.spacing == "sigmoid")
	return err
}

// series reads a,b,c or FROM:TO:COUNT; whole numbers where it is about lengths.
func series(flag, text string, sigmoid bool) ([]float64, error) {
	if text == "" {
		return nil, nil
	}
	bad := func() ([]float64, error) {
		return nil, usagef("--%s %s: give numbers a,b,c or FROM:TO:COUNT, such as 0:100:11", flag, text)
	}
	number := func(s string) (float64, error) {
		if flag == "lengths" {
			n, err := strconv.Atoi(strings.TrimSpace(s))
			return float64(n), err
		}
		return strconv.ParseFloat(strings.TrimSpace(s), 64)
	}
	var v []float64
	separator := ","
	if strings.Contains(text, ":") {
		separator = ":"
	}
	for part := range strings.SplitSeq(text, separator) {
		x, err := number(part)
		if err != nil {
			return bad()
		}
		v = append(v, x)
	}
	if separator == "," {
		return v, nil
	}
	if len(v) != 3 || v[2] < 1 || v[2] > 10000 || v[2] != float64(int(v[2])) || v[1] < v[0] {
		return bad()
	}
	if flag == "lengths" {
		var all []float64
		for _, l := range eval.LinspaceLengths(int(v[0]), int(v[1]), int(v[2])) {
			all = append(all, float64(l))
		}
		return all, nil
	}
	all := eval.Linspace(v[0], v[1], int(v[2]))
	if sigmoid {
		all = eval.Sigmoid(all)
	}
	return all, nil
}

// own reports whether the flags name a needle.
func (f *needleFlags) own() bool {
	return len(f.one.Needles) > 0 || f.one.Question != "" || f.one.Answer != ""
}

// evaluate scores the grid by one model. The journal is the caller's to close or, once the report is written, to remove.
func (f *needleFlags) evaluate(c *cobra.Command, o *options, folder *setup.ModelFolder, n *eval.Needle, ends []int32) (*eval.NeedleResult, *eval.Journal[eval.NeedlePrompt], error) {
	model, err := folder.Fingerprint()
	if err != nil {
		return nil, nil, err
	}
	fingerprint, err := n.Fingerprint(model)
	if err != nil {
		return nil, nil, err
	}
	journal, err := eval.OpenJournal[eval.NeedlePrompt](f.output, "needle", fingerprint)
	if err != nil {
		return nil, nil, err
	}
	if done := len(journal.Done); done > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "needle: %s was interrupted: %d prompts are done already\n", folder.Name, done)
	}
	m, err := f.open(o, folder)
	if err != nil {
		return nil, journal, err
	}
	defer m.Close()
	l, err := m.LanguageModel(f.batch, n.Tokens(), ends...)
	if err != nil {
		return nil, journal, err
	}
	defer l.Close()
	b := newBar(c.ErrOrStderr(), int64(n.Prompts()), "needle")
	prompts := 0
	n.Progress(func(done, _ int) { prompts = done; b.set(int64(done)) })
	result, err := n.Run(c.Context(), l, fingerprint, journal)
	if errors.Is(err, context.Canceled) {
		return nil, journal, fmt.Errorf("interrupted after %d of %d prompts; the same command continues: %w", prompts, n.Prompts(), err)
	}
	if err != nil {
		return nil, journal, err
	}
	b.finish("%d prompts, %s", prompts, folder.Name)
	return result, journal, nil
}

// defaultHaystack is a folder of the run's training text: what its first source matches begins with.
func defaultHaystack(run *config.Config) (string, error) {
	if run == nil || len(run.Data.Sources) == 0 {
		return "", usagef("--model is no run's output folder, so there is no text to hide a needle in: name one with --haystack")
	}
	path, err := dataset.ExpandPath(run.Data.Sources[0])
	if err != nil {
		return "", err
	}
	for strings.ContainsAny(path, "*?[") {
		path = filepath.Dir(path)
	}
	return path, nil
}
