package graph

import (
	"fmt"

	G "gorgonia.org/gorgonia"
)

// Grad adds the backward graph of the scalar loss and returns the gradient of every node of wrt. It can be called once per
// graph, for all parameters at once.
//
// The loss that it returns has the same value as the one it was given, but is read from the gradient of
// LinearCrossEntropy where there is one, so that the forward operator drops out of the program.
func (b *Builder) Grad(loss *Node, wrt ...*Node) (*Node, []*Node, error) {
	grads, err := G.Grad(loss, wrt...)
	if err != nil {
		return nil, nil, fmt.Errorf("differentiate the graph: %w", err)
	}
	return b.lossFromGrad(loss), grads, nil
}

// lossFromGrad finds loss = WeightedSum(LinearCrossEntropy(x, head, labels), scale) whose gradient operator has the same
// x, head and labels, and sums the nll of that one instead.
func (b *Builder) lossFromGrad(loss *Node) *Node {
	sum, ok := loss.Op().(*operator)
	if !ok || sum.spec != (Spec)(WeightedSum{}) {
		return loss
	}
	in := children(loss)
	if ce, ok := in[0].Op().(*operator); !ok {
		return loss
	} else if _, ok := ce.spec.(LinearCrossEntropy); !ok {
		return loss
	}
	operands := children(in[0])
	for _, n := range b.g.AllNodes() {
		if op, ok := n.Op().(*operator); ok {
			if _, ok := op.spec.(LinearCrossEntropyGrad); ok && sameNodes(children(n)[:3], operands) {
				return b.WeightedSum(b.Aux(n, 2), in[1])
			}
		}
	}
	return loss
}
