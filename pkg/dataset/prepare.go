package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"meap/pkg/tokenizer"
)

// Options say how to prepare data; they change nothing of the result.
type Options struct {
	// Workers is the number of files tokenised at once; 0 means one per
	// processor.
	Workers int
	// Progress, where it is set, is called after every file, from one
	// goroutine.
	Progress func(Progress)
	// Verify compares data that was prepared before with its checksums.
	Verify bool
}

// Progress says how far the preparation is.
type Progress struct {
	Files, TotalFiles int
	Bytes, TotalBytes int64 // of the files
	Tokens            int64
}

// Set is a prepared folder.
type Set struct {
	Dir   string
	Index *Index
	// Built says that the data was prepared now and not before.
	Built bool
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
// A folder appears whole or not at all.
func Prepare(ctx context.Context, c Config, tok tokenizer.Tokenizer, o Options) (*Set, error) {
	if err := errors.Join(c.Validate()...); err != nil {
		return nil, err
	}
	list, err := listSplits(c)
	if err != nil {
		return nil, err
	}
	source, err := sourceFingerprint(list, c, tok)
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
	x, err := build(ctx, dir, list, c, tok, source, o)
	if err != nil {
		return nil, err
	}
	return &Set{Dir: dir, Index: x, Built: true}, nil
}

// openPrepared returns the set in dir, or nil where there is none. Data that
// is there and damaged is an error, not a reason to prepare it again: somebody
// should know that a disk loses bits.
func openPrepared(ctx context.Context, dir, source string, o Options) (*Set, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
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

// sourceFingerprint hashes what the shards are made from.
func sourceFingerprint(list sourceList, c Config, tok tokenizer.Tokenizer) (string, error) {
	data, err := json.Marshal(struct {
		Version   int
		Tokenizer string
		Chunk     int
		Fraction  float64
		Field     string
		List      sourceList
	}{indexVersion, tok.Fingerprint(), chunkTokens, c.ValidationFraction, c.TextField, list})
	if err != nil {
		return "", fmt.Errorf("fingerprinting the sources: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// build packs both splits into a temporary folder and renames it to dir.
func build(ctx context.Context, dir string, list sourceList, c Config, tok tokenizer.Tokenizer, source string, o Options) (_ *Index, err error) {
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
		BOS: documentBOS(tok), EOS: tok.EOS(), Source: source,
	}
	p := packer{tok: tok, config: c, options: o, index: x}
	p.progress.TotalFiles = len(list.Train) + len(list.Validation)
	for _, files := range [][]sourceFile{list.Train, list.Validation} {
		for _, f := range files {
			p.progress.TotalBytes += f.Size
		}
	}
	x.Train.Skipped = list.TrainSkipped
	if err := p.pack(ctx, tmp, Train, list.Train, &x.Train); err != nil {
		return nil, fmt.Errorf("preparing data: %w", err)
	}
	if len(list.Validation) > 0 {
		x.Validation = &SplitInfo{Skipped: list.ValidationSkipped}
		if err := p.pack(ctx, tmp, Validation, list.Validation, x.Validation); err != nil {
			return nil, fmt.Errorf("preparing data: %w", err)
		}
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
	return x, syncDir(cache)
}

// documentBOS returns the id that begins a packed document, or -1. Where one
// token is both BOS and EOS (GPT-2's <|endoftext|>), once between two documents
// is enough.
func documentBOS(tok tokenizer.Tokenizer) int32 {
	if tok.BOS() == tok.EOS() {
		return -1
	}
	return tok.BOS()
}
