// Package masking replaces a small share of a Transformer's input tokens by
// [MASK], which is all that Mask-Enhanced Autoregressive Prediction (MEAP,
// arXiv 2502.07490) adds to next-token prediction: labels, loss and inference
// stay what they were.
//
// A Policy is a pure function of (tokens, seed, completed steps, row). It
// holds no state that moves, so the masks of a run do not depend on the number
// of workers, on how a step is cut into micro-batches, or on whether the run
// was interrupted.
package masking

import (
	"fmt"
	"math"
	"strings"
)

// The masking schemes.
const (
	// SchemePerRow draws the positions anew for every row of every step.
	SchemePerRow = "per_row"
	// SchemeReference draws what the reference implementation draws: one set
	// of positions for all rows of a step, out of 51 sets in a whole run.
	SchemeReference = "reference"
	// SchemeNone masks nothing: plain next-token prediction.
	SchemeNone = "none"
)

// schemes lists the schemes in the order in which errors name them.
var schemes = []string{SchemePerRow, SchemeReference, SchemeNone}

// MaxRatio is the largest share of the input tokens that may be masked.
const MaxRatio = 0.5

// Config is the section "masking" of a configuration.
type Config struct {
	// Scheme is one of per_row, reference, none.
	Scheme string `mapstructure:"scheme" help:"how masked positions are drawn: per_row, reference or none"`
	// Ratio is the share of a row's input tokens that is masked, 0 to 0.5.
	Ratio float64 `mapstructure:"ratio" help:"share of the input tokens that becomes [MASK], 0 to 0.5"`
	// KeepSpecial spares the separators (BOS, EOS). The reference masks them
	// like every other token.
	KeepSpecial bool `mapstructure:"keep_special" help:"never mask <s> and </s>"`
	// Warmup is the number of optimiser steps over which the ratio rises
	// linearly from 0 to Ratio; 0 means the full ratio from the first step.
	Warmup int64 `mapstructure:"warmup" help:"steps over which the ratio rises from 0 to masking.ratio (0: none)"`
}

// DefaultConfig returns the paper's pre-training setting, with positions drawn
// per row.
func DefaultConfig() Config {
	return Config{Scheme: SchemePerRow, Ratio: 0.15}
}

// Validate returns one error per value out of range; each begins with the
// value's full key.
func (c Config) Validate() []error {
	var errs []error
	known := false
	for _, s := range schemes {
		known = known || c.Scheme == s
	}
	if !known {
		errs = append(errs, fmt.Errorf("masking.scheme = %q: must be one of %s", c.Scheme, strings.Join(schemes, ", ")))
	}
	if math.IsNaN(c.Ratio) || c.Ratio < 0 || c.Ratio > MaxRatio {
		errs = append(errs, fmt.Errorf("masking.ratio = %v: must be between 0 and %v (the paper pre-trains with 0.15)", c.Ratio, MaxRatio))
	}
	if c.KeepSpecial && c.Scheme == SchemeReference {
		errs = append(errs, fmt.Errorf("masking.keep_special = true: the scheme reference masks separators like every other token; set it to false or masking.scheme to %s", SchemePerRow))
	}
	if c.Warmup < 0 {
		errs = append(errs, fmt.Errorf("masking.warmup = %d: must be 0 or a number of steps", c.Warmup))
	}
	return errs
}
