package graphtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meap/pkg/graph"
	"meap/pkg/graph/naive"
)

func TestNaive(t *testing.T) {
	Conformance(t, naive.Device[float32]{}, Options{})
}

func TestHalf(t *testing.T) {
	Conformance(t, NewHalf(), Options{Storage: graph.BF16})
}

// Every exported type of package graph with a shape rule is an operator and must have cases here.
func TestEveryOperatorHasCases(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("..", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "Infer" {
				continue
			}
			if name, ok := f.Recv.List[0].Type.(*ast.Ident); ok && name.IsExported() {
				declared = append(declared, name.Name)
			}
		}
	}
	if len(declared) < 20 {
		t.Fatalf("found only the operators %v", declared)
	}
	var tested []string
	for i, op := range operators {
		tested = append(tested, graph.Kind(op.spec))
		if len(casesOf(i, 0)) == 0 {
			t.Errorf("%s has no cases", graph.Kind(op.spec))
		}
	}
	slices.Sort(declared)
	slices.Sort(tested)
	if !slices.Equal(declared, tested) {
		t.Errorf("operators of package graph:\n%v\noperators with cases:\n%v", declared, tested)
	}
}
