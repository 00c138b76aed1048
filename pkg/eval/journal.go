package eval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"meap/internal/durable"
)

// Journal keeps the results that a long evaluation has so far, one JSON object
// per line, so that one that was interrupted continues. Its name holds the
// fingerprint of everything that the results depend on: after a change the
// evaluation starts anew, and the results so far stay for when it is undone.
type Journal[T any] struct {
	Done []T // what was there when it was opened

	path string
	file *os.File
}

// journalHead is the first line.
type journalHead struct {
	Fingerprint string `json:"fingerprint"`
}

// OpenJournal opens dir/name-FINGERPRINT.partial.jsonl, or makes it. A last line
// that was cut off while it was written is dropped.
func OpenJournal[T any](dir, name, fingerprint string) (_ *Journal[T], err error) {
	short := fingerprint[:min(16, len(fingerprint))]
	j := &Journal[T]{path: filepath.Join(dir, name+"-"+short+".partial.jsonl")}
	fail := func(err error) (*Journal[T], error) {
		return nil, fmt.Errorf("keeping the results so far in %s: %w; free some space or give another --output", j.path, err)
	}
	if err := durable.MakeDir(dir); err != nil {
		return fail(err)
	}
	data, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	head, err := json.Marshal(journalHead{fingerprint})
	if err != nil {
		return fail(err)
	}
	head = append(head, '\n')
	whole := 0 // bytes that are good
	if bytes.HasPrefix(data, head) {
		whole = len(head)
		for line := range bytes.Lines(data[whole:]) {
			var item T
			if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &item) != nil {
				break
			}
			j.Done = append(j.Done, item)
			whole += len(line)
		}
	}
	j.file, err = os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			j.file.Close()
		}
	}()
	if err := j.file.Truncate(int64(whole)); err != nil {
		return fail(err)
	}
	if _, err := j.file.Seek(int64(whole), 0); err != nil {
		return fail(err)
	}
	if whole == 0 {
		if _, err := j.file.Write(head); err != nil {
			return fail(err)
		}
	}
	return j, nil
}

// Add writes results down for good.
func (j *Journal[T]) Add(items ...T) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	for _, item := range items {
		if err := enc.Encode(item); err != nil {
			return fmt.Errorf("keeping the results so far in %s: %w", j.path, err)
		}
	}
	_, err := j.file.Write(buf.Bytes())
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("keeping the results so far in %s: %w; free some space: the same command continues", j.path, err)
	}
	return nil
}

// Close leaves the results for the next time.
func (j *Journal[T]) Close() error { return j.file.Close() }

// Remove deletes the results, which are in a report by now.
func (j *Journal[T]) Remove() error {
	return errors.Join(j.file.Close(), os.Remove(j.path))
}
