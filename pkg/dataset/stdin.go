package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// stdinSource is the source that stands for standard input.
const stdinSource = "-"

// spoolPrefix begins the names of the files that standard input is copied to, in the cache folder.
const spoolPrefix = ".stdin-"

// spool copies standard input, where a configuration names it, to a file: training and validation text are read from it one after the
// other, and Parquet from its end. It returns nil where no source is standard input; call the function when the file is no longer read.
func spool(ctx context.Context, c Config, stdin io.Reader) (_ *sourceFile, remove func(), err error) {
	n := 0
	for _, list := range [][]string{c.Sources, c.Validation} {
		for _, source := range list {
			if source == stdinSource {
				n++
			}
		}
	}
	remove = func() {}
	if n == 0 {
		return nil, remove, nil
	}
	if n > 1 {
		return nil, remove, configErrorf(`data.sources and data.validation name standard input, %q, %d times; it can be read once`, stdinSource, n)
	}
	if stdin == nil {
		if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return nil, remove, configErrorf("the source %q is standard input, and nothing is piped into it; pipe text into the command, or name files", stdinSource)
		}
		stdin = os.Stdin
	}
	if err := os.MkdirAll(c.CacheDir, 0o755); err != nil {
		return nil, remove, fmt.Errorf("data.cache_dir: %w; name a folder that can be written", err)
	}
	file, err := os.CreateTemp(c.CacheDir, spoolPrefix+"*")
	if err != nil {
		return nil, remove, fmt.Errorf("copying standard input: %w", err)
	}
	remove = func() { os.Remove(file.Name()) }
	sum := sha256.New()
	var size int64
	copied := make(chan error, 1)
	go func() {
		n, err := io.Copy(io.MultiWriter(file, sum), stdin)
		size = n
		copied <- err
	}()
	select {
	case err = <-copied:
	case <-ctx.Done(): // a read that waits for more cannot be ended, so it is left alone
		remove()
		return nil, func() {}, fmt.Errorf("copying standard input: %w", ctx.Err())
	}
	if err = errors.Join(err, file.Close()); err != nil {
		remove()
		return nil, func() {}, fmt.Errorf("copying standard input to %s: %w; make room there or set data.cache_dir to another disk", c.CacheDir, err)
	}
	return &sourceFile{
		Name: "stdin", Path: "standard input", Size: size, Content: hex.EncodeToString(sum.Sum(nil)), Named: true, spool: file.Name(),
	}, remove, nil
}

// removeOldSpools deletes the copies that killed processes left. Others may be filling theirs, so only those of another day.
func removeOldSpools(cache string) error {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), spoolPrefix) && time.Since(info.ModTime()) > 24*time.Hour {
			if err := os.Remove(filepath.Join(cache, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
