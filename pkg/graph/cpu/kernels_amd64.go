package cpu

//go:generate go run ./gen csrc/gemm_avx512.c gemm_avx512_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
//go:generate go run ./gen csrc/gemm_avx512bf16.c gemm_avx512bf16_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma
//go:generate go run ./gen csrc/gemm_avx2.c gemm_avx2_amd64.s clang-19 -mavx2 -mfma

//go:noescape
func gemmF32Rows14AVX512(args *gemmArgs)

//go:noescape
func gemmF32Rows4AVX512(args *gemmArgs)

//go:noescape
func gemmBF16Rows14AVX512(args *gemmArgs)

//go:noescape
func gemmBF16Rows4AVX512(args *gemmArgs)

//go:noescape
func gemmF32Rows6AVX2(args *gemmArgs)

//go:noescape
func gemmF32Rows2AVX2(args *gemmArgs)

//go:noescape
func packRowsAVX512(args *packArgs)

//go:noescape
func packRowsRoundAVX512(args *packArgs)

//go:noescape
func packRowsBF16AVX512(args *packArgs)

//go:noescape
func packRowsAVX2(args *packArgs)

//go:noescape
func packRowsRoundAVX2(args *packArgs)

//go:noescape
func packColsAVX512(args *packArgs)

//go:noescape
func packColsRoundAVX512(args *packArgs)

//go:noescape
func packColsBF16AVX512(args *packArgs)

//go:noescape
func packColsAVX2(args *packArgs)

//go:noescape
func packColsRoundAVX2(args *packArgs)
