package setup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"meap/internal/config"
	"meap/pkg/graph"
	"meap/pkg/graph/cpu"
	"meap/pkg/trainer"
)

// Device opens what trainer.device, trainer.threads and trainer.cpu_isa ask for; auto takes a GPU where there is one that works.
// Call the function that it returns when done.
func Device(t trainer.Config) (graph.Device, func(), error) {
	if err := CheckDevice(t); err != nil {
		return nil, nil, err
	}
	if strings.HasPrefix(t.Device, "cuda") {
		ordinal, _ := Ordinal(t.Device)
		return openGPU(ordinal)
	}
	if t.Device == trainer.Auto {
		if d, closeDevice, err := openGPU(0); err == nil {
			fmt.Fprintf(os.Stderr, "meap: computing on %s\n", d.Name())
			return d, closeDevice, nil
		} else if !noGPU(err) {
			fmt.Fprintf(os.Stderr, "meap: the CPU is used, because the GPU is not usable: %v\n", err)
		}
	}
	d, err := cpu.NewDevice(t.Threads, t.CPUISA)
	if err != nil {
		return nil, nil, &config.Error{Problems: []error{fmt.Errorf("trainer.cpu_isa = %q: %w", t.CPUISA, err)}}
	}
	return d, d.Close, nil
}

// CheckDevice returns the errors of Device that can be known without opening it, before hours go into preparing data.
func CheckDevice(t trainer.Config) error {
	if err := oneProcess(); err != nil {
		return err
	}
	if !strings.HasPrefix(t.Device, "cuda") {
		return nil
	}
	ordinal, err := Ordinal(t.Device)
	if err == nil {
		err = gpuProblem(ordinal)
		if err != nil && !errors.Is(err, errNotBuilt) {
			return err
		}
	}
	if err != nil {
		return &config.Error{Problems: []error{fmt.Errorf("trainer.device = %q: %w", t.Device, err)}}
	}
	return nil
}

// Ordinal returns the number of a GPU by its name, cuda or cuda:N; that of other devices is 0.
func Ordinal(device string) (int, error) {
	number, isCUDA := strings.CutPrefix(device, "cuda")
	if number == "" || !isCUDA {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(number, ":"))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number of a GPU; the first is cuda:0", number)
	}
	return n, nil
}

// TakesGPU says whether Device takes a GPU for a value of trainer.device.
func TakesGPU(device string) bool {
	return strings.HasPrefix(device, "cuda") || device == trainer.Auto && gpuWorks()
}

// errNotBuilt says that this program has no code for GPUs.
var errNotBuilt = errors.New("this program was built for the CPU only; build the one for GPUs (Linux, with gcc) by\n" +
	"  CGO_ENABLED=1 CGO_CFLAGS=\"-I$(scripts/cuda-headers.sh | tail -n 1)\" go build -tags gpu ./cmd/meap\n" +
	"or use --device cpu or auto")

// oneProcess refuses to be one of several processes that share a run, as mpirun and torchrun start them: each would train all of it.
func oneProcess() error {
	size := os.Getenv("WORLD_SIZE")
	if n, err := strconv.Atoi(size); err != nil || n <= 1 {
		return nil
	}
	return &config.Error{Problems: []error{fmt.Errorf("WORLD_SIZE = %s: meap trains in one process on one device, and several would each do the whole "+
		"run; start one process, without torchrun or mpirun, and unset WORLD_SIZE", size)}}
}

// DeviceMemory returns the most memory that a device has held at a time, in bytes; on a device in host memory, that the process has.
func DeviceMemory(dev graph.Device) int64 {
	if d, ok := dev.(interface{ PeakBytes() int64 }); ok {
		return d.PeakBytes()
	}
	return PeakMemory()
}

// PeakFLOPS returns the most that a device can do in matrix products of a precision, in floating-point operations per second, and
// whether that is known.
func PeakFLOPS(dev graph.Device, p graph.Precision) (float64, bool) {
	if d, ok := dev.(interface {
		PeakFLOPS(graph.Precision) (float64, bool)
	}); ok {
		return d.PeakFLOPS(p)
	}
	return 0, false
}
