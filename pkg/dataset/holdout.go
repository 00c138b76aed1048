package dataset

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"unicode/utf8"

	"meap/internal/runes"
)

// part says what of a file belongs to a split.
type part int

const (
	whole part = iota
	head       // all but the end that is held out
	tail       // the end that is held out
)

// of returns the part's share of text. The cut between head and tail is after
// the last line that ends before the held-out fraction begins, or, where there
// is no such line, between two characters.
func (p part) of(text []byte, fraction float64) []byte {
	if p == whole {
		return text
	}
	cut := len(text) - int(float64(len(text))*fraction)
	if line := bytes.LastIndexByte(text[:cut], '\n'); line >= 0 {
		cut = line + 1
	} else {
		for cut > 0 && cut < len(text) && !utf8.RuneStart(text[cut]) {
			cut--
		}
	}
	if p == head {
		return text[:cut]
	}
	return text[cut:]
}

// has reports whether the record with that index, from 0, belongs to the part. Held out is the second record, so that neither part of
// two is empty, and from there on one per 1/fraction.
func (p part) has(index int64, fraction float64) bool {
	if p == whole {
		return true
	}
	held := index > 0 && math.Ceil(float64(index)*fraction) > math.Ceil(float64(index-1)*fraction)
	return held == (p == tail)
}

// sourceList is what a configuration's sources come to: the files of both
// splits, in the order in which they are packed.
type sourceList struct {
	Train, Validation               []sourceFile
	TrainSkipped, ValidationSkipped Skipped
}

// listSplits lists the sources and holds out the validation text.
// stdin is what the source "-" stands for.
func listSplits(c Config, stdin *sourceFile) (sourceList, error) {
	var l sourceList
	if len(c.Sources) == 0 {
		return l, configErrorf("data.sources = []: name at least one file, folder or pattern that holds text")
	}
	var err error
	if l.Train, l.TrainSkipped, err = listSources("data.sources", c.Sources, c.MaxFileBytes, stdin); err != nil {
		return l, err
	}
	if len(c.Validation) > 0 {
		if l.Validation, l.ValidationSkipped, err = listSources("data.validation", c.Validation, c.MaxFileBytes, stdin); err != nil {
			return l, err
		}
		held := make(map[string]bool)
		for _, f := range l.Validation {
			held[f.Path] = true
		}
		l.Train = without(l.Train, held)
		if len(l.Train) == 0 {
			return l, configErrorf("data.validation holds out every file of data.sources; name other files in one of them")
		}
		return l, nil
	}
	if c.ValidationFraction > 0 {
		l.Train, l.Validation = holdOutText(l.Train, c.ValidationFraction)
	}
	return l, nil
}

func without(files []sourceFile, held map[string]bool) []sourceFile {
	var rest []sourceFile
	for _, f := range files {
		if !held[f.Path] {
			rest = append(rest, f)
		}
	}
	return rest
}

// holdOut splits files into those to train on and those to validate on. Whether
// a file is held out depends on its name alone, so adding a file moves no
// other one, except that neither split is left empty: then the file whose hash
// is nearest to the other split goes there. A single file is cut in two.
func holdOut(files []sourceFile, fraction float64) (train, validation []sourceFile) {
	if len(files) == 1 {
		a, b := files[0], files[0]
		a.Part, b.Part = head, tail
		return []sourceFile{a}, []sourceFile{b}
	}
	lowest, highest, held := 0, 0, 0
	hashes := make([]float64, len(files))
	for i, f := range files {
		hashes[i] = nameHash(f.Name)
		if hashes[i] < hashes[lowest] {
			lowest = i
		}
		if hashes[i] >= hashes[highest] {
			highest = i
		}
		if hashes[i] < fraction {
			held++
		}
	}
	for i, f := range files {
		out := hashes[i] < fraction
		if held == 0 {
			out = i == lowest
		} else if held == len(files) {
			out = i != highest
		}
		if out {
			validation = append(validation, f)
		} else {
			train = append(train, f)
		}
	}
	return train, validation
}

// holdOutText is holdOut, but where no file of one of the splits looks like text, as happens in a small folder with a picture in it, it
// chooses among those that do. The others are then left to the training split, which counts them.
func holdOutText(files []sourceFile, fraction float64) (train, validation []sourceFile) {
	train, validation = holdOut(files, fraction)
	if slices.ContainsFunc(validation, looksLikeText) && slices.ContainsFunc(train, looksLikeText) {
		return train, validation
	}
	var text, others []sourceFile
	for _, f := range files {
		if looksLikeText(f) {
			text = append(text, f)
		} else {
			others = append(others, f)
		}
	}
	if len(text) == 0 {
		return train, validation
	}
	train, validation = holdOut(text, fraction)
	return append(train, others...), validation
}

// looksLikeText reports whether a file begins as one does that can be read. What is packed and what cannot be opened counts as text: the
// error, if it is one, comes when it is read.
func looksLikeText(f sourceFile) bool {
	if ext, how := splitName(f.Name); f.isStdin() || how != uncompressed || ext == ".parquet" {
		return true
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return true
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<13)
	begin, err := r.Peek(r.Size())
	if beginsWith(r, shardMagic) || beginsWith(r, parquetMagic) {
		return true
	}
	if err == nil { // there is more, and the last character may be cut
		begin = runes.Whole(begin)
	}
	return bytes.IndexByte(begin, 0) < 0 && utf8.Valid(begin)
}

// nameHash maps a name to a number uniform in [0, 1).
func nameHash(name string) float64 {
	sum := sha256.Sum256([]byte(name))
	return float64(binary.LittleEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// emptySplit is the error of a split that turned out to hold no text.
func emptySplit(split string, files int, skipped Skipped) error {
	key := "data.sources"
	if split == Validation {
		key = "data.validation or data.validation_fraction"
	}
	return fmt.Errorf("the %s split holds no text: %d files, of which %v; change %s", split, files, skipped, key)
}
