// Package graphtest is the conformance suite of graph.Device: every operator, at shapes that fit no tile, against package
// naive in float64.
//
// A device passes when, for every case,
//
//   - each result is as near to the float64 truth as float32 arithmetic in any order of summation allows;
//   - two runs give the same bits;
//   - nothing outside the outputs is written, and no operand changes but those that the operator is there to change;
//   - outputs are overwritten whatever they held before (they hold NaN), or added to, in the accumulating forms;
//   - a row's result has the same bits whatever rows stand beside it (batch invariance), in the operators of the forward pass
//     and in those outputs of the backward pass that belong to one row.
//
// With -short, which suits the race detector, a quarter of the cases runs.
//
// The suite uses nothing but the Device interface, so it runs on devices with memory of their own.
//
// # Tolerances
//
// An error is measured against the magnitude of the terms that were summed, not against the sum: a dot product of n terms
// computed in float32 (unit roundoff u = 6e-8) has an error of at most n u sum|terms| and of about sqrt(n) u sum|terms| in
// practice, however much of the sum cancels. 1e-5 is that for n = 1000 with room for a fast exponential (relative error 1e-6);
// no blunder, such as a forgotten term or an operand rounded to bfloat16 (4e-3), hides under it. Sums that the operators'
// definitions take in float64, and element-wise arithmetic, must be within 1e-6.
//
// Activations that a device stores in bfloat16 (Options.Storage) are held to the rounding of that type; their operands are such numbers,
// for the truth as well.
//
// Matrix products with bf16 operands see the same rounded operands as the truth does, so the float32 tolerance holds for them.
// Attention with bf16 operands, where kernels may round the probabilities too, is held to 2e-2; the gradient of the
// cross-entropy, where a last-bit difference decides how a term is rounded, to 1e-2.
package graphtest
