//go:build !linux && !darwin && !windows

package cpu

// modelName has no source on this system.
func modelName() string { return "" }
