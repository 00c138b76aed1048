package trainer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meap/internal/durable"
)

// A disk that is really full: a file system of 256 KiB in memory, which only root can mount.
func TestStoreOnFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	output := filepath.Join(mount, "run")
	s := NewStore(output, 2)
	big := func(size int) func(string) error {
		return func(dir string) error {
			if err := fillWith("x")(dir); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "moments"), make([]byte, size), 0o644)
		}
	}
	if err := s.Write(5, big(64<<10)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time the space of the first is free again
		err := s.Write(10, big(512<<10))
		var full *durable.DiskFullError
		if !errors.As(err, &full) || !strings.Contains(err.Error(), output) {
			t.Fatalf("error %v, want a full disk with its folder", err)
		}
		expectLatest(t, s, 5, "x")
		if got := listing(t, s); len(got) != 2 {
			t.Errorf("left: %v", got)
		}
	}
	if err := s.Write(10, big(64<<10)); err != nil {
		t.Fatal(err)
	}
	expectLatest(t, s, 10, "x")

	w, err := OpenMetrics(filepath.Join(output, MetricsFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for step := int64(1); err == nil && step < 1e6; step++ {
		err = w.Step(record(step))
	}
	var full *durable.DiskFullError
	if !errors.As(err, &full) {
		t.Errorf("metrics on a full disk: %v", err)
	}
	// Not even an empty folder fits any more, or its entry, or its file: whichever it is, latest stays.
	if err := s.Write(15, big(1<<10)); !errors.As(err, &full) {
		t.Errorf("a checkpoint on a full disk: %v", err)
	}
	expectLatest(t, s, 10, "x")
}
