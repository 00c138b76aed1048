// Package cpu computes on the processor: matrix products, attention, and the
// element-wise and row-wise kernels of a Transformer, on slices of float32.
//
// Every kernel exists as plain Go, which is its specification and serves every
// processor, and also as machine code: for amd64 with AVX2, AVX-512 and AMX, for
// arm64 with NEON. That code is written in C under csrc/ and translated by gen/ to the
// committed assembly files, so that building the package needs no C compiler. The files
// kernels_ARCH.go and gemm_ARCH.go hold all that is of one architecture: its
// instruction sets, the shapes of their tiles, and which kernel does what.
//
// # Determinism
//
// For one ISA the result of every function is the same for any number of
// threads. The result for one row (a token, a sequence) depends neither on the
// rows beside it nor on how many there are: each element has one order of
// summation, which is a function of the length of the sum alone.
//
// # Memory
//
// Functions write into memory of the caller. Scratch space belongs to [Kernels]
// and grows once, so that a repeated step allocates nothing. Slices that are too
// short panic, as indexing does.
package cpu
