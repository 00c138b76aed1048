package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// target is what differs between the architectures.
type target struct {
	arch     string
	flags    []string
	loadArgs string // Go's instruction that puts the argument where C expects it

	disassembler func(clang string) []string
	instruction  *regexp.Regexp // a line of the listing: address, bytes in hexadecimal, text

	encode  func(code []byte) string
	refused []refusal
	jump    *regexp.Regexp // a jump, with its destination in hexadecimal
	ends    *regexp.Regexp // what may end a function
}

// refusal is an instruction that code from Go assembly must not have.
type refusal struct {
	text, unless *regexp.Regexp
	why          string
}

var commonFlags = []string{
	"-O3", "-ffreestanding", "-fno-jump-tables", "-mno-red-zone", "-fno-asynchronous-unwind-tables",
	"-fno-stack-protector",
}

var targets = []*target{
	{
		arch: "amd64",
		// Go aligns its stacks to 8 bytes only, hence the alignment: the compiler must not
		// expect more where it spills a register.
		flags: slices.Concat([]string{"-mstack-alignment=8"}, commonFlags,
			[]string{"-fcf-protection=none", "-fomit-frame-pointer", "-fno-pic", "-ffp-contract=off"}),
		loadArgs:     "MOVQ args+0(FP), DI",
		disassembler: func(string) []string { return []string{"objdump", "-d", "--insn-width=16"} },
		instruction:  regexp.MustCompile(`^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$`),
		encode: func(code []byte) string {
			var list []string
			for _, x := range code {
				list = append(list, fmt.Sprintf("BYTE $0x%02x", x))
			}
			return strings.Join(list, "; ")
		},
		refused: []refusal{
			{regexp.MustCompile(`^vmov(aps|apd|dqa)\S* .*\(%rsp\)`), nil, "Go does not align its stacks"},
			{regexp.MustCompile(`^call`), nil, "there is nothing to call"},
		},
		jump: regexp.MustCompile(`^j[a-z]+ ([0-9a-f]+)$`),
		ends: regexp.MustCompile(`^(ret|jmp)`),
	},
	{
		arch: "arm64",
		// Go's stacks are aligned to 16 bytes, as the processor demands. x18 belongs to the
		// system, x27 to Go's assembler, x28 to the goroutine, x29 and x30 to its stack frames;
		// Go expects no other register to be kept.
		flags: slices.Concat([]string{"--target=aarch64-linux-gnu", "-ffixed-x18", "-ffixed-x27", "-ffixed-x28"}, commonFlags,
			[]string{"-mbranch-protection=none", "-fomit-frame-pointer", "-fno-pic", "-ffp-contract=off"}),
		loadArgs: "MOVD args+0(FP), R0",
		disassembler: func(clang string) []string { // the one that comes with clang: the system's may know its own processor only
			return []string{strings.Replace(clang, "clang", "llvm-objdump", 1), "-d"}
		},
		instruction: regexp.MustCompile(`^\s*([0-9a-f]+): ([0-9a-f]{8})\s+(.*)$`),
		encode:      func(code []byte) string { return fmt.Sprintf("WORD $0x%08x", binary.LittleEndian.Uint32(code)) },
		refused: []refusal{
			{
				regexp.MustCompile(`\b([wx](18|27|28|29|30)|fp|lr)\b`),
				regexp.MustCompile(`^(str|ldr) x29, \[sp`), // saved and restored, which clang does in a large frame
				"the register belongs to Go or to the system",
			},
			{regexp.MustCompile(`^(bl|blr|br|svc)\b`), nil, "there is nothing to call"},
			{regexp.MustCompile(`^(adrp?\b|ldr\S* \S+, 0x)`), nil, "there are no constants in memory"},
		},
		jump: regexp.MustCompile(`^(?:b|b\..*|cbn?z|tbn?z) (?:.* )?0x([0-9a-f]+)$`),
		ends: regexp.MustCompile(`^(ret$|b )`),
	},
}

// targetOf returns the architecture that the name of a file of Go assembly ends in.
func targetOf(file string) (*target, error) {
	for _, t := range targets {
		if strings.HasSuffix(file, "_"+t.arch+".s") {
			return t, nil
		}
	}
	return nil, fmt.Errorf("%s: the name must end in _amd64.s or _arm64.s", file)
}

// line is one instruction of a listing.
type line struct {
	text string
	size uint64
}

// disassemble lists the instructions of an object file by their addresses.
func (t *target) disassemble(obj, clang string) (map[uint64]line, error) {
	command := t.disassembler(clang)
	listing, err := output(command[0], append(command[1:], obj)...)
	if err != nil {
		return nil, err
	}
	lines := map[uint64]line{}
	for l := range strings.Lines(listing) {
		m := t.instruction.FindStringSubmatch(strings.TrimRight(l, "\n"))
		if m == nil {
			continue
		}
		at, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil {
			return nil, err
		}
		text, _, _ := strings.Cut(m[3], "<")
		digits := strings.ReplaceAll(m[2], " ", "")
		lines[at] = line{strings.Join(strings.Fields(text), " "), uint64(len(digits) / 2)}
	}
	return lines, nil
}

// check says why an instruction of the function that is at from to to cannot be taken.
func (t *target) check(text string, from, to uint64) error {
	for _, r := range t.refused {
		if r.text.MatchString(text) && (r.unless == nil || !r.unless.MatchString(text)) {
			return errors.New(r.why)
		}
	}
	if m := t.jump.FindStringSubmatch(text); m != nil {
		at, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil {
			return err
		}
		if at < from || at >= to {
			return errors.New("it leaves the function")
		}
	}
	return nil
}
