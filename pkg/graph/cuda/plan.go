package cuda

import "meap/pkg/graph"

// Planner is a graph.Planner of a GPU, on machines without one too.
type Planner struct{}

// Storage implements graph.Planner.
func (Planner) Storage(p graph.Precision) graph.Dtype { return p.Operands() }

// Adds implements graph.Adder: cuBLASLt adds while it writes, and so do these kernels.
func (Planner) Adds(graph.Spec) bool { return true }

// Remakes implements graph.Remaker: what a kernel does beside reading and writing costs it nothing.
func (Planner) Remakes(graph.Spec) bool { return true }

// Overwrites implements graph.Overwriter.
func (Planner) Overwrites(op graph.Spec, operand int) bool { return graph.ReadBefore(op, operand) }

// DeviceBytes implements graph.Planner. What the driver takes for a context and for the kernels' code, some hundred MiB, is not in it.
func (Planner) DeviceBytes() int { return workspaceBytes + stageCount*stageBytes }

// KernelBytes implements graph.Planner. It counts what the functions of ops_*.go lay out.
func (Planner) KernelBytes(op graph.Spec, in, out []graph.Desc) (own, scratch int) {
	var l layout
	switch s := op.(type) {
	case graph.Linear:
		l.copies(s.Precision.Operands(), in[:2]...)
		if s.Bias && out[0].Dtype == graph.BF16 {
			l.add(4 * out[0].Elems())
		}
	case graph.LinearDX:
		l.copies(s.Precision.Operands(), in[:2]...)
	case graph.LinearDW:
		l.copies(s.Precision.Operands(), in...)
	case graph.ColumnSum:
		_, groups := columnSumRows(in[0].Shape[0])
		l.add(4 * groups * in[0].Shape[1])
	case graph.RMSNormGrad:
		_, groups := rmsNormGradRows(in[0].Shape[0])
		l.add(4 * groups * in[0].Shape[1])
	case graph.Attention:
		l.copies(s.Precision.Operands(), in[0], in[1], in[2], out[0])
		l.add(spanBytes(in[0].Shape[0]/s.Seq, s.Seq))
	case graph.AttentionGrad:
		l.copies(s.Precision.Operands(), in[0], in[1], in[2], in[3], in[5], out[0], out[1], out[2])
		l.add(spanBytes(in[0].Shape[0]/s.Seq, s.Seq))
		l.add(4 * in[0].Shape[0] * s.Heads)
	case graph.EmbeddingGrad:
		laySort(&l, in[0].Shape[0])
	case graph.LinearCrossEntropy:
		t := s.Precision.Operands()
		l.copies(t, in[:2]...)
		l.add(4 * logitRows(in[0].Shape[0], in[1].Shape[0]) * in[1].Shape[0])
	case graph.LinearCrossEntropyGrad:
		t, logits := s.Precision.Operands(), logitRows(in[0].Shape[0], in[1].Shape[0])*in[1].Shape[0]
		l.copies(t, in[:2]...)
		l.add(4 * logits)
		if t == graph.BF16 {
			l.add(2 * logits)
		}
	case graph.GradNorm:
		var table layout
		layGradNormTable(&table, len(in))
		own = table.bytes
		l.add(8 * normBlocks(in))
		l.add(8 * len(in))
	}
	return own, l.bytes
}

const (
	// workspaceBytes is the memory in which cuBLASLt joins sums that it has cut into pieces; what NVIDIA recommends for Hopper.
	workspaceBytes = 32 << 20

	stageBytes = 1 << 20 // of a stage: uploads and downloads go in pieces of this size
	stageCount = 16

	// logitsBytes is the memory for the fp32 logits that exist at a time. More tokens at a time mean larger products and fewer passes
	// over the head's gradient, which is as large as the head.
	logitsBytes = 512 << 20

	normChunk   = 16384 // MEAP_NORM_CHUNK
	sortBits    = 8     // MEAP_SORT_BITS
	sortTile    = 1024  // MEAP_SORT_TILE
	spanQueries = 64    // MEAP_SPAN
)

// alignment of addresses that the driver allocates, and of tensors in scratch memory.
const alignment = 256

// layout cuts scratch memory into tensors.
type layout struct{ bytes int }

// add returns the offset of a tensor of so many bytes.
func (l *layout) add(bytes int) int {
	at := l.bytes
	l.bytes += ceilDiv(bytes, alignment) * alignment
	return at
}

// copies makes room for a copy in the type t of each tensor that has another.
func (l *layout) copies(t graph.Dtype, tensors ...graph.Desc) {
	for _, x := range tensors {
		if x.Dtype != t {
			l.add(x.Elems() * t.Size())
		}
	}
}

// rmsNormGradRows returns how many of n rows a block sums, and the number of blocks.
func rmsNormGradRows(n int) (rows, groups int) {
	rows = max(8, ceilDiv(n, 1056))
	return rows, ceilDiv(n, rows)
}

// columnSumRows is the same for ColumnSum.
func columnSumRows(n int) (rows, groups int) {
	rows = max(256, ceilDiv(n, 65535))
	return rows, ceilDiv(n, rows)
}

// spanBytes returns the size of what summarises the starts of a batch.
func spanBytes(batch, seq int) int { return 8 * batch * ceilDiv(seq, spanQueries) }

// logitRows is how many tokens' logits fit: all, or a multiple of 128.
func logitRows(n, vocab int) int { return min(n, max(128, logitsBytes/4/max(1, vocab)/128*128)) }

// laySort makes room for sorting n tokens: their keys and numbers before and after a pass, and the counts of each block.
func laySort(l *layout, n int) (keys, tokens [2]int, counts int) {
	for i := range keys {
		keys[i], tokens[i] = l.add(4*n), l.add(4*n)
	}
	return keys, tokens, l.add(4 * ceilDiv(n, sortTile) << sortBits)
}

// layGradNormTable makes room for addresses, sizes and first blocks of so many tensors.
func layGradNormTable(l *layout, tensors int) (addresses, sizes, first int) {
	return l.add(8 * tensors), l.add(8 * tensors), l.add(4 * (tensors + 1))
}

// normBlocks returns how many blocks sum the squares of the tensors.
func normBlocks(tensors []graph.Desc) int {
	n := 0
	for _, t := range tensors {
		n += ceilDiv(t.Elems(), normChunk)
	}
	return n
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
