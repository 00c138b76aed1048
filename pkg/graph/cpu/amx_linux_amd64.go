package cpu

import (
	"sync"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// hasAMX says whether this process may use the tile registers. The kernel hands them out on demand, because a thread that has
// used them takes 8 KB more to save; it refuses where a signal stack would be too small for that, or where it does not know
// them.
var hasAMX = sync.OnceValue(func() bool {
	const (
		requestPermission = 0x1023 // ARCH_REQ_XCOMP_PERM of asm/prctl.h
		tileData          = 18     // XFEATURE_XTILEDATA
	)
	x := &cpu.X86
	if !x.HasAMXTile || !x.HasAMXBF16 || !x.HasAVX512BF16 {
		return false
	}
	_, _, errno := unix.RawSyscall(unix.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return errno == 0
})
