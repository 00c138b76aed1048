// Package cpu computes on the processor: matrix products, attention, and the
// element-wise and row-wise kernels of a Transformer, on slices of float32.
//
// Every kernel exists as plain Go, which is its specification and serves every
// processor, and for amd64 also as machine code for AVX2, AVX-512 and AMX. That code
// is written in C under csrc/ and translated by gen/main.go to the committed
// assembly files, so that building the package needs no C compiler.
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
