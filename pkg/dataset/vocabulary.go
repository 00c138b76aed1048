package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"meap/pkg/tokenizer"
)

// VocabularyOptions say what Vocabulary learns, and from how much.
type VocabularyOptions struct {
	tokenizer.TrainOptions
	// MaxBytes is how much text is learnt from, spread over all training files;
	// 0 means all of it.
	MaxBytes int64
	// Stdin is what the source "-" stands for; nil means os.Stdin.
	Stdin io.Reader
}

// vocabularyPrefix begins the names of the folders that hold a vocabulary.
const vocabularyPrefix = "tokenizer-"

// vocabularyVersion changes when the same text comes to give another
// vocabulary.
const vocabularyVersion = 1

// Vocabulary returns a byte-level BPE vocabulary learnt from the training text
// of c, never from what is held out. It is kept below data.cache_dir as
// tokenizer.json and tokenizer_config.json; one that was learnt before is used
// again as long as the files' names, sizes and times and the options are the
// same; o.Progress is called only where one is learnt.
func Vocabulary(ctx context.Context, c Config, o VocabularyOptions) (tokenizer.Tokenizer, error) {
	if err := errors.Join(c.Validate()...); err != nil {
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
	name, err := vocabularyName(list.Train, c, o)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.CacheDir, name)
	if _, err := os.Stat(dir); err == nil {
		tok, err := tokenizer.Load(dir)
		if err != nil {
			return nil, fmt.Errorf("%w; delete the folder %s, and it is learnt again", err, dir)
		}
		return tok, nil
	}
	tok, err := tokenizer.Train(ctx, trainingTexts(c, list.Train, o.MaxBytes), o.TrainOptions)
	if err != nil {
		return nil, fmt.Errorf("learning the vocabulary: %w", err)
	}
	return tok, keepVocabulary(ctx, c.CacheDir, dir, tok)
}

// vocabularyName is the name of the folder of what is learnt from those files.
func vocabularyName(files []sourceFile, c Config, o VocabularyOptions) (string, error) {
	data, err := json.Marshal(struct {
		Version      int
		Recipe       recipe
		Fraction     float64
		Files        []sourceFile
		VocabSize    int
		MinFrequency int
		MaxBytes     int64
	}{vocabularyVersion, newRecipe(c, tokenizer.ByteLevel{}, nil), c.ValidationFraction, files, o.VocabSize, o.MinFrequency, o.MaxBytes})
	if err != nil {
		return "", fmt.Errorf("fingerprinting the sources: %w", err)
	}
	return fmt.Sprintf("%s%.8x", vocabularyPrefix, sha256.Sum256(data)), nil
}

// keepVocabulary saves a vocabulary as the folder dir of the cache, which
// appears whole or not at all.
func keepVocabulary(ctx context.Context, cache, dir string, tok tokenizer.Tokenizer) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("data.cache_dir: %w; name a folder that can be written", err)
	}
	lock := flock.New(filepath.Join(cache, ".lock")) // who holds it removes temporary folders
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return fmt.Errorf("waiting for another process that prepares data in %s: %w", cache, err)
	}
	defer lock.Unlock()
	if _, err := os.Stat(dir); err == nil {
		return nil // another process has learnt the same meanwhile
	}
	tmp, err := os.MkdirTemp(cache, tmpPrefix)
	if err != nil {
		return fmt.Errorf("keeping the vocabulary: %w", err)
	}
	err = errors.Join(os.Chmod(tmp, 0o755), tok.Save(tmp), syncDir(tmp))
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keeping the vocabulary: %w; make room there or set data.cache_dir to another disk", err), os.RemoveAll(tmp))
	}
	return syncDir(cache)
}

// trainingTexts yields the documents of files, about maxBytes of them where
// that is not 0: after every file the share that was taken is the same. So of
// large files it takes the beginning, of many small ones every so manieth.
func trainingTexts(c Config, files []sourceFile, maxBytes int64) iter.Seq2[[]byte, error] {
	total := int64(0)
	for _, f := range files {
		total += f.Size
	}
	share := 1.0
	if maxBytes > 0 && maxBytes < total {
		share = float64(maxBytes) / float64(total)
	}
	how := reading{field: c.TextField, maxBytes: c.MaxFileBytes, fraction: c.ValidationFraction}
	return func(yield func([]byte, error) bool) {
		due, taken := 0.0, 0.0
		for _, f := range files {
			due += share * float64(f.Size)
			if taken >= due {
				continue
			}
			for r, err := range how.records(f) {
				if (errors.Is(err, errBinary) || errors.Is(err, errTooLarge)) && !f.Named {
					break
				}
				if err != nil {
					yield(nil, err)
					return
				}
				if !yield(r.text, nil) {
					return
				}
				taken += float64(len(r.text))
				if share < 1 && taken >= due {
					break
				}
			}
		}
	}
}
