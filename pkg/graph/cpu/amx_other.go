//go:build !linux || !amd64

package cpu

// hasAMX is false: how other systems hand out the tile registers is not known here.
func hasAMX() bool { return false }
