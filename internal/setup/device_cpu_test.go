//go:build !gpu || !linux

package setup

import (
	"strings"
	"testing"

	"meap/pkg/trainer"
)

func TestTheProgramWithoutTheTagSaysHowToGetTheOther(t *testing.T) {
	for _, device := range []string{"cuda", "cuda:0", "cuda:1"} {
		text := misused(t, device)
		for _, part := range []string{"trainer.device", "CPU only", "go build -tags gpu ./cmd/meap", "scripts/cuda-headers.sh", "--device cpu or auto"} {
			if !strings.Contains(text, part) {
				t.Errorf("device %q: the error does not say %q: %s", device, part, text)
			}
		}
	}
	c := trainer.DefaultConfig()
	c.Device, c.Threads = trainer.Auto, 1
	d, closeDevice, err := Device(c)
	if err != nil {
		t.Fatal(err)
	}
	defer closeDevice()
	if !strings.HasPrefix(d.Name(), "cpu") {
		t.Errorf("auto opened %s", d.Name())
	}
}
