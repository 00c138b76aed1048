package cuda

import "testing"

func TestPeakFLOPS(t *testing.T) {
	for _, c := range []struct {
		name string
		bf16 bool
		want float64 // TFLOP/s, 0: not known
	}{
		{"NVIDIA H200", true, 989.4},
		{"NVIDIA H100 80GB HBM3", true, 989.4},
		{"NVIDIA H100 80GB HBM3", false, 66.9},
		{"NVIDIA H100 PCIe", true, 756.5},
		{"NVIDIA H100 NVL", true, 835.5},
		{"NVIDIA A100-SXM4-40GB", true, 312},
		{"NVIDIA L40S", true, 362},
		{"NVIDIA A10", true, 125},
		{"NVIDIA A10G", true, 0},
		{"NVIDIA H20", true, 148},
		{"NVIDIA B200", true, 2250},
		{"NVIDIA L4", true, 121},
		{"NVIDIA GeForce RTX 4090", true, 165.2},
		{"NVIDIA GeForce RTX 4090 Laptop GPU", true, 0},
		{"NVIDIA A1000", true, 0},
		{"NVIDIA GeForce RTX 3060", true, 0},
		{"", true, 0},
	} {
		got, ok := PeakFLOPS(c.name, c.bf16)
		if got != c.want*1e12 || ok != (c.want > 0) {
			t.Errorf("%q, bf16 %v: %v %v, want %v TFLOP/s", c.name, c.bf16, got, ok, c.want)
		}
	}
}
