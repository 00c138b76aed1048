package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"meap/pkg/dataset/facts"
	"meap/pkg/tokenizer"
)

// Options say how to prepare data; but for Facts they change nothing of the result.
type Options struct {
	// Facts are planted into every text; the zero value plants none.
	Facts facts.Config
	// Workers is the number of files tokenised at once; 0 means one per
	// processor.
	Workers int
	// Progress, where it is set, is called as files are read and after
	// every file, from one goroutine.
	Progress func(Progress)
	// Stdin is what the source "-" stands for; nil means os.Stdin.
	Stdin io.Reader
	// Verify compares data that was prepared before with its checksums.
	Verify bool
}

// Progress says how far the preparation is.
type Progress struct {
	Files, TotalFiles int   // finished, in all
	Reused            int   // finished by an interrupted preparation before
	Bytes, TotalBytes int64 // of the files
	Tokens            int64
}

// Set is a prepared folder.
type Set struct {
	Dir   string
	Index *Index
	// Built says that the data was prepared now and not before.
	Built bool
	// Reused is the number of files that an interrupted preparation had
	// finished before this one took it up.
	Reused int
}

// Open opens a split as rows of seq+1 tokens, in an order that seed determines.
func (s *Set) Open(split string, seq int, seed uint64) (*Loader, error) {
	return Open(s.Dir, split, seq, seed)
}

// tmpPrefix marks folders that are being filled. They are renamed when they
// are whole, and what a killed process left is removed by the next that
// prepares data.
const tmpPrefix = ".tmp-"

// Prepare makes sure that the sources of c are tokenised and packed below
// data.cache_dir, and returns that folder. Data that was prepared before is
// used again as long as its files' names, sizes and times, the tokenizer and
// the configuration are the same; else it is prepared anew, in another folder.
// A folder appears whole or not at all. What an interrupted preparation has
// finished, file by file, is used by the next one that reads the same files
// with the same tokenizer, whatever other files are read.
func Prepare(ctx context.Context, c Config, tok tokenizer.Tokenizer, o Options) (*Set, error) {
	problems := c.Validate()
	if o.Facts.PerDocument != 0 {
		problems = append(problems, o.Facts.Validate()...)
	}
	if tok.EOS() < 0 {
		problems = append(problems, errors.New("tokenizer.path: no token of this tokenizer ends a text, which has to stand between two texts: "+
			"name one as eos_token in its tokenizer_config.json, or let `meap tokenizer add-mask --eos '<|endoftext|>'` write a tokenizer that has one"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, &ConfigError{err}
	}
	stdin, remove, err := spool(ctx, c, o.Stdin)
	if err != nil {
		return nil, err
	}
	defer remove()
	list, err := listSplits(c, stdin)
	if err != nil {
		return nil, err
	}
	source, err := sourceFingerprint(list, c, newRecipe(c, tok, planter(o.Facts, Train)))
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.CacheDir, source[:16])
	if set, err := openPrepared(ctx, dir, source, o); set != nil || err != nil {
		return set, err
	}

	if err := os.MkdirAll(c.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("data.cache_dir: %w; name a folder that can be written", err)
	}
	lock := flock.New(filepath.Join(c.CacheDir, ".lock"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return nil, fmt.Errorf("waiting for another process that prepares data in %s: %w", c.CacheDir, err)
	}
	defer lock.Unlock()
	// Another process may have prepared the same data meanwhile.
	if set, err := openPrepared(ctx, dir, source, o); set != nil || err != nil {
		return set, err
	}
	if err := removeLeftovers(c.CacheDir); err != nil {
		return nil, err
	}
	return build(ctx, dir, list, c, tok, source, o)
}

// openPrepared returns the set in dir, or nil where there is none. Data that
// is there and damaged is an error, not a reason to prepare it again: somebody
// should know that a disk loses bits.
func openPrepared(ctx context.Context, dir, source string, o Options) (*Set, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("data.cache_dir: %w; name a folder that can be written", err)
	}
	x, err := ReadIndex(dir)
	if err != nil {
		return nil, err
	}
	if x.Source != source {
		return nil, fmt.Errorf("the index of %s belongs to other sources; delete that folder and prepare the data again", dir)
	}
	for _, split := range []string{Train, Validation} {
		if split == Validation && x.Validation == nil {
			continue
		}
		s, err := openStream(dir, split, x)
		if err != nil {
			return nil, err
		}
		if o.Verify {
			err = s.Verify(ctx)
		}
		if err := errors.Join(err, s.Close()); err != nil {
			return nil, err
		}
	}
	return &Set{Dir: dir, Index: x}, nil
}

// removeLeftovers deletes what killed processes left; the caller holds the
// lock, so nobody is filling any of it.
func removeLeftovers(cache string) error {
	pieces := filepath.Join(cache, piecesDir)
	if err := os.MkdirAll(pieces, 0o755); err != nil {
		return fmt.Errorf("data.cache_dir: %w", err)
	}
	if err := errors.Join(removeOldPieces(pieces), removeOldSpools(cache)); err != nil {
		return fmt.Errorf("removing what an interrupted preparation left: %w", err)
	}
	entries, err := os.ReadDir(cache)
	if err != nil {
		return fmt.Errorf("data.cache_dir: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), tmpPrefix) {
			if err := os.RemoveAll(filepath.Join(cache, e.Name())); err != nil {
				return fmt.Errorf("removing what an interrupted preparation left: %w", err)
			}
		}
	}
	return nil
}

// recipeVersion changes when the same files come to be read in another way.
const recipeVersion = 2

// recipe is what, beside the files, decides the tokens of a file.
type recipe struct {
	Version   int
	Tokenizer string
	Field     string
	MaxBytes  int64
	Facts     *facts.Planter `json:",omitempty"`
}

func newRecipe(c Config, tok tokenizer.Tokenizer, f *facts.Planter) recipe {
	return recipe{recipeVersion, tok.Fingerprint(), c.TextField, c.MaxFileBytes, f}
}

// planter returns what plants facts into a split's text, nil where nothing does. Facts about the names in the validation text are in no
// other.
func planter(c facts.Config, split string) *facts.Planter {
	if c.PerDocument == 0 {
		return nil
	}
	return &facts.Planter{Config: c, HeldOut: split == Validation}
}

// sourceFingerprint hashes what the shards are made from.
func sourceFingerprint(list sourceList, c Config, r recipe) (string, error) {
	data, err := json.Marshal(struct {
		recipe
		Index    int
		Chunk    int
		Fraction float64
		List     sourceList
	}{r, indexVersion, chunkTokens, c.ValidationFraction, list})
	if err != nil {
		return "", fmt.Errorf("fingerprinting the sources: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// splitFiles is a split on its way into the index.
type splitFiles struct {
	name  string
	files []sourceFile
	info  *SplitInfo
}

// build packs both splits into a temporary folder and renames it to dir.
func build(ctx context.Context, dir string, list sourceList, c Config, tok tokenizer.Tokenizer, source string, o Options) (_ *Set, err error) {
	cache := filepath.Dir(dir)
	tmp, err := os.MkdirTemp(cache, tmpPrefix)
	if err != nil {
		return nil, fmt.Errorf("preparing data: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, fmt.Errorf("preparing data: %w", err)
	}
	x := &Index{
		Version: indexVersion, Tokenizer: tok.Fingerprint(), Vocab: tok.VocabSize(),
		BOS: DocumentBOS(tok), EOS: tok.EOS(), Source: source,
	}
	p := packer{tok: tok, options: o, index: x, reading: reading{
		field: c.TextField, maxBytes: c.MaxFileBytes, fraction: c.ValidationFraction,
		ids: ids{vocab: x.Vocab, bos: tok.BOS(), eos: tok.EOS(), fingerprint: x.Tokenizer},
	}}
	x.Train.Skipped = list.TrainSkipped
	splits := []splitFiles{{Train, list.Train, &x.Train}}
	if len(list.Validation) > 0 {
		x.Validation = &SplitInfo{Skipped: list.ValidationSkipped}
		splits = append(splits, splitFiles{Validation, list.Validation, x.Validation})
	}
	var pieces []*group
	for _, s := range splits {
		p.progress.TotalFiles += len(s.files)
		for _, f := range s.files {
			p.progress.TotalBytes += f.Size
		}
	}
	for _, s := range splits {
		p.reading.facts = planter(o.Facts, s.name)
		groups, err := groupFiles(filepath.Join(cache, piecesDir), s.files, c, newRecipe(c, tok, p.reading.facts))
		if err == nil {
			err = p.pack(ctx, tmp, s.name, groups, s.info)
		}
		if err != nil {
			return nil, fmt.Errorf("preparing data: %w", err)
		}
		pieces = append(pieces, groups...)
	}
	data, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("preparing data: encoding %s: %w", IndexFile, err)
	}
	if err := writeSynced(filepath.Join(tmp, IndexFile), append(data, '\n')); err != nil {
		return nil, fmt.Errorf("preparing data: %w", err)
	}
	if err := errors.Join(ctx.Err(), syncDir(tmp)); err != nil {
		return nil, fmt.Errorf("preparing data: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, fmt.Errorf("preparing data: %w", err)
	}
	if err := errors.Join(syncDir(cache), removePieces(filepath.Join(cache, piecesDir), pieces)); err != nil {
		return nil, fmt.Errorf("preparing data: %w", err)
	}
	return &Set{Dir: dir, Index: x, Built: true, Reused: p.progress.Reused}, nil
}

// DocumentBOS returns the id that begins a packed document, or -1. Where one
// token is both BOS and EOS (GPT-2's <|endoftext|>), once between two documents
// is enough.
func DocumentBOS(tok tokenizer.Tokenizer) int32 {
	if tok.BOS() == tok.EOS() {
		return -1
	}
	return tok.BOS()
}
