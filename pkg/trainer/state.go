package trainer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// StateFile is the name of the training state in a checkpoint's folder.
const StateFile = "trainer.json"

const (
	stateFormat  = "meap-trainer-state"
	stateVersion = 1
)

// otherCheckpoint is what people can do about a damaged one.
const otherCheckpoint = "name another checkpoint with --resume DIR, or start anew in another --output"

// State is trainer.json: what a run needs beside weights and moments to go on exactly where it was. Order of rows and masks come from
// counter-based generators, so the seed and the number of steps done are their whole state.
type State struct {
	Format  string `json:"format"`  // set by Write
	Version int    `json:"version"` // set by Write

	Step     int64  `json:"step"`     // optimiser steps done
	Seed     uint64 `json:"seed"`     // of order and masks
	Epoch    int64  `json:"epoch"`    // passes over the training rows that are complete
	Position int64  `json:"position"` // rows (of a Positioner: examples) taken since the start of the run, over all epochs
	Tokens   int64  `json:"tokens"`   // input tokens since the start of the run

	RowsPerEpoch int64 `json:"rows_per_epoch"` // training rows in one pass

	Tokenizer string `json:"tokenizer"` // fingerprint of what defines the ids
	Data      string `json:"data"`      // fingerprint of the packed training data

	// Config is the resolved configuration by full key ("trainer.seed"), as it was when the checkpoint was written.
	Config map[string]any `json:"config"`
}

// Write writes the state into a checkpoint's folder that is being filled.
func (s State) Write(dir string) error {
	s.Format, s.Version = stateFormat, stateVersion
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", StateFile, err)
	}
	if err := os.WriteFile(filepath.Join(dir, StateFile), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", StateFile, err)
	}
	return nil
}

// ReadState reads the state in a checkpoint's folder. Files that are torn, of another program or of a later version are refused with
// the file's name.
func ReadState(dir string) (State, error) {
	path := filepath.Join(dir, StateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return State{}, fmt.Errorf("read the training state: %w; %s", err, otherCheckpoint)
	}
	state, err := parseState(data)
	if err != nil {
		return State{}, fmt.Errorf("read the training state %s: %w; %s", path, err, otherCheckpoint)
	}
	return state, nil
}

func parseState(data []byte) (State, error) {
	// The header is looked at first and leniently, so that a later version's new keys are reported as a later version.
	var header struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(data, &header); err != nil {
		return State{}, fmt.Errorf("truncated, or not a file of meap: %w", err)
	}
	if header.Format != stateFormat {
		return State{}, fmt.Errorf("not a file of meap: format is %q, expected %q", header.Format, stateFormat)
	}
	if header.Version != stateVersion {
		return State{}, fmt.Errorf("written by another version of meap: version is %d, this one reads %d", header.Version, stateVersion)
	}
	var state State
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	decoder.UseNumber() // seeds above 2^53 keep their digits
	if err := decoder.Decode(&state); err != nil {
		return State{}, fmt.Errorf("damaged: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return State{}, errors.New("damaged: more text after the state")
	}
	if state.Step < 0 || state.Epoch < 0 || state.Position < 0 || state.Tokens < 0 {
		return State{}, errors.New("damaged: a negative count")
	}
	if state.Config == nil {
		return State{}, errors.New("damaged: config is missing")
	}
	return state, nil
}

// Compatible says whether a run with the state `now` (of the same step; only configuration and fingerprints are compared) may go on
// from the checkpoint's state s. The error names the keys that keep it from that; the notes are for people and say what is allowed
// but makes the run differ from one that was never interrupted.
func (s State) Compatible(now State) (notes []string, err error) {
	notes, err = Compatible(s.Config, now.Config)
	if err != nil {
		return nil, err
	}
	if s.Tokenizer != now.Tokenizer {
		return nil, &ResumeError{Problems: []string{fmt.Sprintf(
			"tokenizer.path: the tokenizer is another one than before (fingerprint %s, was %s)", short(now.Tokenizer), short(s.Tokenizer))}}
	}
	if s.Data != now.Data {
		return nil, &ResumeError{Problems: []string{fmt.Sprintf(
			"data.sources: the files hold other text than before (fingerprint %s, was %s)", short(now.Data), short(s.Data))}}
	}
	return notes, nil
}

// ResumeError names the keys of the configuration that keep a run from being resumed.
type ResumeError struct {
	Problems []string // each begins with the full key
}

func (e *ResumeError) Error() string {
	return "cannot resume with a changed configuration:\n  " + strings.Join(e.Problems, "\n  ") +
		"\nset the old values again, or start a new run in another --output"
}

// On resume, all of model.*, tokenizer.*, data.* and masking.* must be as before, and of trainer.* what decides which rows a step
// takes (its whole batch is compared as a product, see Compatible). These keys are the exceptions.
var (
	// freeKeys change nothing that a run computes.
	freeKeys = []string{
		"data.cache_dir",
		"trainer.stop_after", "trainer.checkpoint_every", "trainer.keep_checkpoints", "trainer.validate_every", "trainer.validate_rows",
		"trainer.recompute", "trainer.threads",
	}
	// courseKeys change the run's course from here on, which is why people change them; it is noted.
	courseKeys = []string{
		"trainer.steps", "trainer.learning_rate", "trainer.min_learning_rate", "trainer.warmup", "trainer.weight_decay",
		"trainer.beta1", "trainer.beta2", "trainer.epsilon", "trainer.clip", "trainer.dtype",
	}
	// roundingKeys change the order or width of sums: losses differ in the last digits.
	roundingKeys = []string{"trainer.device", "trainer.cpu_isa"}
)

// Compatible compares the configuration of a checkpoint with that of the run that wants to continue it, both by full key. It refuses,
// naming each key with both values, a change of model, data, tokenizer, masking, seed, sequence length or rows per step; a key that
// one side does not know (another version's) is passed over. The learning-rate schedule, the optimiser's settings and the device may
// change: that is noted. Threads, validation, checkpoints and the end of the run are free.
func Compatible(old, new map[string]any) (notes []string, err error) {
	var refused []string
	for _, key := range slices.Sorted(maps.Keys(new)) {
		before, known := old[key]
		if !known || same(before, new[key]) || slices.Contains(freeKeys, key) {
			continue
		}
		change := fmt.Sprintf("%s = %s, was %s", key, show(new[key]), show(before))
		switch {
		case slices.Contains(courseKeys, key):
			notes = append(notes, change+": from here on the run differs from an uninterrupted one")
		case slices.Contains(roundingKeys, key):
			notes = append(notes, change+": losses may differ in their last digits from an uninterrupted run's")
		case key == "trainer.micro_batch" || key == "trainer.accumulate":
			was, is := rowsPerStep(old), rowsPerStep(new)
			if was == is {
				notes = append(notes, change+": losses may differ in their last digits from an uninterrupted run's")
				break
			}
			refused = append(refused, fmt.Sprintf("%s (micro_batch x accumulate is %s rows per step, was %s)", change, is, was))
		default:
			refused = append(refused, change)
		}
	}
	if len(refused) > 0 {
		return nil, &ResumeError{Problems: refused}
	}
	return notes, nil
}

// rowsPerStep is trainer.micro_batch x trainer.accumulate in words; values may be Go integers or numbers read from JSON.
func rowsPerStep(config map[string]any) string {
	var a, b int64
	if json.Unmarshal(canonical(config["trainer.micro_batch"]), &a) != nil || json.Unmarshal(canonical(config["trainer.accumulate"]), &b) != nil {
		return "an unknown number of"
	}
	return fmt.Sprint(a * b)
}

// same compares two values of a key, one of which may have been through JSON. No list and an empty list are the same.
func same(a, b any) bool {
	return bytes.Equal(canonical(a), canonical(b))
}

func canonical(v any) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // show prints paths as they are
	if err := encoder.Encode(v); err != nil {
		return fmt.Append(nil, v) // NaN: configuration that never passed validation
	}
	if b := bytes.TrimSpace(text.Bytes()); string(b) != "[]" {
		return b
	}
	return []byte("null")
}

func show(v any) string { return string(canonical(v)) }

// short abbreviates a fingerprint for a message.
func short(fingerprint string) string {
	if len(fingerprint) > 12 {
		return fingerprint[:12] + "..."
	}
	if fingerprint == "" {
		return "none"
	}
	return fingerprint
}
