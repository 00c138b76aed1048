package main

import (
	"github.com/spf13/cobra"
)

func newGenerate(o *options) *cobra.Command {
	return &cobra.Command{Use: "generate"}
}
