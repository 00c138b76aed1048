package cpu

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
func widenAVX512(args *vecArgs)

//go:noescape
func narrowAVX512(args *vecArgs)

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
func widenAVX2(args *vecArgs)

//go:noescape
func narrowAVX2(args *vecArgs)

//go:noescape
func adamWAVX2(args *vecArgs)

//go:noescape
func softmaxTileAVX2(args *tileArgs)

//go:noescape
func softmaxTileGradAVX2(args *tileArgs)

func runVec(isa ISA, op vecOp, a *vecArgs) {
	if isa == AVX512 {
		switch op {
		case opExp:
			expAVX512(a)
		case opExpScale:
			expScaleAVX512(a)
		case opExpSum:
			expSumAVX512(a)
		case opMax:
			maxAVX512(a)
		case opSwiGLU:
			swiGLUAVX512(a)
		case opSwiGLUGrad:
			swiGLUGradAVX512(a)
		case opAxpy:
			axpyAVX512(a)
		case opAdd:
			addAVX512(a)
		case opScale:
			scaleAVX512(a)
		case opDot:
			dotAVX512(a)
		case opScaleMul:
			scaleMulAVX512(a)
		case opDot3:
			dot3AVX512(a)
		case opRMSNormGrad:
			rmsNormGradAVX512(a)
		case opRoPE:
			ropeAVX512(a)
		case opAdamW:
			adamWAVX512(a)
		case opWiden:
			widenAVX512(a)
		case opNarrow:
			narrowAVX512(a)
		}
		return
	}
	switch op {
	case opExp:
		expAVX2(a)
	case opExpScale:
		expScaleAVX2(a)
	case opExpSum:
		expSumAVX2(a)
	case opMax:
		maxAVX2(a)
	case opSwiGLU:
		swiGLUAVX2(a)
	case opSwiGLUGrad:
		swiGLUGradAVX2(a)
	case opAxpy:
		axpyAVX2(a)
	case opAdd:
		addAVX2(a)
	case opScale:
		scaleAVX2(a)
	case opDot:
		dotAVX2(a)
	case opScaleMul:
		scaleMulAVX2(a)
	case opDot3:
		dot3AVX2(a)
	case opRMSNormGrad:
		rmsNormGradAVX2(a)
	case opRoPE:
		ropeAVX2(a)
	case opAdamW:
		adamWAVX2(a)
	case opWiden:
		widenAVX2(a)
	case opNarrow:
		narrowAVX2(a)
	}
}

func runTile(isa ISA, op tileOp, t *tileArgs) {
	switch {
	case isa == AVX512 && op == opSoftmaxTile:
		softmaxTileAVX512(t)
	case isa == AVX512:
		softmaxTileGradAVX512(t)
	case op == opSoftmaxTile:
		softmaxTileAVX2(t)
	default:
		softmaxTileGradAVX2(t)
	}
}
