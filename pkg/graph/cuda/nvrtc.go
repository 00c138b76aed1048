//go:build gpu && linux

package cuda

// #include <stdlib.h>
// #include "host.h"
import "C"

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unsafe"
)

// compileExactly compiles the embedded CUDA C++ for this very GPU and replaces the kernels by the results.
func (d *Device) compileExactly(driver int) error {
	lib, rtc, err := openNVRTC(driver)
	if err != nil {
		return err
	}
	files, err := fs.ReadDir(sources, "csrc")
	if err != nil {
		return err
	}
	const all = "kernels.cu" // includes the others
	included := map[string]string{}
	for _, f := range files {
		if ext := path.Ext(f.Name()); f.Name() != all && (ext == ".h" || ext == ".cuh" || ext == ".cu") {
			text, err := sources.ReadFile("csrc/" + f.Name())
			if err != nil {
				return err
			}
			included[f.Name()] = string(text)
		}
	}
	text, err := sources.ReadFile("csrc/" + all)
	if err != nil {
		return err
	}
	arch := fmt.Sprintf("sm_%d%d", d.Major, d.Minor)
	if d.Major >= 9 {
		arch += "a" // with what only this architecture has
	}
	image, err := compile(rtc, string(text), all, included, []string{"--gpu-architecture=" + arch, "--std=c++17"})
	if err != nil {
		return fmt.Errorf("%s: %w", lib.path, err)
	}
	return d.do(func() error { return d.loadModule(all, image) })
}

// compile gives the code of a source file.
func compile(rtc *C.meap_nvrtc, source, name string, headers map[string]string, options []string) ([]byte, error) {
	var owned []unsafe.Pointer
	text := func(s string) *C.char {
		p := C.CString(s)
		owned = append(owned, unsafe.Pointer(p))
		return p
	}
	list := func(ss []string) **C.char {
		p := C.calloc(C.size_t(len(ss)+1), 8)
		owned = append(owned, p)
		for i, s := range ss {
			unsafe.Slice((**C.char)(p), len(ss))[i] = text(s)
		}
		return (**C.char)(p)
	}
	defer func() {
		for _, p := range owned {
			C.free(p)
		}
	}()
	var names, texts []string
	for n, t := range headers {
		names, texts = append(names, n), append(texts, t)
	}
	var image, log *C.char
	var size C.size_t
	st := C.meap_nvrtc_compile(rtc, text(source), text(name), C.int(len(names)), list(texts), list(names), C.int(len(options)), list(options),
		&image, &size, &log)
	defer C.free(unsafe.Pointer(image))
	defer C.free(unsafe.Pointer(log))
	if st != 0 {
		return nil, fmt.Errorf("compile %s (%s): status %d: %s", name, strings.Join(options, " "), int(st), strings.TrimSpace(C.GoString(log)))
	}
	return C.GoBytes(unsafe.Pointer(image), C.int(size)), nil
}
