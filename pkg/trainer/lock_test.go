package trainer

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const lockHolder = "MEAP_TEST_LOCK_OUTPUT"

// TestLockHolder is the second process of TestLockKeepsOthersOut: it holds the lock until its standard input ends.
func TestLockHolder(t *testing.T) {
	output := os.Getenv(lockHolder)
	if output == "" {
		t.Skip("only runs as a process that TestLockKeepsOthersOut starts")
	}
	if _, err := LockOutput(output); err != nil {
		t.Fatal(err)
	}
	fmt.Println("locked")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

func TestLockKeepsOthersOut(t *testing.T) {
	output := filepath.Join(t.TempDir(), "new", "run")
	other := exec.Command(os.Args[0], "-test.run=^TestLockHolder$")
	other.Env = append(os.Environ(), lockHolder+"="+output)
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}

	_, err = LockOutput(output)
	var locked *LockedError
	if !errors.As(err, &locked) || !strings.Contains(err.Error(), output) {
		t.Fatalf("error %v, want a LockedError that names the folder", err)
	}
	if runtime.GOOS != "windows" && (locked.PID != other.Process.Pid || !strings.Contains(err.Error(), fmt.Sprint(other.Process.Pid))) {
		t.Errorf("error %v, want process %d", err, other.Process.Pid)
	}

	// The lock falls with the process, however it ends.
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // says that it was killed
	l, err := LockOutput(output)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockOutput(output); !errors.As(err, &locked) {
		t.Errorf("a second lock in the same process: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = LockOutput(output)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestLockOutputErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LockOutput(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file as output folder: %v", err)
	}
}

// What cannot be written is known before it is needed, and nothing is left where it can.
func TestCheckOutput(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for output, ok := range map[string]bool{dir: true, filepath.Join(dir, "new", "run"): true, file: false, filepath.Join(file, "run"): false} {
		if err := CheckOutput(output); (err == nil) != ok || !ok && !strings.Contains(err.Error(), output) {
			t.Errorf("%s: %v, want it to pass: %v", output, err, ok)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the checks left %v, %v", entries, err)
	}
	if err := CheckOutput("runs-that-are-not-there"); err != nil {
		t.Errorf("a relative path: %v", err)
	}
}
