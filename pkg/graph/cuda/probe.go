//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"fmt"
	"strconv"

	"gorgonia.org/cu"
)

// Report says what a machine has of what this package needs.
type Report struct {
	Driver    string // the library's path
	Version   string // of CUDA that the driver is made for, such as 12.4
	GPUs      []GPU
	Libraries []Library
	Problem   string // why no GPU can be used, "" where one can
}

// GPU is one of a machine's GPUs.
type GPU struct {
	Properties
	FreeBytes int64  // 0 where that is not known
	Problem   string // why it cannot be used, "" where it can
}

// Library is a library that is opened at run time.
type Library struct {
	Name    string
	Path    string
	Version string
	Needed  bool   // without it no GPU can be used
	Problem string // why it cannot be used, "" where it can
}

// Probe looks at the driver, the GPUs and the libraries. To know the free memory of GPUs it makes a context on each, which takes a part of
// a second and some hundred MiB while it looks; without free it takes nothing.
func Probe(free bool) Report {
	var r Report
	path, version, err := openDriver()
	if err != nil {
		r.Problem = err.Error()
		return r
	}
	r.Driver, r.Version = path, dotted(version)
	if version < oldestToolkit*1000 {
		r.Problem = fmt.Sprintf("the driver is made for CUDA %s; meap needs %d or later", r.Version, oldestToolkit)
	}
	n, err := cu.NumDevices()
	if err != nil {
		r.Problem = fmt.Sprintf("count the GPUs: %v", fromCU(err))
	}
	for i := range n {
		r.GPUs = append(r.GPUs, probeGPU(i, free))
	}
	r.Libraries = []Library{probeLt(version), probeNVRTC(version)}
	for _, l := range r.Libraries {
		if l.Needed && l.Problem != "" {
			r.Problem = l.Problem
		}
	}
	return r
}

func probeGPU(i int, free bool) (g GPU) {
	dev, err := cu.GetDevice(i)
	if err == nil {
		g.Properties, err = properties(dev)
	}
	if err != nil {
		g.Problem = fromCU(err).Error()
		return g
	}
	if g.Major < oldestMajor {
		g.Problem = fmt.Sprintf("its compute capability %d.%d is below %d.0 (Ampere)", g.Major, g.Minor, oldestMajor)
		return g
	}
	if free {
		if g.FreeBytes, err = FreeBytes(i); err != nil {
			g.Problem = err.Error()
		}
	}
	return g
}

// FreeBytes returns the free memory of a GPU that Probe has found, beside the context that it makes to learn that.
func FreeBytes(ordinal int) (int64, error) {
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return 0, fromCU(err)
	}
	context, err := dev.RetainPrimaryCtx()
	if err != nil {
		return 0, fromCU(err)
	}
	defer func() { _ = dev.ReleasePrimaryCtx() }()
	var free, total C.size_t
	err = result(C.meap_mem_info(contextHandle(context), &free, &total))
	return int64(free), err
}

func probeLt(driver int) Library {
	l := Library{Name: "cuBLASLt", Needed: true}
	lib, lt, err := openLt(driver)
	if err != nil {
		l.Problem = err.Error()
		return l
	}
	v := int(C.meap_lt_version(lt))
	C.meap_lt_destroy(lt)
	l.Path, l.Version = lib.path, strconv.Itoa(v)
	if v >= 100000 { // since 11: major, two digits, two digits
		l.Version = fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
	}
	return l
}

func probeNVRTC(driver int) Library {
	l := Library{Name: "NVRTC"}
	lib, rtc, err := openNVRTC(driver)
	if err != nil {
		l.Problem = err.Error()
		return l
	}
	var major, minor C.int
	C.meap_nvrtc_version(rtc, &major, &minor)
	l.Path, l.Version = lib.path, fmt.Sprintf("%d.%d", int(major), int(minor))
	return l
}
