package dialogue

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meap/pkg/masking"
)

// Values of Config.Copies.
const (
	// CopiesRows treats the two copies of an example as two rows.
	CopiesRows = "rows"
	// CopiesConcat writes one after the other into the same row.
	CopiesConcat = "concat"
)

// Config is the section sft of the configuration. Its files are those of data.sources.
type Config struct {
	Template      string  `mapstructure:"template" help:"how a dialogue is written: plain, alpaca, llama3, chatml, model (the one in the model's tokenizer_config.json), a .jinja file, or auto (model where there is one, else alpaca)"`
	Copies        string  `mapstructure:"copies" help:"how the unmasked and the masked copy of a dialogue are trained: rows, or concat (one after the other in one row)"`
	ConcatVisible bool    `mapstructure:"concat_visible" help:"with concat, the masked copy sees the unmasked one, and positions run on"`
	Ratio         float64 `mapstructure:"ratio" help:"share of the tokens of a long answer that becomes [MASK], 0 (plain fine-tuning, no second copy) to 0.5"`
	MinTarget     int     `mapstructure:"min_target" help:"answers of more tokens than this are masked"`
	Strict        bool    `mapstructure:"strict" help:"a dialogue that cannot be used is an error instead of being left out and counted"`
}

// DefaultConfig returns the reference's fine-tuning.
func DefaultConfig() Config {
	return Config{Template: TemplateAuto, Copies: CopiesRows, Ratio: 0.1, MinTarget: 50}
}

// Validate returns one error for each value out of its range, each beginning with the full key. Whether a template can be used is
// checked where it is loaded.
func (c Config) Validate() []error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if named := append([]string{TemplateAuto, TemplateModel}, builtinNames...); !slices.Contains(named, c.Template) && !isFile(c.Template) {
		bad("sft.template = %q: must be one of %s, or a file whose name ends in %s", c.Template, strings.Join(named, ", "), templateEnding)
	}
	if c.Copies != CopiesRows && c.Copies != CopiesConcat {
		bad("sft.copies = %q: must be one of %s, %s", c.Copies, CopiesRows, CopiesConcat)
	}
	if c.ConcatVisible && c.Copies == CopiesRows {
		bad("sft.concat_visible = true: there is nothing to see where sft.copies is %s; set that to %s", CopiesRows, CopiesConcat)
	}
	if math.IsNaN(c.Ratio) || c.Ratio < 0 || c.Ratio > masking.MaxRatio {
		bad("sft.ratio = %v: must be between 0 and %v (the paper fine-tunes with 0.1)", c.Ratio, masking.MaxRatio)
	}
	if c.MinTarget < 0 || c.MinTarget > math.MaxInt32 {
		bad("sft.min_target = %d: must be 0 or a number of tokens", c.MinTarget)
	}
	return problems
}
