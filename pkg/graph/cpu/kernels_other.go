//go:build !amd64

package cpu

// The machine-code kernels are of amd64 only. DetectISA returns Generic on other
// processors, so none of these is ever called there.

func gemmF32Rows14AVX512(*gemmArgs)  { panic("cpu: gemmF32Rows14AVX512 needs amd64") }
func gemmF32Rows4AVX512(*gemmArgs)   { panic("cpu: gemmF32Rows4AVX512 needs amd64") }
func gemmBF16Rows14AVX512(*gemmArgs) { panic("cpu: gemmBF16Rows14AVX512 needs amd64") }
func gemmBF16Rows4AVX512(*gemmArgs)  { panic("cpu: gemmBF16Rows4AVX512 needs amd64") }
func gemmF32Rows6AVX2(*gemmArgs)     { panic("cpu: gemmF32Rows6AVX2 needs amd64") }
func gemmF32Rows2AVX2(*gemmArgs)     { panic("cpu: gemmF32Rows2AVX2 needs amd64") }
func packRowsAVX512(*packArgs)       { panic("cpu: packRowsAVX512 needs amd64") }
func packRowsRoundAVX512(*packArgs)  { panic("cpu: packRowsRoundAVX512 needs amd64") }
func packRowsBF16AVX512(*packArgs)   { panic("cpu: packRowsBF16AVX512 needs amd64") }
func packRowsAVX2(*packArgs)         { panic("cpu: packRowsAVX2 needs amd64") }
func packRowsRoundAVX2(*packArgs)    { panic("cpu: packRowsRoundAVX2 needs amd64") }
func packColsAVX512(*packArgs)       { panic("cpu: packColsAVX512 needs amd64") }
func packColsRoundAVX512(*packArgs)  { panic("cpu: packColsRoundAVX512 needs amd64") }
func packColsBF16AVX512(*packArgs)   { panic("cpu: packColsBF16AVX512 needs amd64") }
func packColsAVX2(*packArgs)         { panic("cpu: packColsAVX2 needs amd64") }
func packColsRoundAVX2(*packArgs)    { panic("cpu: packColsRoundAVX2 needs amd64") }
