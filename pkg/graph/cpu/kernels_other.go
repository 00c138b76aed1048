//go:build !amd64 && !arm64

package cpu

// Other processors have plain Go only, so none of these is ever called there.

const noSIMD = "cpu: there are no machine-code kernels for this processor"

func simdTiles(ISA, bool) tiles { panic(noSIMD) }

func (t *tiles) packSIMD([]float32, int, side, []float32, int, bool, int, int, int, int) {
	panic(noSIMD)
}

func (t *tiles) mulSIMD([]float32, int, []float32, int, []float32, int, int, int, int, bool) {
	panic(noSIMD)
}

func (t *tiles) peakSIMD(gemmArgs) (operations int64) { panic(noSIMD) }

func runGemv(bool, *gemvArgs) { panic(noSIMD) }

func runVec(ISA, vecOp, *vecArgs) { panic(noSIMD) }

func runTile(ISA, tileOp, *tileArgs) { panic(noSIMD) }
