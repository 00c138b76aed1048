// Package cuda runs graphs on an NVIDIA GPU. It is built with the tag gpu (never cuda, which gorgonia.org/gorgonia claims) on Linux,
// with cgo and one header, cuda.h; without the tag only the table of GPUs and the plan of a GPU's memory are there.
//
// Nothing of CUDA is linked. The driver is opened when a device is, through trampolines.c; cuBLASLt and NVRTC are looked for at run
// time (libraries.go). A program with this package starts where there is no driver, and says so in words.
//
//	device.go      opening and closing
//	memory.go      allocation, scratch memory, and what an error about too little memory says
//	transfer.go    copies: through pinned memory, beside the kernels
//	record.go      a program's kernels as one CUDA graph
//	module.go      kernels: csrc/, compiled to PTX, and their launch; args.go has their arguments
//	product.go     matrix products by cuBLASLt
//	ops_*.go       operators bound to kernels
//	plan.go        what all of that takes of a GPU's memory
//	probe.go       what a machine has, for `meap doctor`
//
// All work is queued on one stream, in order. With products in bf16 (graph.BF16Operands) activations are stored in bf16
// (graph.Storer), weights, gradients of weights and moments in fp32. No kernel adds floats atomically, cuBLASLt joins split sums in a
// fixed order, and algorithms are chosen by shape alone: the same program gives the same bits in every run on one kind of GPU and
// one version of cuBLASLt. Unlike on the CPU, a row's result may depend on how many rows are computed with it.
package cuda
