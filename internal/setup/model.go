package setup

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"meap/internal/config"
	"meap/pkg/eval"
	"meap/pkg/graph"
	"meap/pkg/tokenizer"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// Model is a trained model on a device, with its tokenizer.
type Trained struct {
	Dir       string // the model folder
	Params    *transformer.Parameters
	Tokenizer tokenizer.Tokenizer
	Device    graph.Device
	close     func()
}

// OpenModel loads a model folder, or the newest checkpoint of a run's output folder, on the device that t asks for. Close it
// when done.
func OpenModel(path string, t trainer.Config) (*Trained, error) {
	dir, err := trainer.ModelDir(path)
	if err != nil {
		return nil, err
	}
	weights, err := transformer.Load(dir)
	if err != nil {
		return nil, err
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return nil, err
	}
	dev, closeDevice, err := Device(t)
	if err != nil {
		return nil, err
	}
	params, err := transformer.NewParameters(dev, weights)
	if err != nil {
		closeDevice()
		return nil, fmt.Errorf("put the weights of %s on %s: %w", dir, dev.Name(), err)
	}
	return &Trained{Dir: dir, Params: params, Tokenizer: tok, Device: dev, close: closeDevice}, nil
}

// Close frees the weights and the device.
func (m *Trained) Close() {
	m.Params.Close()
	m.close()
}

// Describe says for a report what was evaluated.
func (m *Trained) Describe() eval.Model {
	c := m.Params.Config()
	d := eval.Model{Dir: m.Dir, Parameters: c.Parameters(), MaxSeq: c.MaxSeq}
	if raw, err := os.ReadFile(filepath.Join(m.Dir, "config.json")); err == nil && json.Valid(raw) {
		d.Config = raw
	}
	return d
}

// Scorer makes the model answer to package eval.
func (m *Trained) Scorer() eval.Scorer { return scorer{transformer.NewScorer(m.Params)} }

type scorer struct{ *transformer.Scorer }

// LogProbs implements eval.Scorer.
func (s scorer) LogProbs(ctx context.Context, seqs []eval.Sequence) ([][]float32, error) {
	ids, from := make([][]int32, len(seqs)), make([]int, len(seqs))
	for i, q := range seqs {
		ids[i], from[i] = q.IDs, q.From
	}
	return s.Scorer.LogProbs(ctx, ids, from)
}

// RunConfig reads the configuration that a run's output folder was trained with. found is false where path is no such folder.
func RunConfig(path string) (c *config.Config, found bool, err error) {
	file := filepath.Join(path, trainer.ConfigFile)
	if _, err := os.Stat(file); err != nil {
		return nil, false, nil
	}
	cfg := config.Default()
	if err := config.Load(&cfg, config.Options{File: file, Env: []string{}}); err != nil {
		return nil, true, fmt.Errorf("read the configuration of the run: %w", err)
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
