// Package graph is the layer between the model and the hardware.
//
// A model is written with the operators of a Builder (Linear, RMSNorm, RoPE, Attention, ...). Each operator is a typed
// Spec: attributes, a shape rule and, where it has one, a derivative, all in one file. Behind it stands a node of
// Gorgonia's expression graph, so that gorgonia.Grad builds the backward graph and gorgonia's TapeMachine can run
// everything as an oracle.
//
// Compile turns the nodes that some roots need into a Program: a list of kernels in a fixed order, with every
// intermediate tensor planned into one arena, that runs without allocating. Device is the only seam to the hardware: it
// owns memory and gives a Kernel for a Spec. Package naive is the specification of every kernel in plain loops; package
// cpu is the fast one.
//
// Panics: building a graph with wrong shapes is a programmer's mistake and panics with the operator and the shapes.
// Everything that depends on input, memory or hardware (Compile, Run, Upload, ...) returns errors.
package graph
