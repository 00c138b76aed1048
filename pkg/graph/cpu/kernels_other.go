//go:build !amd64

package cpu

// The machine-code kernels are of amd64 only. DetectISA returns Generic on other
// processors, so none of these is ever called there.

func gemmF32Rows14AVX512(*gemmArgs)   { panic("cpu: gemmF32Rows14AVX512 needs amd64") }
func gemmF32Rows4AVX512(*gemmArgs)    { panic("cpu: gemmF32Rows4AVX512 needs amd64") }
func gemmBF16Rows14AVX512(*gemmArgs)  { panic("cpu: gemmBF16Rows14AVX512 needs amd64") }
func gemmBF16Rows4AVX512(*gemmArgs)   { panic("cpu: gemmBF16Rows4AVX512 needs amd64") }
func gemmBF16AMX(*tilesArgs)          { panic("cpu: gemmBF16AMX needs amd64") }
func packTileRowsAAMX(*packArgs)      { panic("cpu: packTileRowsAAMX needs amd64") }
func packTileRowsBAMX(*packArgs)      { panic("cpu: packTileRowsBAMX needs amd64") }
func packTileColsAAMX(*packArgs)      { panic("cpu: packTileColsAAMX needs amd64") }
func packTileColsBAMX(*packArgs)      { panic("cpu: packTileColsBAMX needs amd64") }
func gemmF32AVX2(*tilesArgs)          { panic("cpu: gemmF32AVX2 needs amd64") }
func gemvAVX2(*gemvArgs)              { panic("cpu: gemvAVX2 needs amd64") }
func gemvRoundAVX2(*gemvArgs)         { panic("cpu: gemvRoundAVX2 needs amd64") }
func packRowsAVX512(*packArgs)        { panic("cpu: packRowsAVX512 needs amd64") }
func packRowsRoundAVX512(*packArgs)   { panic("cpu: packRowsRoundAVX512 needs amd64") }
func packRowsBF16AVX512(*packArgs)    { panic("cpu: packRowsBF16AVX512 needs amd64") }
func packRowsAVX2(*packArgs)          { panic("cpu: packRowsAVX2 needs amd64") }
func packRowsRoundAVX2(*packArgs)     { panic("cpu: packRowsRoundAVX2 needs amd64") }
func packColsAVX512(*packArgs)        { panic("cpu: packColsAVX512 needs amd64") }
func packColsRoundAVX512(*packArgs)   { panic("cpu: packColsRoundAVX512 needs amd64") }
func packColsBF16AVX512(*packArgs)    { panic("cpu: packColsBF16AVX512 needs amd64") }
func packColsAVX2(*packArgs)          { panic("cpu: packColsAVX2 needs amd64") }
func packColsRoundAVX2(*packArgs)     { panic("cpu: packColsRoundAVX2 needs amd64") }
func peakF32AVX512(*gemmArgs)         { panic("cpu: peakF32AVX512 needs amd64") }
func peakBF16AVX512(*gemmArgs)        { panic("cpu: peakBF16AVX512 needs amd64") }
func peakF32AVX2(*gemmArgs)           { panic("cpu: peakF32AVX2 needs amd64") }
func peakBF16AMX(*tilesArgs)          { panic("cpu: peakBF16AMX needs amd64") }
func expAVX512(*vecArgs)              { panic("cpu: expAVX512 needs amd64") }
func expScaleAVX512(*vecArgs)         { panic("cpu: expScaleAVX512 needs amd64") }
func expSumAVX512(*vecArgs)           { panic("cpu: expSumAVX512 needs amd64") }
func maxAVX512(*vecArgs)              { panic("cpu: maxAVX512 needs amd64") }
func swiGLUAVX512(*vecArgs)           { panic("cpu: swiGLUAVX512 needs amd64") }
func swiGLUGradAVX512(*vecArgs)       { panic("cpu: swiGLUGradAVX512 needs amd64") }
func axpyAVX512(*vecArgs)             { panic("cpu: axpyAVX512 needs amd64") }
func addAVX512(*vecArgs)              { panic("cpu: addAVX512 needs amd64") }
func scaleAVX512(*vecArgs)            { panic("cpu: scaleAVX512 needs amd64") }
func dotAVX512(*vecArgs)              { panic("cpu: dotAVX512 needs amd64") }
func scaleMulAVX512(*vecArgs)         { panic("cpu: scaleMulAVX512 needs amd64") }
func dot3AVX512(*vecArgs)             { panic("cpu: dot3AVX512 needs amd64") }
func rmsNormGradAVX512(*vecArgs)      { panic("cpu: rmsNormGradAVX512 needs amd64") }
func ropeAVX512(*vecArgs)             { panic("cpu: ropeAVX512 needs amd64") }
func adamWAVX512(*vecArgs)            { panic("cpu: adamWAVX512 needs amd64") }
func softmaxTileAVX512(*tileArgs)     { panic("cpu: softmaxTileAVX512 needs amd64") }
func softmaxTileGradAVX512(*tileArgs) { panic("cpu: softmaxTileGradAVX512 needs amd64") }
func expAVX2(*vecArgs)                { panic("cpu: expAVX2 needs amd64") }
func expScaleAVX2(*vecArgs)           { panic("cpu: expScaleAVX2 needs amd64") }
func expSumAVX2(*vecArgs)             { panic("cpu: expSumAVX2 needs amd64") }
func maxAVX2(*vecArgs)                { panic("cpu: maxAVX2 needs amd64") }
func swiGLUAVX2(*vecArgs)             { panic("cpu: swiGLUAVX2 needs amd64") }
func swiGLUGradAVX2(*vecArgs)         { panic("cpu: swiGLUGradAVX2 needs amd64") }
func axpyAVX2(*vecArgs)               { panic("cpu: axpyAVX2 needs amd64") }
func addAVX2(*vecArgs)                { panic("cpu: addAVX2 needs amd64") }
func scaleAVX2(*vecArgs)              { panic("cpu: scaleAVX2 needs amd64") }
func dotAVX2(*vecArgs)                { panic("cpu: dotAVX2 needs amd64") }
func scaleMulAVX2(*vecArgs)           { panic("cpu: scaleMulAVX2 needs amd64") }
func dot3AVX2(*vecArgs)               { panic("cpu: dot3AVX2 needs amd64") }
func rmsNormGradAVX2(*vecArgs)        { panic("cpu: rmsNormGradAVX2 needs amd64") }
func ropeAVX2(*vecArgs)               { panic("cpu: ropeAVX2 needs amd64") }
func adamWAVX2(*vecArgs)              { panic("cpu: adamWAVX2 needs amd64") }
func softmaxTileAVX2(*tileArgs)       { panic("cpu: softmaxTileAVX2 needs amd64") }
func softmaxTileGradAVX2(*tileArgs)   { panic("cpu: softmaxTileGradAVX2 needs amd64") }
