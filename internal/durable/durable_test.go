package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestReplaceKeepsTheOldFileOnFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("the source broke")
	err := Replace(path, func(w io.Writer) error {
		io.WriteString(w, "half of the n")
		return failure
	})
	if !errors.Is(err, failure) {
		t.Fatalf("got %v, want %v", err, failure)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("the file holds %q", got)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v (%v), want the file alone", entries, err)
	}
}

func TestDiskFullIsDescribedOnce(t *testing.T) {
	err := DescribeDiskFull(&DiskFullError{Dir: "a"}, "b")
	var full *DiskFullError
	if !errors.As(err, &full) || full.Dir != "a" {
		t.Errorf("got %v", err)
	}
	if other := errors.New("other"); DescribeDiskFull(other, "b") != other {
		t.Error("another error was changed")
	}
}
