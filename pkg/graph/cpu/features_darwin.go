package cpu

import "golang.org/x/sys/unix"

// modelName asks the kernel for the processor's name.
func modelName() string {
	name, err := unix.Sysctl("machdep.cpu.brand_string")
	if err != nil {
		return ""
	}
	return name
}
