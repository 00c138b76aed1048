// Package source says which files the CUDA kernels are compiled from, and their hash.
package source

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
)

// Files lists the sources in the folder csrc, by name.
func Files(csrc fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(csrc, ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		switch path.Ext(e.Name()) {
		case ".h", ".cuh", ".cu":
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Hash returns the SHA-256 of the names, sizes and contents of all sources.
func Hash(csrc fs.FS) (string, error) {
	names, err := Files(csrc)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range names {
		text, err := fs.ReadFile(csrc, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(text))
		h.Write(text)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
