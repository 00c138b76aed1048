package cpu

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// ISA is a level of instructions that the kernels are built for. Those of one
// architecture are ordered: a processor that has one has those below it.
type ISA int

const (
	Generic ISA = iota // plain Go
	NEON               // every arm64 processor; bf16 products round their operands and multiply in fp32
	AVX2               // AVX2 and FMA; bf16 products round their operands and multiply in fp32
	AVX512             // AVX-512 F, BW, DQ, VL; bf16 products by VDPBF16PS where that is faster
	AMX                // AVX-512, and bf16 products by AMX tiles; Linux only
)

var isaNames = []string{Generic: "generic", NEON: "neon", AVX2: "avx2", AVX512: "avx512", AMX: "amx"}

func (i ISA) String() string {
	if i < 0 || int(i) >= len(isaNames) {
		return fmt.Sprintf("ISA(%d)", int(i))
	}
	return isaNames[i]
}

// nativeBF16 says whether bf16 products use VDPBF16PS. AMD runs it at twice the
// FLOP/s of fp32 multiply-adds, but the Intel processors that have AMX at about
// 0.7 of them, so there rounding the operands and multiplying in fp32 is faster.
var nativeBF16 = cpu.X86.HasAVX512BF16 && !cpu.X86.HasAMXBF16

// DetectISA returns the highest level that this processor and operating system run.
func DetectISA() ISA {
	list := AvailableISAs()
	return list[len(list)-1]
}

// AvailableISAs lists the levels that this machine runs, the lowest first.
func AvailableISAs() []ISA {
	switch runtime.GOARCH {
	case "amd64":
	case "arm64":
		return []ISA{Generic, NEON}
	default: // 386 too, whose processors may have all of what follows
		return []ISA{Generic}
	}
	x := &cpu.X86
	switch avx512 := x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasFMA; {
	case avx512 && hasAMX():
		return []ISA{Generic, AVX2, AVX512, AMX}
	case avx512:
		return []ISA{Generic, AVX2, AVX512}
	case x.HasAVX2 && x.HasFMA:
		return []ISA{Generic, AVX2}
	}
	return []ISA{Generic}
}

// ParseISA returns the level of that name; "" and "auto" stand for the highest
// that this machine runs. A name that is unknown, or a level that this machine
// does not run, is an error that lists what can be chosen.
func ParseISA(name string) (ISA, error) {
	if name == "" || name == "auto" {
		return DetectISA(), nil
	}
	available := AvailableISAs()
	i := slices.Index(isaNames, name)
	switch {
	case i < 0:
		return 0, fmt.Errorf("cpu-isa %q is unknown: choose auto or one of %s", name, joinISAs(available))
	case !slices.Contains(available, ISA(i)):
		return 0, fmt.Errorf("cpu-isa %q is not available on this processor: choose auto or one of %s", name, joinISAs(available))
	}
	return ISA(i), nil
}

func joinISAs(list []ISA) string {
	var names []string
	for _, i := range list {
		names = append(names, i.String())
	}
	return strings.Join(names, ", ")
}

// Features describes the processor for people.
type Features struct {
	Model      string   // the maker's name of it, empty where the system does not tell
	Processors int      // logical processors that this program may use
	Available  []ISA    // levels of kernels that run here, the lowest first
	Extensions []string // instruction sets beyond the levels that matter for speed: bf16, fp16, vnni, amx ...
}

// DetectFeatures looks at the processor that this program runs on.
func DetectFeatures() Features {
	f := Features{Model: modelName(), Processors: runtime.GOMAXPROCS(0), Available: AvailableISAs()}
	for _, e := range []struct {
		name string
		has  bool
	}{
		{"avx512_bf16", cpu.X86.HasAVX512BF16},
		{"avx512_vnni", cpu.X86.HasAVX512VNNI},
		{"amx_tile", cpu.X86.HasAMXTile},
		{"amx_bf16", cpu.X86.HasAMXBF16},
		{"sve", cpu.ARM64.HasSVE},
	} {
		if e.has {
			f.Extensions = append(f.Extensions, e.name)
		}
	}
	return f
}

// String is one line: model, processors, levels, extensions.
func (f Features) String() string {
	model := f.Model
	if model == "" {
		model = runtime.GOARCH + " processor"
	}
	s := fmt.Sprintf("%s, %d threads, kernels: %s", model, f.Processors, joinISAs(f.Available))
	if len(f.Extensions) > 0 {
		s += " (also has " + strings.Join(f.Extensions, ", ") + ")"
	}
	return s
}
