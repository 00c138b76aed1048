//go:build gpu && linux

package cuda

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/graphtest"
	"meap/pkg/trainer"
	"meap/pkg/transformer"
)

// needEmulated skips a test that tells the driver to fail.
func needEmulated(t *testing.T) {
	t.Helper()
	needGPU(t)
	if real {
		t.Skip("not run: a real GPU does not fail when told to")
	}
}

const childVariable = "MEAP_TEST_CHILD"

// inChild runs the calling test again in a process of its own, because a driver is opened once and a lost device stays lost, and says
// whether this is that process.
func inChild(t *testing.T, env ...string) bool {
	t.Helper()
	if os.Getenv(childVariable) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), childVariable+"="+t.Name()), env...)
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("the test did not run:\n%s", out)
	}
	return false
}

// wantError fails unless err's text holds every part.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the error does not say %q: %v", p, err)
		}
	}
}

func TestNoDriver(t *testing.T) {
	needEmulated(t)
	if !inChild(t) {
		return
	}
	t.Setenv(LibrariesVariable, "")
	_, err := Open(0, Options{})
	if err == nil || !errors.Is(err, ErrNoDriver) {
		t.Skipf("this machine has a driver (%v)", err)
	}
	wantError(t, err, "libcuda.so.1", "install NVIDIA's driver", "--gpus all", "--device cpu")
}

func TestNoDevice(t *testing.T) {
	needEmulated(t)
	if !inChild(t, "MEAP_FAKE_DEVICES=0") {
		return
	}
	_, err := Open(0, Options{})
	wantError(t, err, "CUDA_VISIBLE_DEVICES", "--device cpu")
	if !errors.Is(err, ErrNoDriver) {
		t.Errorf("--device auto would not take the CPU after: %v", err)
	}
}

func TestNoSuchDevice(t *testing.T) {
	needEmulated(t)
	_, err := Open(7, Options{})
	wantError(t, err, "cuda:7", "1 GPUs", "meap doctor")
}

func TestOldGPU(t *testing.T) {
	needEmulated(t)
	t.Setenv("MEAP_FAKE_CC", "75")
	_, err := Open(0, Options{})
	wantError(t, err, "7.5", "8.0", "--device cpu")
}

func TestNoCublasLt(t *testing.T) {
	needEmulated(t)
	if !inChild(t) {
		return
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(libs, "libcuda.so.1"), filepath.Join(dir, "libcuda.so.1")); err != nil {
		t.Fatal(err)
	}
	t.Setenv(LibrariesVariable, dir)
	d, err := Open(0, Options{})
	if err == nil {
		d.Close()
		t.Skip("this machine has a cuBLASLt")
	}
	wantError(t, err, "cuBLASLt", "libcublasLt.so.12", "libcublasLt.so.11", "LD_LIBRARY_PATH")
}

// Libraries of an older CUDA than the driver's are found; the driver itself must be new enough.
func TestVersions(t *testing.T) {
	needEmulated(t)
	if have, want := versioned("lib.so.%d", 13010), []string{"lib.so.13", "lib.so.12", "lib.so.11"}; !slices.Equal(have, want) {
		t.Errorf("a driver for CUDA 13.1 takes %v, want %v", have, want)
	}
	for version, part := range map[string]string{"13000": "", "12000": "", "11080": "libcublasLt.so.11", "10020": "made for CUDA 10.2"} {
		t.Run(version, func(t *testing.T) {
			t.Setenv("MEAP_FAKE_DRIVER", version)
			d, err := Open(0, Options{})
			if err == nil {
				if d.Close(); part != "" {
					t.Error("was opened")
				}
				return
			}
			if part == "" {
				t.Fatal(err)
			}
			wantError(t, err, part)
		})
	}
}

// A driver that is too old for what only Hopper has is warned about.
func TestHopperWithAnOldDriver(t *testing.T) {
	needEmulated(t)
	t.Setenv("MEAP_FAKE_CC", "90")
	t.Setenv("MEAP_FAKE_DRIVER", "11080")
	var warnings []string
	d, err := Open(0, Options{Warn: func(text string) { warnings = append(warnings, text) }})
	if err == nil {
		d.Close()
	} else {
		wantError(t, err, "libcublasLt.so.11") // the emulated libraries are for CUDA 12
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "hopper.ptx") || !strings.Contains(warnings[0], "newer driver") {
		t.Errorf("warnings: %q", warnings)
	}
}

// leave gives a device this many bytes more than it holds now.
func leave(t *testing.T, d *Device, bytes int64) {
	t.Helper()
	held := int64(0)
	for _, a := range d.held {
		held += (max(int64(a.bytes), 1) + alignment - 1) / alignment * alignment
	}
	t.Setenv("MEAP_FAKE_MEMORY", fmt.Sprint(held+bytes))
}

func TestWeightsDoNotFit(t *testing.T) {
	needEmulated(t)
	d := open(t)
	leave(t, d, 1<<10)
	_, err := transformer.NewParameters(d, transformer.Init(tinyModel, 1))
	var oom *OutOfMemoryError
	if !errors.As(err, &oom) {
		t.Fatalf("want an *OutOfMemoryError, have %v", err)
	}
	if first := tinyModel.Weights()[0]; oom.Label != first.Name || oom.Need != 4*first.Shape[0]*first.Shape[1] || oom.Free != 1<<10 {
		t.Errorf("%s, %d bytes with %d free; want %s %v with 1024 free", oom.Label, oom.Need, oom.Free, first.Name, first.Shape)
	}
	wantError(t, err, tinyModel.Weights()[0].Name, "1.0 KiB of", "a smaller model", "meap plan")
}

func TestActivationsDoNotFit(t *testing.T) {
	needEmulated(t)
	d := open(t)
	leave(t, d, 8<<20)
	params, err := transformer.NewParameters(d, transformer.Init(tinyModel, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer params.Close()
	cfg := tinyConfig(trainer.DTypeFP32)
	cfg.MicroBatch = 512
	_, err = trainer.NewStepper(d, params, cfg)
	var oom *OutOfMemoryError
	if !errors.As(err, &oom) {
		t.Fatalf("want an *OutOfMemoryError, have %v", err)
	}
	if oom.Label != activations || oom.Need <= oom.Free || oom.Free <= 0 || oom.Free > 8<<20 {
		t.Errorf("%s needs %d bytes with %d free", oom.Label, oom.Need, oom.Free)
	}
	wantError(t, err, "this program holds", "weights", fmt.Sprintf("at most %d %%", 100*oom.Free/oom.Need), "trainer.accumulate", "trainer.recompute=blocks")
	// What fits is then trained.
	cfg.MicroBatch = 2
	s, err := trainer.NewStepper(d, params, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestKernelFails(t *testing.T) {
	needEmulated(t)
	if !inChild(t) {
		return
	}
	d := openWith(t, Options{})
	r := newTraining(t, d, transformer.Init(tinyModel, 1), trainer.DTypeFP32)
	if _, err := r.run(1, 1); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MEAP_FAKE_FAIL", "meap_adamw_f32=719")
	_, err := r.run(2, 2)
	wantError(t, err, "meap_adamw_f32", "CUDA_ERROR_LAUNCH_FAILED", "resumes from its latest checkpoint")
	var lost *LostError
	if !errors.As(err, &lost) {
		t.Fatalf("want a *LostError, have %v", err)
	}
	// Everything after it says the same, though no more is told to fail.
	t.Setenv("MEAP_FAKE_FAIL", "")
	if _, err := d.Alloc("x", 4); !errors.Is(err, lost) {
		t.Errorf("allocating after it: %v", err)
	}
	if _, err := r.Moments(); !errors.Is(err, lost) {
		t.Errorf("downloading after it: %v", err)
	}
	if err := r.Step(3, pattern{}, 1e-3); !errors.Is(err, lost) {
		t.Errorf("a step after it: %v", err)
	}
}

// All that a training took is given back. What the device took for itself does not grow from one to the next, but for the table of
// GradNorm, which is a program's and stays until the device is closed: 8 bytes of address, 8 of size, 4 of place per tensor.
func TestMemoryIsGivenBack(t *testing.T) {
	d := open(t)
	var own []int
	for range 3 {
		params, err := transformer.NewParameters(d, transformer.Init(tinyModel, 1))
		if err != nil {
			t.Fatal(err)
		}
		s, err := trainer.NewStepper(d, params, tinyConfig(trainer.DTypeBF16))
		if err != nil {
			t.Fatal(err)
		}
		r := &training{Stepper: s, params: params}
		if _, err := r.run(1, 3); err != nil {
			t.Fatal(err)
		}
		if d.HeldBytes() == 0 {
			t.Error("a training holds no memory")
		}
		s.Close()
		params.Close()
		if n := d.HeldBytes(); n != 0 {
			t.Errorf("%d bytes are held after it", n)
		}
		bytes, tables := 0, 0
		for _, a := range d.held {
			if a.label == ownLabel+"table of GradNorm" {
				tables += a.bytes
			} else {
				bytes += a.bytes
			}
		}
		own = append(own, bytes)
		n := len(tinyModel.Weights())
		if most := len(own) * (20*n + 4 + 3*alignment); tables > most {
			t.Errorf("%d bytes of tables after %d trainings of %d tensors, want at most %d", tables, len(own), n, most)
		}
	}
	if own[1] != own[0] || own[2] != own[0] {
		t.Errorf("the device holds %v bytes for itself after each of three trainings", own)
	}
}

func TestCaptureFails(t *testing.T) {
	needEmulated(t)
	losses := func(d *Device) []float64 {
		l, err := newTraining(t, d, transformer.Init(tinyModel, 1), trainer.DTypeFP32).run(1, 4)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	want := losses(open(t))
	var warnings []string
	d := openWith(t, Options{Warn: func(text string) { warnings = append(warnings, text) }})
	t.Setenv("MEAP_FAKE_FAIL", "cuStreamBeginCapture@1=900,cuStreamBeginCapture@2=900")
	if have := losses(d); fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("losses %v without recording, %v with it", have, want)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "slower") || !strings.Contains(warnings[0], "CUDA graph") {
		t.Errorf("want one warning that it is slower without a CUDA graph, have %q", warnings)
	}
}

// A cuBLASLt that has no algorithm for rows of odd length leaves those products to a kernel, which is said once for each.
func TestProductsWithoutAnAlgorithm(t *testing.T) {
	needEmulated(t)
	t.Setenv("MEAP_FAKE_LT_ALIGN", "8")
	skip := map[string]string{}
	for _, s := range []graph.Spec{graph.ColumnSum{}, graph.RMSNorm{}, graph.RMSNormGrad{}, graph.RoPE{}, graph.Attention{}, graph.AttentionGrad{}, graph.CachedAttention{},
		graph.Add{}, graph.SwiGLU{}, graph.SwiGLUGrad{}, graph.Embedding{}, graph.EmbeddingGrad{}, graph.WeightedSum{}, graph.WeightedSumGrad{}, graph.Accumulate{},
		graph.GradNorm{}, graph.StepReport{}, graph.AdamW{}, graph.Cast{}} {
		skip[graph.Kind(s)] = "has no product"
	}
	for name, storage := range map[string]graph.Dtype{"fp32 activations": graph.F32, "bf16 activations": graph.BF16} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]bool{}
			d := openWith(t, Options{Warn: func(text string) {
				if seen[text] || !strings.Contains(text, "slower") || !strings.Contains(text, "multiples of 8") {
					t.Errorf("warning: %s", text)
				}
				seen[text] = true
			}})
			graphtest.Conformance(t, d, graphtest.Options{Seed: 6, Together: together(), Storage: storage, Skip: skip})
			for _, form := range []string{"nt", "nn", "tn"} {
				if !strings.Contains(fmt.Sprint(seen), "the product "+form) {
					t.Errorf("no product %s was refused", form)
				}
			}
		})
	}
}

// Streams that run only when somebody waits for them find what is read before it was waited for.
func TestConformanceLazy(t *testing.T) {
	needEmulated(t)
	t.Setenv("MEAP_FAKE_LAZY", "1")
	skip := graphtest.Skipping("a subset is enough", graph.Linear{}, graph.RMSNorm{}, graph.Attention{}, graph.SwiGLU{}, graph.EmbeddingGrad{},
		graph.LinearCrossEntropy{}, graph.GradNorm{}, graph.StepReport{}, graph.AdamW{})
	graphtest.Conformance(t, open(t), graphtest.Options{Seed: 5, Together: together(), Skip: skip})
}
