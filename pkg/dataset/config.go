// Package dataset turns text into batches: sources are listed and split into
// training and validation text (sources.go, holdout.go), read in the format
// that they have (document.go, jsonl.go, parquet.go, packed.go), tokenised in
// parallel and packed into shards with an index (prepare.go, pack.go, shard.go,
// index.go), of which an interrupted preparation keeps pieces (piece.go),
// memory-mapped (stream.go), cut into rows in a shuffled order (loader.go), and
// collated into masked batches (collator.go).
//
// Everything is a function of the configuration, the tokenizer and the seed:
// the number of workers changes no byte of a shard, and the state of a run's
// data is the number of rows that it has taken.
package dataset

import (
	"fmt"
	"math"
)

// The splits of a prepared cache.
const (
	Train      = "train"
	Validation = "validation"
)

// Config is the section "data" of a configuration.
type Config struct {
	// Sources are files, folders (all their files, at any depth) and patterns
	// with *, ?, [a-z] and ** (any number of folders). A leading ~ is the home
	// folder, $NAME an environment variable, and $GOROOT the Go distribution.
	// "-" is standard input.
	//
	// A file is one document, but for the records of .jsonl (.ndjson) and
	// .parquet, whose text is in TextField, and for the .bin of LITPKDS, whose
	// tokens are taken as they are. What ends in .gz or .zst is unpacked first.
	Sources []string `mapstructure:"sources" help:"files, folders and patterns (*, ?, **): text, .jsonl, .parquet, .gz and .zst of them, LITPKDS .bin; - is standard input; ~, $NAME and $GOROOT are expanded"`
	// Validation are sources that are held out of training. Where there are
	// none, ValidationFraction decides.
	Validation []string `mapstructure:"validation" help:"sources held out of training (none: data.validation_fraction decides)"`
	// ValidationFraction is the share of the sources' files that is held out,
	// chosen by a hash of their names; of a single file, its end, or every so
	// manieth of its records. 0 holds out nothing.
	ValidationFraction float64 `mapstructure:"validation_fraction" help:"share of the sources' files held out, 0 to 0.5; of a single file, its end, or every so manieth record"`
	// CacheDir is the folder under which prepared data is kept, in one folder
	// for every combination of sources and tokenizer.
	CacheDir string `mapstructure:"cache_dir" help:"folder under which prepared data is kept"`
	// DocumentMask keeps attention, positions and labels within documents.
	DocumentMask bool `mapstructure:"document_mask" help:"keep attention, positions and labels within documents"`
	// TextField names the field of a JSONL record, or the column of a Parquet
	// file, that holds the text; a.b is the field b of the object a.
	TextField string `mapstructure:"text_field" help:"field (JSONL) or column (Parquet) that holds a record's text; a.b is field b inside a"`
	// MaxFileBytes is the size above which a file of text, unpacked, is left
	// out: with a count where a folder or pattern found it, as an error where
	// it was named. Files of records are streamed and may have any size; there
	// it bounds a line or text.
	MaxFileBytes int64 `mapstructure:"max_file_bytes" help:"text files above this size, unpacked, are left out; of JSONL and Parquet it bounds a record"`
}

// DefaultConfig returns the defaults; Sources has none.
func DefaultConfig() Config {
	return Config{
		ValidationFraction: 0.02,
		CacheDir:           "data/cache",
		TextField:          "text",
		MaxFileBytes:       1 << 30,
	}
}

// Validate returns one error per value out of range; each begins with the
// value's full key. That there are sources is checked by Prepare, because not
// every command reads data.
func (c Config) Validate() []error {
	var errs []error
	if f := c.ValidationFraction; math.IsNaN(f) || f < 0 || f > 0.5 {
		errs = append(errs, fmt.Errorf("data.validation_fraction = %v: must be between 0 and 0.5", f))
	}
	if c.CacheDir == "" {
		errs = append(errs, fmt.Errorf(`data.cache_dir = "": must name a folder`))
	}
	if c.TextField == "" {
		errs = append(errs, fmt.Errorf(`data.text_field = "": must name a field`))
	}
	if c.MaxFileBytes < 1 {
		errs = append(errs, fmt.Errorf("data.max_file_bytes = %d: must be at least 1", c.MaxFileBytes))
	}
	errs = append(errs, emptySources("data.sources", c.Sources)...)
	errs = append(errs, emptySources("data.validation", c.Validation)...)
	return errs
}

func emptySources(key string, sources []string) []error {
	var errs []error
	for i, s := range sources {
		if s == "" {
			errs = append(errs, fmt.Errorf(`%s[%d] = "": must name a file, a folder or a pattern`, key, i))
		}
	}
	return errs
}
