//go:build gpu && linux

package cuda

// NVRTC 12 is in the package nvidia-cuda-nvrtc-cu12 of PyPI, among other places; no GPU is needed.
//go:generate go run -tags gpu ./gen/ptx
