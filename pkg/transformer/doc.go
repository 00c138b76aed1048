// Package transformer is the Llama-style decoder that meap trains: its configuration and presets, its weights under the names
// that Hugging Face's tools use, the architecture as a graph, the model folder on disk, generation with a KV cache, and scoring.
//
// model.go holds the architecture, weights.go every weight's name, shape and initialisation. The package does not know which
// device it runs on; that is behind graph.Device.
//
// Panics: Build and its like panic on a Config that Validate refuses, as package graph does while a graph is being built.
// Everything else returns errors.
package transformer
