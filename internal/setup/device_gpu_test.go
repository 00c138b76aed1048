//go:build gpu && linux

package setup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meap/pkg/graph/cuda"
	"meap/pkg/graph/cuda/emu"
	"meap/pkg/trainer"
)

// On an emulated GPU: auto takes it, and a run that does not fit is refused before anything is allocated.
func TestGPU(t *testing.T) {
	libs, err := emu.Build("")
	if errors.Is(err, emu.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(cuda.LibrariesVariable, libs)
	t.Setenv("MEAP_FAKE_MEMORY", "256m")
	model, c := small()
	c.Device = trainer.Auto
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	stderr := os.Stderr
	os.Stderr = said
	d, closeDevice, err := Device(c)
	os.Stderr = stderr
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(said.Name()); !strings.Contains(string(text), "computing on "+d.Name()) {
		t.Errorf("auto does not say which: %q", text)
	}
	if name := d.Name(); !strings.HasPrefix(name, "cuda:0 (Emulated GPU") {
		t.Errorf("auto opened %s", name)
	}
	closeDevice()
	if free := DeviceFree(c); free != 256<<20 {
		t.Errorf("%d bytes are free, want all of 256 MiB", free)
	}
	if err := CheckMemory(model, c, plan(t, model, c)); err != nil {
		t.Errorf("%v", err)
	}
	c.MicroBatch, c.Accumulate = 768, 1
	err = CheckMemory(model, c, plan(t, model, c))
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"the GPU's memory", "0.2 GiB are free", "trainer.micro_batch=", "meap plan"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}
