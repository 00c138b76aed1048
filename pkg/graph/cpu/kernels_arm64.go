package cpu

//go:noescape
func gemmF32NEON(args *tilesArgs)

//go:noescape
func gemvNEON(args *gemvArgs)

//go:noescape
func gemvRoundNEON(args *gemvArgs)

//go:noescape
func packRowsNEON(args *packArgs)

//go:noescape
func packRowsRoundNEON(args *packArgs)

//go:noescape
func packColsNEON(args *packArgs)

//go:noescape
func packColsRoundNEON(args *packArgs)

//go:noescape
func peakF32NEON(args *gemmArgs)

//go:noescape
func expNEON(args *vecArgs)

//go:noescape
func expScaleNEON(args *vecArgs)

//go:noescape
func expSumNEON(args *vecArgs)

//go:noescape
func maxNEON(args *vecArgs)

//go:noescape
func swiGLUNEON(args *vecArgs)

//go:noescape
func swiGLUGradNEON(args *vecArgs)

//go:noescape
func axpyNEON(args *vecArgs)

//go:noescape
func addNEON(args *vecArgs)

//go:noescape
func scaleNEON(args *vecArgs)

//go:noescape
func dotNEON(args *vecArgs)

//go:noescape
func scaleMulNEON(args *vecArgs)

//go:noescape
func dot3NEON(args *vecArgs)

//go:noescape
func rmsNormGradNEON(args *vecArgs)

//go:noescape
func ropeNEON(args *vecArgs)

//go:noescape
func widenNEON(args *vecArgs)

//go:noescape
func narrowNEON(args *vecArgs)

//go:noescape
func adamWNEON(args *vecArgs)

//go:noescape
func softmaxTileNEON(args *tileArgs)

//go:noescape
func softmaxTileGradNEON(args *tileArgs)

func runVec(_ ISA, op vecOp, a *vecArgs) {
	switch op {
	case opExp:
		expNEON(a)
	case opExpScale:
		expScaleNEON(a)
	case opExpSum:
		expSumNEON(a)
	case opMax:
		maxNEON(a)
	case opSwiGLU:
		swiGLUNEON(a)
	case opSwiGLUGrad:
		swiGLUGradNEON(a)
	case opAxpy:
		axpyNEON(a)
	case opAdd:
		addNEON(a)
	case opScale:
		scaleNEON(a)
	case opDot:
		dotNEON(a)
	case opScaleMul:
		scaleMulNEON(a)
	case opDot3:
		dot3NEON(a)
	case opRMSNormGrad:
		rmsNormGradNEON(a)
	case opRoPE:
		ropeNEON(a)
	case opAdamW:
		adamWNEON(a)
	case opWiden:
		widenNEON(a)
	case opNarrow:
		narrowNEON(a)
	}
}

func runTile(_ ISA, op tileOp, t *tileArgs) {
	if op == opSoftmaxTile {
		softmaxTileNEON(t)
	} else {
		softmaxTileGradNEON(t)
	}
}
