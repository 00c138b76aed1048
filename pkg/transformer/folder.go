package transformer

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nlpodyssey/safetensors"
)

// SaveOption changes how Save writes a model folder.
type SaveOption func(*saveOptions)

type saveOptions struct {
	dtype  safetensors.DType
	tokens SpecialTokens
}

// InBF16 stores the weights rounded to bf16, in half the space. The default is fp32.
func InBF16() SaveOption { return func(o *saveOptions) { o.dtype = safetensors.BF16 } }

// WithTokens states the ids that other tools' generation begins and ends with. Without it the folder states none.
func WithTokens(s SpecialTokens) SaveOption { return func(o *saveOptions) { o.tokens = s } }

// Save writes a model folder that Hugging Face tools read: model.safetensors, generation_config.json and config.json, each whole
// and durably, config.json last. The folder is made if it isn't there; other files in it stay.
func Save(dir string, w *Weights, options ...SaveOption) error {
	o := saveOptions{dtype: safetensors.F32, tokens: SpecialTokens{BOS: -1}}
	for _, set := range options {
		set(&o)
	}
	if err := w.check(); err != nil {
		return fmt.Errorf("save the model %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save the model: %w", err)
	}
	// transformers refuses a file that doesn't state its format.
	if err := writeTensors(filepath.Join(dir, weightsFile), w.Tensors, map[string]string{"format": "pt"}, o.dtype); err != nil {
		return err
	}
	generation := o.tokens.hf()
	if err := writeJSON(filepath.Join(dir, generationFile), generation); err != nil {
		return err
	}
	h := w.Config.hf()
	h.BOS, h.EOS = generation.BOS, generation.EOS
	h.TorchDtype = map[safetensors.DType]string{safetensors.F32: "float32", safetensors.BF16: "bfloat16"}[o.dtype]
	return writeJSON(filepath.Join(dir, configFile), h)
}

// Load reads a model folder, its weights in one file or in shards with an index, stored as F32, BF16 or F16. Every tensor must be
// there, with its shape, and none that the model doesn't have; the error names those that are not so.
func Load(dir string) (w *Weights, err error) {
	c, err := LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	paths, err := weightFiles(dir)
	if err != nil {
		return nil, err
	}
	found := map[string]located{}
	for _, path := range paths {
		f, err := openTensors(path)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, f.close()) }()
		for _, v := range f.views {
			if before, twice := found[v.name]; twice {
				return nil, fmt.Errorf("load the model: tensor %s is in both %s and %s", v.name, before.path, path)
			}
			found[v.name] = located{v, path}
		}
	}
	if err := compare(c, found); err != nil {
		return nil, fmt.Errorf("load the model %s: its weights are not those that %s describes: %w", dir, configFile, err)
	}
	w = &Weights{Config: c}
	for _, d := range c.Weights() {
		l := found[d.Name]
		t, err := l.read(l.path)
		if err != nil {
			return nil, err
		}
		w.Tensors = append(w.Tensors, t)
	}
	return w, nil
}

// located is a tensor and the file that it is in.
type located struct {
	fileView
	path string
}

// weightFiles returns the files that hold a folder's weights.
func weightFiles(dir string) ([]string, error) {
	one := filepath.Join(dir, weightsFile)
	if _, err := os.Stat(one); err == nil {
		return []string{one}, nil
	}
	index := filepath.Join(dir, indexFile)
	var h struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := readJSON(index, &h); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no weights: neither %s nor %s is there", dir, weightsFile, indexFile)
	} else if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for tensor, name := range h.WeightMap {
		if name != filepath.Base(name) || !filepath.IsLocal(name) {
			return nil, fmt.Errorf("read %s: weight_map puts %s into %q, which is not a file of that folder", index, tensor, name)
		}
		names[filepath.Join(dir, name)] = true
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("read %s: weight_map is missing or empty", index)
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// mismatches is how many tensors an error names before it says how many more there are.
const mismatches = 8

// compare checks the tensors that were found against those that the model has.
func compare(c Config, found map[string]located) error {
	var problems []string
	want := map[string]bool{}
	for _, d := range c.Weights() {
		want[d.Name] = true
		l, ok := found[d.Name]
		switch {
		case !ok:
			problems = append(problems, fmt.Sprintf("%s is missing", d.Name))
		case !slices.Equal(l.shape, d.Shape):
			problems = append(problems, fmt.Sprintf("%s has shape %v, want %v (%s)", d.Name, l.shape, d.Shape, filepath.Base(l.path)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !want[name] && !redundant(c, name) {
			problems = append(problems, fmt.Sprintf("%s is unexpected (%s)", name, filepath.Base(found[name].path)))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	if more := len(problems) - mismatches; more > 0 {
		problems = append(problems[:mismatches], fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(problems, "; "))
}

// redundant tells tensors that other tools store and ignore when they read: the head of a model whose head is tied, and RoPE's
// frequencies.
func redundant(c Config, name string) bool {
	return c.TieEmbeddings && name == "lm_head.weight" || strings.HasSuffix(name, ".rotary_emb.inv_freq")
}
