package trainer

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// settings is a small configuration by full key, with values of the types that fields have.
func settings() map[string]any {
	return map[string]any{
		"model.preset": "meap-0.1b", "model.tie_embeddings": nil, "model.rope_theta": 0.0,
		"tokenizer.path": "", "data.sources": []string{"a", "b<c>"}, "data.validation": []string(nil), "data.cache_dir": "cache",
		"masking.ratio": 0.15, "trainer.seed": uint64(math.MaxUint64), "trainer.seq": 128, "trainer.micro_batch": 4,
		"trainer.accumulate": 2, "trainer.learning_rate": 4e-4, "trainer.epsilon": 1e-8, "trainer.steps": int64(20), "trainer.stop_after": int64(0),
		"trainer.threads": 2, "trainer.device": "auto", "trainer.dtype": "fp32",
	}
}

func stored(t *testing.T, s State) State {
	t.Helper()
	dir := t.TempDir()
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	back, err := ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestStateRoundTrip(t *testing.T) {
	s := State{Step: 10, Seed: math.MaxUint64 - 1, Epoch: 3, Position: 1 << 60, Tokens: 5, Tokenizer: "abc", Data: "def", Config: settings()}
	back := stored(t, s)
	notes, err := back.Compatible(State{Tokenizer: "abc", Data: "def", Config: settings()})
	if err != nil || len(notes) != 0 {
		t.Errorf("nothing was changed: %v %v", notes, err)
	}
	back.Config, s.Config = nil, nil
	s.Format, s.Version = stateFormat, stateVersion
	if !reflect.DeepEqual(back, s) {
		t.Errorf("read %+v, written %+v", back, s)
	}
}

func TestReadStateRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, StateFile)
	if err := (State{Step: 1, Config: settings()}).Write(dir); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	cases := map[string][2]string{
		"empty":         {"", "truncated"},
		"truncated":     {text[:len(text)/2], "truncated"},
		"foreign":       {`{"epoch": 3}`, "not a file of meap"},
		"not JSON":      {"step: 1\n", "not a file of meap"},
		"later version": {strings.Replace(text, `"version": 1`, `"version": 2, "shards": 3`, 1), "another version of meap"},
		"unknown key":   {strings.Replace(text, `"step"`, `"stepp"`, 1), "stepp"},
		"more text":     {text + "{}", "truncated, or not a file of meap"},
		"negative":      {strings.Replace(text, `"step": 1`, `"step": -1`, 1), "negative"},
		"no config":     {`{"format":"meap-trainer-state","version":1,"step":1}`, "config is missing"},
		"wrong type":    {strings.Replace(text, `"step": 1`, `"step": "1"`, 1), "damaged"},
	}
	for name, c := range cases {
		if err := os.WriteFile(path, []byte(c[0]), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ReadState(dir)
		if err == nil || !strings.Contains(err.Error(), c[1]) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--resume") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadState(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestCompatible(t *testing.T) {
	const refused, noted, free = "refused", "noted", "free"
	cases := []struct {
		change map[string]any
		want   string
		says   string // in the error or a note
	}{
		{map[string]any{}, free, ""},
		{map[string]any{"data.sources": []string{"a"}}, refused, `data.sources = ["a"], was ["a","b<c>"]`},
		{map[string]any{"data.validation": []string{}}, free, ""}, // no list and an empty one are the same
		{map[string]any{"data.cache_dir": "elsewhere"}, free, ""},
		{map[string]any{"model.preset": "meap-1b"}, refused, `model.preset = "meap-1b", was "meap-0.1b"`},
		{map[string]any{"model.tie_embeddings": true}, refused, "model.tie_embeddings = true, was null"},
		{map[string]any{"model.rope_theta": 1e6}, refused, "model.rope_theta = 1000000, was 0"},
		{map[string]any{"tokenizer.path": "t"}, refused, "tokenizer.path"},
		{map[string]any{"masking.ratio": 0.1}, refused, "masking.ratio = 0.1, was 0.15"},
		{map[string]any{"trainer.seed": uint64(math.MaxUint64 - 1)}, refused, "trainer.seed = 18446744073709551614, was 18446744073709551615"},
		{map[string]any{"trainer.seq": 64}, refused, "trainer.seq = 64, was 128"},
		{map[string]any{"trainer.micro_batch": 8}, refused, "trainer.micro_batch = 8, was 4 (micro_batch x accumulate is 16 rows per step, was 8)"},
		{map[string]any{"trainer.micro_batch": 8, "trainer.accumulate": 1}, noted, "last digits"},
		{map[string]any{"trainer.steps": int64(40)}, noted, "trainer.steps = 40, was 20: from here on"},
		{map[string]any{"trainer.learning_rate": 1e-4}, noted, "trainer.learning_rate = 0.0001, was 0.0004"},
		{map[string]any{"trainer.dtype": "bf16"}, noted, "trainer.dtype"},
		{map[string]any{"trainer.device": "cpu"}, noted, "trainer.device"},
		{map[string]any{"trainer.threads": 1, "trainer.stop_after": int64(10)}, free, ""},
		{map[string]any{"model.new_key_of_a_later_version": 1}, free, ""},
	}
	for _, c := range cases {
		now := settings()
		for k, v := range c.change {
			now[k] = v
		}
		old := stored(t, State{Config: settings()})
		notes, err := old.Compatible(State{Config: now})
		var resume *ResumeError
		got, text := free, strings.Join(notes, "\n")
		switch {
		case errors.As(err, &resume):
			got, text = refused, err.Error()
			if len(resume.Problems) != 1 {
				t.Errorf("%v: %d problems", c.change, len(resume.Problems))
			}
		case err != nil:
			t.Errorf("%v: %v", c.change, err)
		case len(notes) > 0:
			got = noted
		}
		if got != c.want || !strings.Contains(text, c.says) {
			t.Errorf("%v: %s, want %s with %q\n%s", c.change, got, c.want, c.says, text)
		}
	}
}

func TestCompatibleNamesEveryChangedKey(t *testing.T) {
	now := settings()
	now["model.preset"], now["trainer.seed"], now["trainer.steps"] = "x", uint64(1), int64(99)
	_, err := Compatible(settings(), now)
	var resume *ResumeError
	if !errors.As(err, &resume) || len(resume.Problems) != 2 || !strings.HasPrefix(resume.Problems[0], "model.preset") ||
		!strings.HasPrefix(resume.Problems[1], "trainer.seed") || !strings.Contains(err.Error(), "--output") {
		t.Errorf("%v", err)
	}
}

func TestCompatibleFingerprints(t *testing.T) {
	old := State{Tokenizer: "t1", Data: "d1", Config: settings()}
	for says, now := range map[string]State{
		"tokenizer.path": {Tokenizer: "t2", Data: "d1", Config: settings()},
		"data.sources":   {Tokenizer: "t1", Data: "d2", Config: settings()},
	} {
		if _, err := old.Compatible(now); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"format":"meap-trainer-state","version":1,"step":1,"config":{"a":1}}`))
	f.Add([]byte(`{"format":"meap-trainer-state","version":1,"config":{"trainer.micro_batch":1e99}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := parseState(data)
		if err != nil {
			return
		}
		if _, err := state.Compatible(state); err != nil {
			t.Errorf("not compatible with itself: %v", err)
		}
		_, _ = Compatible(state.Config, settings())
	})
}
