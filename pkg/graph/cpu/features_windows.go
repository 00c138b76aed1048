package cpu

import "os"

// modelName returns what Windows puts into every process's environment: family,
// model and stepping.
func modelName() string { return os.Getenv("PROCESSOR_IDENTIFIER") }
