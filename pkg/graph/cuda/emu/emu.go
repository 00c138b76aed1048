// Package emu builds the emulated GPU for tests: a CUDA driver and a cuBLASLt that compute on the CPU. README.md says what it does.
package emu

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"
)

// ErrUnavailable says that this machine cannot build it.
var ErrUnavailable = errors.New("the emulated GPU cannot be built here")

// source returns the folder of this package.
func source() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Dir(file)
	if _, err := os.Stat(filepath.Join(dir, "build.sh")); err != nil {
		return "", fmt.Errorf("%w: its sources are not where this program was compiled: %v", ErrUnavailable, err)
	}
	return dir, nil
}

// Build compiles the driver with the kernels in the folder csrc, or with the project's if it is "", and returns the folder of the
// two libraries, for MEAP_CUDA_LIBS. What was built from the same sources before is used again.
func Build(csrc string) (string, error) {
	dir, err := source()
	if err != nil {
		return "", err
	}
	if csrc == "" {
		csrc = filepath.Join(dir, "..", "csrc")
	}
	if _, err := exec.LookPath(compiler()); err != nil || runtime.GOOS != "linux" {
		return "", fmt.Errorf("%w: it needs Linux and %s", ErrUnavailable, compiler())
	}
	h := sha256.New()
	for _, root := range []string{filepath.Join(dir, "src"), csrc, filepath.Join(dir, "build.sh")} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			fmt.Fprintf(h, "%s %d\n", filepath.Base(path), len(b))
			h.Write(b)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("read the sources of the emulated GPU: %w", err)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	out := filepath.Join(cache, "meap", "emu-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(out, ".lock"))
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer lock.Unlock()
	done := filepath.Join(out, ".done")
	if _, err := os.Stat(done); err == nil {
		return out, nil
	}
	var log bytes.Buffer
	cmd := exec.Command("bash", filepath.Join(dir, "build.sh"), out, csrc)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the emulated GPU: %w\n%s", err, log.Bytes())
	}
	return out, os.WriteFile(done, nil, 0o644)
}

func compiler() string {
	if c := os.Getenv("CXX"); c != "" {
		return c
	}
	return "g++"
}
