package dialogue

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"meap/pkg/dataset"
)

// endings are those of the files that folders and patterns in data.sources stand for.
var endings = []string{".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst"}

// line is one record of a file, not yet parsed.
type line struct {
	file   string
	number int // from 1
	text   []byte
}

// readFile returns the records of a file: its lines that are not blank, or the elements of one JSON array, as Alpaca is published.
// What is compressed with gzip or zstd is expanded.
func readFile(path string) (lines []line, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read dialogues from %s: %w", path, err)
		}
	}()
	f, err := dataset.OpenUnpacked(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<16)
	if mark, _ := r.Peek(3); string(mark) == "\ufeff" {
		_, _ = r.Discard(len(mark))
	}
	first, err := r.Peek(1)
	if err == nil && first[0] == '[' {
		return readArray(path, r)
	}
	return readLines(path, r)
}

func readLines(path string, r *bufio.Reader) (lines []line, err error) {
	for number := 1; ; number++ {
		text, err := r.ReadBytes('\n')
		if text = bytes.TrimSpace(text); len(text) > 0 {
			lines = append(lines, line{path, number, text})
		}
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, fmt.Errorf("after line %d: %w", number, err)
		}
	}
}

// readArray reads the elements of one array, each with the number of the line that it begins on.
func readArray(path string, r io.Reader) ([]line, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var lines []line
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil { // the bracket
		return nil, err
	}
	number, counted := 1, int64(0)
	at := func(offset int64) int {
		number += bytes.Count(text[counted:offset], []byte("\n"))
		counted = offset
		return number
	}
	for d.More() {
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return nil, fmt.Errorf("line %d: %w; what follows in the array cannot be read: mend it, or write one record per line", at(d.InputOffset()), err)
		}
		lines = append(lines, line{path, at(d.InputOffset() - int64(len(element))), element})
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("line %d: the array does not end: %w", at(d.InputOffset()), err)
	}
	return lines, nil
}
