//go:build !gpu || !linux

package main

func probeCUDA(bool) cudaReport {
	return cudaReport{Problem: "this program was built for the CPU only; README.md says how to build the one for GPUs"}
}
