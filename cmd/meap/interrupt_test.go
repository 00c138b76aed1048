//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// commandLine holds the arguments with which the test program is to be meap.
const commandLine = "TEST_COMMAND_LINE"

func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv(commandLine); ok {
		os.Args = append([]string{"meap"}, strings.Split(args, "\n")...)
		main()
		return
	}
	os.Exit(m.Run())
}

// interrupted starts a command, gives it text, which it has to read, and an interrupt, and returns how it ended.
func interrupted(t *testing.T, args ...string) (syscall.WaitStatus, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0])
	c.Env = append(os.Environ(), commandLine+"="+strings.Join(args, "\n"))
	var stderr bytes.Buffer
	c.Stderr = &stderr
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, strings.Repeat("more than a pipe holds ", 1<<16)); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); ctx.Err() != nil {
		t.Fatalf("meap %s goes on after an interrupt: %v", strings.Join(args, " "), err)
	}
	return c.ProcessState.Sys().(syscall.WaitStatus), stderr.String()
}

// One interrupt ends a command: at once where nothing is half done, which shells show as 130, else with that code.
func TestInterrupt(t *testing.T) {
	if status, stderr := interrupted(t, "tokenizer", "encode", "--tokenizer", "bytes"); status.Signal() != syscall.SIGINT {
		t.Errorf("encode: %v\n%s", status, stderr)
	}
	cache := t.TempDir()
	status, stderr := interrupted(t, "data", "prepare", "--set", "data.sources=-", "--set", "data.cache_dir="+cache)
	if status.ExitStatus() != exitInterrupted || !strings.Contains(stderr, "standard input") {
		t.Errorf("prepare: %v\n%s", status, stderr)
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) != 0 {
		t.Errorf("prepare leaves %v, %v", left, err)
	}
}
