//go:build gpu && linux

package cuda

// The arguments of the kernels, as csrc/args.h declares and explains them; a test compares names, offsets and constants. A pointer is
// an address of the device's memory.

type addr = uintptr

const (
	blockThreads = 256 // MEAP_BLOCK; more are in plan.go

	forwardTile64  = 128 // MEAP_FORWARD_TILE_64
	forwardTile128 = 64  // MEAP_FORWARD_TILE_128
	gradQTile64    = 128 // MEAP_GRAD_Q_TILE_64
	gradQTile128   = 64  // MEAP_GRAD_Q_TILE_128
	gradKVTile64   = 128 // MEAP_GRAD_KV_TILE_64
	gradKVTile128  = 64  // MEAP_GRAD_KV_TILE_128
	forwardTile90  = 192 // MEAP_FORWARD_TILE_SM90
	gradQTile90    = 128 // MEAP_GRAD_Q_TILE_SM90
	gradKVTile90   = 128 // MEAP_GRAD_KV_TILE_SM90
	deltaTile      = 128 // MEAP_DELTA_TILE
	tensorThreads  = 128 // MEAP_TENSOR_THREADS
	generalThreads = 256 // MEAP_GENERAL_THREADS

	fewPlaces   = 32    // MEAP_FEW_PLACES
	logitsHeld  = 16384 // MEAP_LOGITS_HELD
	productTile = 64    // MEAP_PRODUCT_TILE
)

type castArgs struct {
	x, y addr
	n    int64
}

type addArgs struct {
	x, y, z addr
	n       int64
}

type accumulateArgs struct {
	acc, g addr
	n      int64
}

type swiGLUArgs struct {
	gate, up, y addr
	n           int64
}

type swiGLUGradArgs struct {
	gate, up, dy, dgate, dup, y addr
	n                           int64
}

type biasArgs struct {
	bias, x, y addr
	n          int64
	width      int32
}

type roPEArgs struct {
	x, cos, sin, pos, y  addr
	n                    int64
	width, half, inverse int32
}

type embeddingArgs struct {
	table, ids, y addr
	n             int64
	vocab, dim    int32
}

type weightedSumGradArgs struct {
	scale, dy, y addr
	n            int64
}

type adamWArgs struct {
	p, g, m, v, p16, report, hyper                     addr
	n                                                  int64
	beta1, beta2, beta1c, beta2c, epsilon, decay, clip float32
}

type rmsNormArgs struct {
	x, w, y, rstd addr
	n             int64
	dim           int32
	eps           float32
}

type rmsNormGradArgs struct {
	x, w, rstd, dy, more, dx, y, partial addr
	n                                    int64
	dim, rows                            int32
}

type columnSumArgs struct {
	dy, partial addr
	n           int64
	width, rows int32
}

type reduceRowsArgs struct {
	partial, out     addr
	rows, width, acc int32
}

type weightedSumArgs struct {
	x, scale, y addr
	n           int64
}

type gradNormArgs struct {
	grads, sizes, first, partial, total, norm, squares addr
	count                                              int32
}

type stepReportArgs struct {
	loss, norm, halted, report addr
}

type crossEntropyArgs struct {
	logits, labels, dnll, nll, dlogits addr
	n, logitsStride, dlogitsStride     int64
	vocab, more                        int32
}

type sortArgs struct {
	keysIn, tokensIn, keysOut, tokensOut, counts addr
	n, shift, blocks                             int32
}

type embeddingGradArgs struct {
	dy, ids, tokens, dtable addr
	n, vocab, dim           int32
}

type attentionSpansArgs struct {
	starts, spans addr
	batch, seq    int32
}

type attentionArgs struct {
	q, k, v, starts, spans, out, lse    addr
	qStride, kvStride                   int64
	batch, seq, heads, kvHeads, headDim int32
	scale                               float32
}

type attentionDeltaArgs struct {
	out, dout, delta           addr
	qStride                    int64
	batch, seq, heads, headDim int32
}

type attentionGradArgs struct {
	q, k, v, dout, lse, delta, starts, spans, dq, dk, dv addr
	qStride, kvStride                                    int64
	batch, seq, heads, kvHeads, headDim                  int32
	scale                                                float32
}

type cacheWriteArgs struct {
	k, v, past, kcache, vcache  addr
	batch, seq, capacity, width int32
}

type cachedAttentionArgs struct {
	q, kcache, vcache, past, out, partial                 addr
	batch, seq, heads, kvHeads, headDim, capacity, splits int32
	scale                                                 float32
}

type productArgs struct {
	a, b, c, d                   addr
	aRow, aColumn, bRow, bColumn int64
	m, n, k                      int32
}
