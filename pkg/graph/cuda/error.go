//go:build gpu && linux

package cuda

// #include "host.h"
import "C"

import (
	"fmt"
	"reflect"
)

// Error is what the CUDA driver returned.
type Error struct {
	Code int    // a CUresult
	Name string // as CUDA writes it, such as CUDA_ERROR_OUT_OF_MEMORY
	Text string
}

func (e *Error) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("CUDA error %d", e.Code)
	}
	return fmt.Sprintf("%s (%s, %d)", e.Text, e.Name, e.Code)
}

const (
	errorOutOfMemory = 2
	errorNoDevice    = 100
)

// result turns a CUresult into an error.
func result(r C.int) error {
	if r == 0 {
		return nil
	}
	return &Error{Code: int(r), Name: C.GoString(C.meap_error_name(r)), Text: C.GoString(C.meap_error_text(r))}
}

// fromCU does the same with an error of gorgonia.org/cu, whose type is not exported but is a CUresult.
func fromCU(err error) error {
	if err == nil {
		return nil
	}
	if v := reflect.ValueOf(err); v.Kind() == reflect.Int {
		return result(C.int(v.Int()))
	}
	return err
}

// lasting says that an error ends the use of the GPU by this process: everything that is called after it fails too.
func (e *Error) lasting() bool {
	switch e.Code {
	case 214, 220, // memory and links that cannot be corrected
		700,                          // illegal address
		702,                          // timeout
		709,                          // the context is destroyed
		710,                          // assertion
		714, 715, 716, 717, 718, 719: // illegal instructions and addresses, unspecified failure
		return true
	}
	return false
}

// LostError says that the GPU cannot be used any more by this process.
type LostError struct {
	Device string
	While  string // where it was noticed; kernels run late, so the cause may lie before
	Err    *Error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("%s failed while %s: %v; start the program again (training resumes from its latest checkpoint), and where it fails again, "+
		"with CUDA_LAUNCH_BLOCKING=1, which makes the kernel at fault known", e.Device, e.While, e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }

// check explains an error of the driver. After one that lasts, every call gives it again.
func (d *Device) check(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	while := fmt.Sprintf(format, args...)
	e, ok := err.(*Error)
	if ok && e.lasting() {
		if d.lost == nil {
			d.lost = &LostError{Device: d.Name(), While: while, Err: e}
		}
		return d.lost
	}
	return fmt.Errorf("%s: %w", while, err)
}
