package setup

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"meap/internal/config"
	"meap/pkg/dataset/dialogue"
	"meap/pkg/eval"
	"meap/pkg/graph"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// ModelFolder is a trained model whose weights are still on the disk.
type ModelFolder struct {
	Name      string // as the user wrote it
	Dir       string
	Config    transformer.Config
	Tokenizer tokenizer.Tokenizer
	Stop      []int32 // ids that end a text: those that the folder states (transformer.LoadSpecialTokens), and the tokenizer's
}

// FindModel reads what a model folder, or the newest checkpoint of a run's output folder, says about its model. ropeScaling, such as
// yarn:4, scales positions for longer contexts; "" takes what the folder says.
func FindModel(path, ropeScaling string) (*ModelFolder, error) {
	dir, err := modelDir("--model "+path, path)
	if err != nil {
		return nil, err
	}
	c, err := transformer.LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	if ropeScaling == "" {
		c = c.Extended()
	} else if c, err = c.ScaleRope(ropeScaling); err != nil {
		return nil, &config.Error{Problems: []error{fmt.Errorf("--rope-scaling: %w", err)}}
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return nil, err
	}
	ends, err := transformer.LoadSpecialTokens(dir)
	if err != nil {
		return nil, err
	}
	f := &ModelFolder{Name: path, Dir: dir, Config: c, Tokenizer: tok, Stop: ends.EOS}
	if eos := tok.EOS(); eos >= 0 && !slices.Contains(f.Stop, eos) {
		f.Stop = append(f.Stop, eos)
	}
	return f, nil
}

// Fingerprint identifies the model's weights, tokenizer, positions and what ends its texts by their content.
func (f *ModelFolder) Fingerprint() (string, error) {
	files, err := filepath.Glob(filepath.Join(f.Dir, "*.safetensors"))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, f.Config, f.Tokenizer.Fingerprint(), f.Stop)
	for _, name := range files {
		if filepath.Base(name) == "trainer.safetensors" {
			continue // the optimiser's state
		}
		if err := hashFile(h, name); err != nil {
			return "", fmt.Errorf("identify the model %s: %w", f.Dir, err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func hashFile(h io.Writer, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(h, file)
	return err
}

// Describe says for a report what was evaluated.
func (f *ModelFolder) Describe() eval.Model {
	c := f.Config
	d := eval.Model{Name: f.Name, Dir: f.Dir, Parameters: c.Parameters(), MaxSeq: c.MaxSeq, RopeScaling: c.RopeScaling.String()}
	if raw, err := os.ReadFile(filepath.Join(f.Dir, "config.json")); err == nil && json.Valid(raw) {
		d.Config = raw
	}
	return d
}

// Trained is a trained model on a device, with its tokenizer.
type Trained struct {
	*ModelFolder
	Params *transformer.Parameters
	Device graph.Device
	close  func()
}

// OpenModel loads a model folder, or the newest checkpoint of a run's output folder, on the device that t asks for. Close it
// when done.
func OpenModel(path string, t trainer.Config) (*Trained, error) {
	f, err := FindModel(path, "")
	if err != nil {
		return nil, err
	}
	return f.Open(t)
}

// Open loads the weights on the device that t asks for. Close the model when done.
func (f *ModelFolder) Open(t trainer.Config) (*Trained, error) {
	weights, err := transformer.Load(f.Dir)
	if err != nil {
		return nil, err
	}
	weights.Config = f.Config
	dev, closeDevice, err := Device(t)
	if err != nil {
		return nil, err
	}
	params, err := transformer.NewParameters(dev, weights)
	if err != nil {
		closeDevice()
		return nil, fmt.Errorf("put the weights of %s on %s: %w", f.Dir, dev.Name(), err)
	}
	return &Trained{ModelFolder: f, Params: params, Device: dev, close: closeDevice}, nil
}

// Close frees the weights and the device.
func (m *Trained) Close() {
	m.Params.Close()
	m.close()
}

// Scorer makes the model answer to package eval.
func (m *Trained) Scorer() eval.Scorer { return scorer{transformer.NewScorer(m.Params)} }

type scorer struct{ *transformer.Scorer }

// LogProbs implements eval.Scorer.
func (s scorer) LogProbs(ctx context.Context, seqs []eval.Sequence) ([][]float32, error) {
	ids, from := unpack(seqs)
	return s.Scorer.LogProbs(ctx, ids, from)
}

func unpack(seqs []eval.Sequence) (ids [][]int32, from []int) {
	ids, from = make([][]int32, len(seqs)), make([]int, len(seqs))
	for i, q := range seqs {
		ids[i], from[i] = q.IDs, q.From
	}
	return ids, from
}

// cacheBytes is what the caches of one LanguageModel may take, unless those of a single sequence need more.
const cacheBytes = 1 << 30

// LanguageModel is a model that scores and continues prompts of a length, in package eval's words.
type LanguageModel struct {
	generator *transformer.Generator
	maxSeq    int
	stop      []int32
}

// LanguageModel makes the model answer to package eval for sequences of so many tokens, prompt and answer together, batch at a time
// where that doesn't take too much memory. An answer ends where the model ends a text, or with one of the ids in stop. Close it when
// done.
func (m *Trained) LanguageModel(batch, tokens int, stop ...int32) (*LanguageModel, error) {
	l := &LanguageModel{maxSeq: m.Config.MaxSeq, stop: append(stop, m.Stop...)}
	tokens = min(tokens, m.Config.MaxSeq)
	batch = min(batch, max(1, int(cacheBytes/m.Config.CacheBytes(tokens))))
	var err error
	l.generator, err = transformer.NewGenerator(m.Params, transformer.GeneratorOptions{Batch: batch, Context: tokens})
	return l, err
}

// MaxSeq implements eval.Scorer.
func (l *LanguageModel) MaxSeq() int { return l.maxSeq }

// LogProbs implements eval.Scorer.
func (l *LanguageModel) LogProbs(ctx context.Context, seqs []eval.Sequence) ([][]float32, error) {
	ids, from := unpack(seqs)
	return l.generator.LogProbs(ctx, ids, from)
}

// Generate implements eval.Generator.
func (l *LanguageModel) Generate(ctx context.Context, prompts [][]int32, maxNew int) ([][]int32, error) {
	out, err := l.generator.Generate(ctx, prompts, transformer.Sampling{MaxNew: maxNew, Stop: l.stop}, nil)
	if err != nil {
		return nil, err
	}
	ids := make([][]int32, len(out))
	for i, g := range out {
		ids[i] = g.IDs
	}
	return ids, nil
}

// Close frees the caches; the weights stay.
func (l *LanguageModel) Close() { l.generator.Close() }

// ChatRenderer returns how a chat template writes one question and its answer, for eval.NeedleConfig, and the id that ends the
// answer. name is one of sft.template's.
func ChatRenderer(name, dir string, tok tokenizer.Tokenizer) (render func(user, answer string) (prompt, reply []int32, err error), end int32, err error) {
	t, err := dialogue.LoadTemplate(name, dir, tok)
	if err != nil {
		return nil, 0, err
	}
	return func(user, answer string) ([]int32, []int32, error) {
		e, err := t.Encode([]dialogue.Message{{Role: dialogue.User, Content: user}, {Role: dialogue.Assistant, Content: answer}})
		if err != nil {
			return nil, nil, err
		}
		span := e.Answers[0]
		return e.IDs[:span.Start], e.IDs[span.Start:span.End], nil
	}, t.End(), nil
}

// RunConfig reads the configuration that a run's output folder was trained with. found is false where path is no such folder.
func RunConfig(path string) (c *config.Config, found bool, err error) {
	file := filepath.Join(path, trainer.ConfigFile)
	if _, err := os.Stat(file); err != nil {
		return nil, false, nil
	}
	cfg := config.Default()
	if err := config.Load(&cfg, config.Options{File: file, Env: []string{}}); err != nil {
		// No *config.Error: nobody has written that file for this command.
		return nil, true, fmt.Errorf("read the configuration of the run: %v", err)
	}
	return &cfg, true, nil
}

// Curves are a run's training metrics over its steps, none where path is no run's output folder.
func Curves(path string) ([]eval.Curve, error) {
	file := filepath.Join(path, trainer.MetricsFile)
	if _, err := os.Stat(file); err != nil {
		return nil, nil
	}
	m, err := trainer.ReadMetrics(file)
	if err != nil {
		return nil, err
	}
	curves := map[string]*eval.Curve{}
	var order []*eval.Curve
	add := func(name string, step int64, v float64) {
		c := curves[name]
		if c == nil {
			c = &eval.Curve{Name: name}
			curves[name] = c
			order = append(order, c)
		}
		c.X, c.Y = append(c.X, float64(step)), append(c.Y, v)
	}
	for _, r := range m.Steps {
		add("loss", r.Step, r.Loss)
		add("learning_rate", r.Step, r.LearningRate)
		add("grad_norm", r.Step, r.GradNorm)
		add("tokens_per_s", r.Step, r.TokensPerSecond)
	}
	for _, r := range m.Validations {
		add("val_loss", r.Step, r.Loss)
	}
	var out []eval.Curve
	for _, c := range order {
		out = append(out, *c)
	}
	return out, nil
}
