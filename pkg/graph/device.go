package graph

import (
	"fmt"
	"unsafe"
)

// Device is hardware that holds tensors and runs operators. It is used by one goroutine at a time.
type Device interface {
	// Name is what people read, such as "cpu (avx512, 2 threads)".
	Name() string
	// Alloc takes memory; the error of a device that has too little names the label and the bytes.
	Alloc(label string, bytes int) (Memory, error)
	// Free gives memory back.
	Free(m Memory)
	// Upload copies host bytes into a tensor of the same size.
	Upload(dst Buffer, src []byte) error
	// Download copies a tensor to host bytes of the same size, after all work queued before.
	Download(dst []byte, src Buffer) error
	// DownloadLater starts a Download without waiting for it; dst holds the tensor as it is at this point of the queue once
	// Wait has returned.
	DownloadLater(dst []byte, src Buffer) (Pending, error)
	// Async says that kernels are queued and run while the host goes on, so that results are better read late.
	Async() bool
	// Kernel returns the code for an operator on tensors of these shapes and types, or an error where it has none.
	// Whatever scratch memory the kernel needs it takes now.
	Kernel(op Spec, in, out []Desc) (Kernel, error)
	// Sync waits for queued work and reports its first error.
	Sync() error
}

// Pending is a copy under way.
type Pending interface{ Wait() error }

// Kernel runs one operator. It may queue the work; it must not allocate. in and out are valid during the call only.
type Kernel func(in, out []Buffer) error

// Recorder is an asynchronous Device that can record the kernels of a program and then queue all of them at once.
type Recorder interface {
	Device
	// Record returns what run queues, which it does not execute. A device that cannot says so to people once, and returns an error.
	Record(run func() error) (Recording, error)
}

// Recording is a sequence of kernels with their buffers.
type Recording interface {
	// Valid says whether the kernels' memory is still where it was. Compiling another program may move their scratch memory.
	Valid() bool
	// Launch queues the kernels.
	Launch() error
	// Close frees the recording, after the work queued before.
	Close()
}

// Toucher is a Device whose system gives memory page by page, each when it is first used.
type Toucher interface {
	// Touch writes to every page of memory that is as Alloc gave it, and leaves it zero. What is read before it is written, like sums that
	// begin with zero, is otherwise given twice: the read gets a page of zeros that all share, which the write has to replace.
	Touch(m Memory)
}

// HostMemory is the part of a Device that every device computing in host memory shares.
type HostMemory struct{}

// Alloc returns zeroed memory aligned to 64 bytes, a cache line and the widest vector register.
func (HostMemory) Alloc(label string, bytes int) (Memory, error) {
	raw := make([]byte, bytes+64)
	p := unsafe.Pointer(unsafe.SliceData(raw))
	if off := uintptr(p) & 63; off != 0 {
		p = unsafe.Add(p, 64-off)
	}
	return Memory{Label: label, Host: p, Bytes: bytes}, nil
}

// Free leaves the memory to the garbage collector.
func (HostMemory) Free(Memory) {}

// Upload copies src into dst.
func (HostMemory) Upload(dst Buffer, src []byte) error {
	if len(src) != dst.Bytes() {
		return fmt.Errorf("upload of %d bytes into %v (%d bytes)", len(src), dst.Desc, dst.Bytes())
	}
	copy(unsafe.Slice((*byte)(dst.Host), len(src)), src)
	return nil
}

// Download copies src into dst.
func (HostMemory) Download(dst []byte, src Buffer) error {
	if len(dst) != src.Bytes() {
		return fmt.Errorf("download of %v (%d bytes) into %d bytes", src.Desc, src.Bytes(), len(dst))
	}
	copy(dst, unsafe.Slice((*byte)(src.Host), len(dst)))
	return nil
}

// Sync returns at once: host kernels are done when they return.
func (HostMemory) Sync() error { return nil }

// DownloadLater copies at once.
func (h HostMemory) DownloadLater(dst []byte, src Buffer) (Pending, error) {
	return done{}, h.Download(dst, src)
}

// Async says no.
func (HostMemory) Async() bool { return false }

type done struct{}

func (done) Wait() error { return nil }
