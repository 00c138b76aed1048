package trainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"meap/internal/durable"
)

// fillWith returns a fill function that writes a file of the given text and one in a folder below.
func fillWith(text string) func(string) error {
	return func(dir string) error {
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			return err
		}
		return errors.Join(os.WriteFile(filepath.Join(dir, "weights"), []byte(text), 0o644),
			os.WriteFile(filepath.Join(dir, "sub", "more"), []byte(text), 0o644))
	}
}

func mustWrite(t *testing.T, s *Store, step int64, text string) {
	t.Helper()
	if err := s.Write(step, fillWith(text)); err != nil {
		t.Fatal(err)
	}
}

// listing returns the names in the store's folder, sorted.
func listing(t *testing.T, s *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// expectLatest checks step and content of the checkpoint that a resume would take.
func expectLatest(t *testing.T, s *Store, step int64, text string) {
	t.Helper()
	dir, got, err := s.Latest()
	if err != nil || got != step {
		t.Fatalf("latest is step %d (%v), want %d", got, err, step)
	}
	for _, name := range []string{"weights", "sub/more"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != text {
			t.Fatalf("%s of step %d holds %q (%v), want %q", name, step, data, err, text)
		}
	}
}

// A run whose checkpoints were taken away is not taken for one that has none yet: starting anew would cut its records.
func TestStoreMissesWhatLatestNames(t *testing.T) {
	s := NewStore(t.TempDir(), 2)
	mustWrite(t, s, 5, "x")
	if err := os.RemoveAll(filepath.Join(s.dir, stepName(5))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Latest(); err == nil || errors.Is(err, ErrNoCheckpoint) || !strings.Contains(err.Error(), stepName(5)) {
		t.Errorf("got %v", err)
	}
}

func TestStoreWritesAndRotates(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "a", "run"), 2)
	if _, _, err := s.Latest(); !errors.Is(err, ErrNoCheckpoint) {
		t.Fatalf("an empty store: %v", err)
	}
	for step := int64(5); step <= 20; step += 5 {
		mustWrite(t, s, step, fmt.Sprint("at ", step))
		expectLatest(t, s, step, fmt.Sprint("at ", step))
	}
	if got, want := listing(t, s), []string{"latest", "step-00000015", "step-00000020"}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "latest"))
	if err != nil || string(text) != "step-00000020\n" {
		t.Errorf("latest holds %q, %v", text, err)
	}
	all := NewStore(t.TempDir(), 0)
	for step := int64(1); step <= 5; step++ {
		mustWrite(t, all, step, "x")
	}
	if list, err := all.List(); err != nil || len(list) != 5 || list[0].Step != 1 || list[4].Step != 5 {
		t.Errorf("keep 0: %v %v", list, err)
	}
}

func TestStoreFallsBack(t *testing.T) {
	s := NewStore(t.TempDir(), 0)
	mustWrite(t, s, 5, "five")
	mustWrite(t, s, 123456789, "late") // more digits than the name is padded to
	mustWrite(t, s, 10, "ten")         // removes the later one, see TestStoreLeavesTheOldCourse
	mustWrite(t, s, 15, "fifteen")
	latest := filepath.Join(s.dir, "latest")
	for name, spoil := range map[string]func() error{
		"missing":  func() error { return os.Remove(latest) },
		"empty":    func() error { return os.WriteFile(latest, nil, 0o644) },
		"dangling": func() error { return os.WriteFile(latest, []byte("step-00000099\n"), 0o644) },
		"foreign":  func() error { return os.WriteFile(latest, []byte("../../etc\n"), 0o644) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { expectLatest(t, s, 15, "fifteen") })
	}
	// What `latest` names counts, also where there is a newer one: that is how a run is taken back.
	if err := os.WriteFile(latest, []byte("step-00000010"), 0o644); err != nil {
		t.Fatal(err)
	}
	expectLatest(t, s, 10, "ten")
}

// A run that was taken back to step 10 writes 15 anew: the old 15 and all after it belong to another course.
func TestStoreLeavesTheOldCourse(t *testing.T) {
	s := NewStore(t.TempDir(), 2)
	for _, step := range []int64{10, 15, 20} {
		mustWrite(t, s, step, "old")
	}
	mustWrite(t, s, 15, "new")
	expectLatest(t, s, 15, "new")
	if got, want := listing(t, s), []string{"latest", "step-00000015"}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
}

func TestFailedWriteLeavesTheOneBefore(t *testing.T) {
	halfway := func(err error) func(string) error {
		return func(dir string) error { return errors.Join(fillWith("half")(dir), err) }
	}
	for name, c := range map[string]struct {
		fill func(string) error
		full bool
	}{
		"fill fails":    {halfway(errors.New("no such tensor")), false},
		"disk full":     {halfway(&os.PathError{Op: "write", Path: "w", Err: syscall.ENOSPC}), true},
		"wrapped twice": {halfway(fmt.Errorf("a: %w", &durable.DiskFullError{Dir: "elsewhere", Err: syscall.ENOSPC})), true},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(t.TempDir(), 1)
			mustWrite(t, s, 5, "five")
			before := listing(t, s)
			err := s.Write(10, c.fill)
			var full *durable.DiskFullError
			if err == nil || errors.As(err, &full) != c.full || !strings.Contains(err.Error(), "step-00000010") {
				t.Fatalf("error %v", err)
			}
			if c.full && (!strings.Contains(err.Error(), "disk full") || !strings.Contains(err.Error(), "free some space")) {
				t.Errorf("the error does not say what is wrong and what to do: %v", err)
			}
			if got := listing(t, s); !slices.Equal(got, before) {
				t.Errorf("left: %v, want %v", got, before)
			}
			expectLatest(t, s, 5, "five")
			mustWrite(t, s, 10, "ten") // and the run can go on
			expectLatest(t, s, 10, "ten")
		})
	}
}

// The states in which a crash can leave the folder, one after each step of Write, all lead to a complete checkpoint.
func TestRecover(t *testing.T) {
	move := func(t *testing.T, s *Store, from, to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(s.dir, from), filepath.Join(s.dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]struct {
		crash func(t *testing.T, s *Store)
		step  int64
		text  string
		left  []string
	}{
		"while filling": {func(t *testing.T, s *Store) {
			move(t, s, "step-00000010", ".tmp-step-00000010-123")
			if err := os.WriteFile(filepath.Join(s.dir, "latest"), []byte("step-00000005\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, 5, "five", []string{"latest", "step-00000005"}},
		"named, latest not yet": {func(t *testing.T, s *Store) {
			if err := os.WriteFile(filepath.Join(s.dir, "latest"), []byte("step-00000005\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.dir, ".tmp-latest-77"), []byte("step-00000010\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, 5, "five", []string{"latest", "step-00000005", "step-00000010"}},
		"set aside, new one not named": {func(t *testing.T, s *Store) {
			move(t, s, "step-00000010", ".replaced-step-00000010")
		}, 10, "ten", []string{"latest", "step-00000005", "step-00000010"}},
		"replaced, old one not removed": {func(t *testing.T, s *Store) {
			move(t, s, "step-00000010", ".replaced-step-00000010")
			dir := filepath.Join(s.dir, "step-00000010")
			if err := errors.Join(os.Mkdir(dir, 0o755), fillWith("ten anew")(dir)); err != nil {
				t.Fatal(err)
			}
		}, 10, "ten anew", []string{"latest", "step-00000005", "step-00000010"}},
		"while rotating": {func(t *testing.T, s *Store) {
			move(t, s, "step-00000005", ".tmp-removed-step-00000005")
		}, 10, "ten", []string{"latest", "step-00000010"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := NewStore(t.TempDir(), 2)
			if err := s.Recover(); err != nil {
				t.Fatalf("nothing there yet: %v", err)
			}
			mustWrite(t, s, 5, "five")
			mustWrite(t, s, 10, "ten")
			c.crash(t, s)
			if err := s.Recover(); err != nil {
				t.Fatal(err)
			}
			expectLatest(t, s, c.step, c.text)
			if got := listing(t, s); !slices.Equal(got, c.left) {
				t.Errorf("left: %v, want %v", got, c.left)
			}
			mustWrite(t, s, 10, "again")
			expectLatest(t, s, 10, "again")
		})
	}
}

func TestHoldsRun(t *testing.T) {
	dir := t.TempDir()
	expect := func(want bool) {
		t.Helper()
		if got, err := HoldsRun(dir); err != nil || got != want {
			t.Errorf("HoldsRun = %v, %v; want %v", got, err, want)
		}
	}
	expect(false)
	if err := os.WriteFile(filepath.Join(dir, MetricsFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(false) // opened, nothing trained
	if err := os.WriteFile(filepath.Join(dir, MetricsFile), []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(true)
	dir = t.TempDir()
	mustWrite(t, NewStore(dir, 1), 3, "x")
	expect(true)
	dir = filepath.Join(dir, "missing")
	expect(false)
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	for _, text := range []string{"one", "two, longer", ""} {
		if err := durable.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q %v, want %q", got, err, text)
		}
	}
	if err := durable.WriteFile(filepath.Join(dir, "missing", "x"), nil); err == nil {
		t.Error("written into a folder that is not there")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}
