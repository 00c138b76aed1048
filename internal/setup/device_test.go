package setup

import (
	"errors"
	"strings"
	"testing"

	"meap/internal/config"
	"meap/pkg/trainer"
)

// misused opens a device that must be refused as misuse and returns why.
func misused(t *testing.T, device string) string {
	t.Helper()
	c := trainer.DefaultConfig()
	c.Device, c.Threads = device, 1
	d, closeDevice, err := Device(c)
	if err == nil {
		closeDevice()
		t.Fatalf("device %q: %s was opened", device, d.Name())
	}
	if e := (*config.Error)(nil); !errors.As(err, &e) {
		t.Fatalf("device %q: %v is a %T, want a *config.Error (exit code 2)", device, err, err)
	}
	return err.Error()
}

func TestSeveralProcessesAreRefused(t *testing.T) {
	t.Setenv("WORLD_SIZE", "2")
	for _, device := range []string{"cpu", "auto", "cuda", "cuda:1"} {
		text := misused(t, device)
		for _, part := range []string{"WORLD_SIZE = 2", "one process", "torchrun", "unset WORLD_SIZE"} {
			if !strings.Contains(text, part) {
				t.Errorf("device %q: the error does not say %q: %s", device, part, text)
			}
		}
	}
}

// One process says so too, and what is no number is not meant for us.
func TestOneProcess(t *testing.T) {
	for _, size := range []string{"", "0", "1", "many"} {
		t.Setenv("WORLD_SIZE", size)
		c := trainer.DefaultConfig()
		c.Device, c.Threads = "cpu", 1
		d, closeDevice, err := Device(c)
		if err != nil {
			t.Errorf("WORLD_SIZE=%q: %v", size, err)
			continue
		}
		if !strings.HasPrefix(d.Name(), "cpu") {
			t.Errorf("WORLD_SIZE=%q: --device cpu opened %s", size, d.Name())
		}
		closeDevice()
	}
}

func TestNoNumberOfAGPU(t *testing.T) {
	if text := misused(t, "cuda:first"); !strings.Contains(text, "cuda:0") || !strings.Contains(text, "trainer.device") {
		t.Errorf("the error names neither the key nor the first GPU: %s", text)
	}
}
