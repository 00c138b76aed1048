package cpu

//go:generate go run ./gen csrc/gemm_avx512.c gemm_avx512_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
//go:generate go run ./gen csrc/gemm_avx512bf16.c gemm_avx512bf16_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma
//go:generate go run ./gen csrc/gemm_amx.c gemm_amx_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma -mamx-tile -mamx-bf16
//go:generate go run ./gen csrc/gemm_avx2.c gemm_avx2_amd64.s clang-19 -mavx2 -mfma
//go:generate go run ./gen csrc/gemv_avx2.c gemv_avx2_amd64.s clang-19 -mavx2 -mfma
//go:generate go run ./gen csrc/vec_avx512.c vec_avx512_amd64.s clang-19 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
//go:generate go run ./gen csrc/vec_avx2.c vec_avx2_amd64.s clang-19 -mavx2 -mfma

//go:noescape
func gemmF32Rows14AVX512(args *gemmArgs)

//go:noescape
func gemmF32Rows4AVX512(args *gemmArgs)

//go:noescape
func gemmBF16Rows14AVX512(args *gemmArgs)

//go:noescape
func gemmBF16Rows4AVX512(args *gemmArgs)

//go:noescape
func gemmBF16AMX(args *tilesArgs)

//go:noescape
func packTileRowsAAMX(args *packArgs)

//go:noescape
func packTileRowsBAMX(args *packArgs)

//go:noescape
func packTileColsAAMX(args *packArgs)

//go:noescape
func packTileColsBAMX(args *packArgs)

//go:noescape
func gemmF32AVX2(args *tilesArgs)

//go:noescape
func gemvAVX2(args *gemvArgs)

//go:noescape
func gemvRoundAVX2(args *gemvArgs)

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

//go:noescape
func peakF32AVX512(args *gemmArgs)

//go:noescape
func peakBF16AVX512(args *gemmArgs)

//go:noescape
func peakF32AVX2(args *gemmArgs)

//go:noescape
func peakBF16AMX(args *tilesArgs)

//go:noescape
func expAVX512(args *vecArgs)

//go:noescape
func expScaleAVX512(args *vecArgs)

//go:noescape
func expSumAVX512(args *vecArgs)

//go:noescape
func maxAVX512(args *vecArgs)

//go:noescape
func swiGLUAVX512(args *vecArgs)

//go:noescape
func swiGLUGradAVX512(args *vecArgs)

//go:noescape
func axpyAVX512(args *vecArgs)

//go:noescape
func addAVX512(args *vecArgs)

//go:noescape
func scaleAVX512(args *vecArgs)

//go:noescape
func dotAVX512(args *vecArgs)

//go:noescape
func scaleMulAVX512(args *vecArgs)

//go:noescape
func dot3AVX512(args *vecArgs)

//go:noescape
func rmsNormGradAVX512(args *vecArgs)

//go:noescape
func ropeAVX512(args *vecArgs)

//go:noescape
func adamWAVX512(args *vecArgs)

//go:noescape
func softmaxTileAVX512(args *tileArgs)

//go:noescape
func softmaxTileGradAVX512(args *tileArgs)

//go:noescape
func expAVX2(args *vecArgs)

//go:noescape
func expScaleAVX2(args *vecArgs)

//go:noescape
func expSumAVX2(args *vecArgs)

//go:noescape
func maxAVX2(args *vecArgs)

//go:noescape
func swiGLUAVX2(args *vecArgs)

//go:noescape
func swiGLUGradAVX2(args *vecArgs)

//go:noescape
func axpyAVX2(args *vecArgs)

//go:noescape
func addAVX2(args *vecArgs)

//go:noescape
func scaleAVX2(args *vecArgs)

//go:noescape
func dotAVX2(args *vecArgs)

//go:noescape
func scaleMulAVX2(args *vecArgs)

//go:noescape
func dot3AVX2(args *vecArgs)

//go:noescape
func rmsNormGradAVX2(args *vecArgs)

//go:noescape
func ropeAVX2(args *vecArgs)

//go:noescape
func adamWAVX2(args *vecArgs)

//go:noescape
func softmaxTileAVX2(args *tileArgs)

//go:noescape
func softmaxTileGradAVX2(args *tileArgs)
