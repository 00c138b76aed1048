package main

import "testing"

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		arch, text string
		taken      bool
	}{
		{"amd64", "vfmadd231ps %ymm1,%ymm2,%ymm3", true},
		{"amd64", "jne 140", true},
		{"amd64", "jne 1f0", false}, // where the next function begins
		{"amd64", "jmp fc", false},
		{"amd64", "call 140", false},
		{"amd64", "vmovaps %ymm1,0x20(%rsp)", false},
		{"amd64", "vmovups %ymm1,0x20(%rsp)", true},
		{"arm64", "fmla v29.4s, v9.4s, v10.s[0]", true},
		{"arm64", "add x9, x0, #0x30", true},
		{"arm64", "b.ne 0x140", true},
		{"arm64", "tbz w9, #0x1, 0x140", true},
		{"arm64", "b 0x1f0", false},
		{"arm64", "cbz x9, 0xfc", false},
		{"arm64", "tbnz w9, #0x1, 0x1f0", false},
		{"arm64", "bl 0x140", false},
		{"arm64", "br x9", false},
		{"arm64", "ldr q0, 0x140", false},
		{"arm64", "ldr q0, [x9, #0x140]", true},
		{"arm64", "adrp x9, 0x0", false},
		{"arm64", "mov w18, w1", false},
		{"arm64", "add x1, x28, x2", false},
		{"arm64", "stp x29, x30, [sp, #-0x50]!", false},
		{"arm64", "str x29, [sp, #0x1a8]", true},
		{"arm64", "mov x29, sp", false},
		{"arm64", "ldr x27, [sp, #0x8]", false},
	} {
		target, err := targetOf("x_" + c.arch + ".s")
		if err != nil {
			t.Fatal(err)
		}
		if err := target.check(c.text, 0x100, 0x1f0); (err == nil) != c.taken {
			t.Errorf("%s: %s in a function at 0x100 to 0x1f0: error %v, want it taken: %v", c.arch, c.text, err, c.taken)
		}
	}
	if _, err := targetOf("x_riscv64.s"); err == nil {
		t.Error("a file for riscv64: no error")
	}
}
