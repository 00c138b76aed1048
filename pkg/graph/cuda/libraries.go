//go:build gpu && linux

package cuda

// #include <stdlib.h>
// #include "host.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"gorgonia.org/cu"
)

// LibrariesVariable is the environment variable that names folders, with colons between them, in which the driver, cuBLASLt and
// NVRTC are looked for before all others.
const LibrariesVariable = "MEAP_CUDA_LIBS"

// folders returns where libraries are looked for, "" being the loader's own path (LD_LIBRARY_PATH, ld.so.conf).
func folders() []string {
	var dirs []string
	for _, d := range filepath.SplitList(os.Getenv(LibrariesVariable)) {
		if d != "" {
			dirs = append(dirs, d)
		}
	}
	return append(dirs, "", "/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/usr/local/cuda/targets/sbsa-linux/lib",
		"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/wsl/lib", "/opt/cuda/lib64")
}

// library is one that is open; libraries stay open.
type library struct {
	handle unsafe.Pointer
	path   string
}

// openLibrary opens the first of names that is found, trying each in every folder before the next.
func openLibrary(what string, names []string) (library, error) {
	for _, name := range names {
		for _, dir := range folders() {
			path := name
			if dir != "" {
				path = filepath.Join(dir, name)
				if !exists(path) {
					continue
				}
			}
			if handle, why := dlopen(path); handle != nil {
				return library{handle, path}, nil
			} else if dir != "" {
				return library{}, fmt.Errorf("%s: %s", what, why) // it is there and does not open
			}
		}
	}
	return library{}, fmt.Errorf("%s was not found (%s): install the CUDA toolkit's runtime libraries, or name their folder in LD_LIBRARY_PATH or %s",
		what, strings.Join(names, ", "), LibrariesVariable)
}

func dlopen(path string) (handle unsafe.Pointer, why string) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	buf := (*C.char)(C.calloc(1, 512))
	defer C.free(unsafe.Pointer(buf))
	return C.meap_dlopen(name, buf, 512), C.GoString(buf)
}

// oldestToolkit is the first major version of CUDA whose libraries this package can use.
const oldestToolkit = 11

// versioned returns the names of a library for the driver's own major version of CUDA and the older ones, which it runs as well.
func versioned(format string, driver int) []string {
	var names []string
	for major := driver / 1000; major >= oldestToolkit; major-- {
		names = append(names, fmt.Sprintf(format, major))
	}
	return names
}

func openLt(driver int) (library, *C.meap_lt, error) {
	lib, err := openLibrary("cuBLASLt", versioned("libcublasLt.so.%d", driver))
	if err != nil {
		return lib, nil, err
	}
	var lt *C.meap_lt
	if missing := C.meap_lt_bind(lib.handle, &lt); missing != nil {
		return lib, nil, fmt.Errorf("%s has no %s: it is older than CUDA %d or damaged", lib.path, C.GoString(missing), oldestToolkit)
	}
	return lib, lt, nil
}

func openNVRTC(driver int) (library, *C.meap_nvrtc, error) {
	lib, err := openLibrary("NVRTC", append(versioned("libnvrtc.so.%d", driver), "libnvrtc.so.11.2"))
	if err != nil {
		return lib, nil, err
	}
	var rtc *C.meap_nvrtc
	if missing := C.meap_nvrtc_bind(lib.handle, &rtc); missing != nil {
		return lib, nil, fmt.Errorf("%s has no %s: it is older than CUDA 11.1 or damaged", lib.path, C.GoString(missing))
	}
	return lib, rtc, nil
}

// ErrNoDriver says that this machine has no CUDA driver, or no GPU.
var ErrNoDriver = errors.New("no CUDA driver")

var driverLock sync.Mutex

// openDriver opens the driver, once, and returns its path and the version of CUDA that it is made for, such as 12040.
func openDriver() (path string, version int, err error) {
	driverLock.Lock()
	defer driverLock.Unlock()
	path = driverPath()
	file := C.CString(path)
	defer C.free(unsafe.Pointer(file))
	switch r := C.meap_open_driver(file); {
	case r < 0:
		return path, 0, fmt.Errorf("%w on this machine: %s; install NVIDIA's driver, in a container start it with the GPUs (docker run --gpus all), "+
			"or use --device cpu", ErrNoDriver, C.GoString(C.meap_driver_error()))
	case r == errorNoDevice:
		return path, 0, fmt.Errorf("%w finds a GPU: %v; see nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu", ErrNoDriver, result(r))
	case r != 0:
		return path, 0, fmt.Errorf("start the CUDA driver %s: %w", path, result(r))
	}
	return path, cu.Version(), nil
}

func driverPath() string {
	const name = "libcuda.so.1"
	for _, dir := range folders() {
		if dir != "" {
			if path := filepath.Join(dir, name); exists(path) {
				return path
			}
		} else if handle, _ := dlopen(name); handle != nil {
			return name
		}
	}
	return name
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
