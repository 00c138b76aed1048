package cuda

import "strings"

// gpu is a kind of GPU, known by a part of the name that the driver gives.
type gpu struct {
	name       string
	bf16, fp32 float64 // dense TFLOP/s of the data sheet: products of bf16 summed in fp32, and fp32 without tensor cores
}

// gpus is searched from the top; the more special name stands before the more general one.
var gpus = []gpu{
	{"H200 NVL", 835.5, 60},
	{"H200", 989.4, 66.9},
	{"GH200", 989.4, 66.9},
	{"H100 PCIe", 756.5, 51.2},
	{"H100 NVL", 835.5, 60},
	{"H100", 989.4, 66.9},
	{"H800", 989.4, 66.9},
	{"H20", 148, 44},
	{"B200", 2250, 75},
	{"A100", 312, 19.5},
	{"A800", 312, 19.5},
	{"A30", 165, 10.3},
	{"A10", 125, 31.2},
	{"A40", 149.7, 37.4},
	{"L40S", 362, 91.6},
	{"L40", 181, 90.5},
	{"L4", 121, 30.3},
	{"RTX 6000 Ada", 364.2, 91.1},
	{"RTX A6000", 154.8, 38.7},
	{"RTX 4090 Laptop", 0, 0}, // depends on its power limit
	{"RTX 4090", 165.2, 82.6},
	{"RTX 3090 Ti", 80, 40},
	{"RTX 3090", 71.2, 35.6},
}

// PeakFLOPS returns the floating-point operations per second of matrix products on a GPU by the driver's name for it, with bf16
// operands or in fp32, as its data sheet has them, and whether the GPU is in the table.
func PeakFLOPS(name string, bf16 bool) (float64, bool) {
	words := " " + strings.NewReplacer("-", " ", "_", " ").Replace(name) + " "
	for _, g := range gpus {
		if !strings.Contains(words, " "+g.name+" ") {
			continue
		}
		peak := g.fp32
		if bf16 {
			peak = g.bf16
		}
		return peak * 1e12, peak > 0
	}
	return 0, false
}
