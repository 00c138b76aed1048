//go:build gpu && linux

package cuda

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mirrors are the Go structs by the names that csrc/args.h has for them.
var mirrors = map[string]any{
	"CastArgs": castArgs{}, "AddArgs": addArgs{}, "AccumulateArgs": accumulateArgs{}, "SwiGLUArgs": swiGLUArgs{},
	"SwiGLUGradArgs": swiGLUGradArgs{}, "BiasArgs": biasArgs{}, "RoPEArgs": roPEArgs{}, "EmbeddingArgs": embeddingArgs{},
	"WeightedSumGradArgs": weightedSumGradArgs{}, "AdamWArgs": adamWArgs{}, "RMSNormArgs": rmsNormArgs{}, "RMSNormGradArgs": rmsNormGradArgs{},
	"ColumnSumArgs": columnSumArgs{}, "ReduceRowsArgs": reduceRowsArgs{}, "WeightedSumArgs": weightedSumArgs{}, "GradNormArgs": gradNormArgs{},
	"StepReportArgs": stepReportArgs{}, "CrossEntropyArgs": crossEntropyArgs{}, "SortArgs": sortArgs{}, "EmbeddingGradArgs": embeddingGradArgs{},
	"AttentionSpansArgs": attentionSpansArgs{}, "AttentionArgs": attentionArgs{}, "AttentionDeltaArgs": attentionDeltaArgs{},
	"AttentionGradArgs": attentionGradArgs{}, "CacheWriteArgs": cacheWriteArgs{}, "CachedAttentionArgs": cachedAttentionArgs{},
	"ProductArgs": productArgs{},
}

func header(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("csrc/args.h")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`//[^\n]*`).ReplaceAllString(string(text), "")
}

// field is a member of a struct in the order of the declaration.
type field struct {
	name   string
	offset int
	kind   string // pointer, int64, int32, float32
}

// parse reads the structs of the header, laid out as C does on 64-bit machines.
func parse(text string) map[string][]field {
	out := map[string][]field{}
	for _, m := range regexp.MustCompile(`(?s)typedef struct \{(.*?)\} (\w+);`).FindAllStringSubmatch(text, -1) {
		var fs []field
		at := 0
		for _, decl := range strings.Split(m[1], ";") {
			kind, size := "", 8
			switch {
			case strings.Contains(decl, "*"): // where one of several names is a pointer all are
				kind = "pointer"
			case strings.Contains(decl, "long long"):
				kind = "int64"
			case strings.Contains(decl, "int "):
				kind, size = "int32", 4
			case strings.Contains(decl, "float "):
				kind, size = "float32", 4
			}
			for _, part := range strings.Split(decl, ",") {
				if words := regexp.MustCompile(`\w+`).FindAllString(part, -1); len(words) > 0 {
					at = (at + size - 1) / size * size
					fs = append(fs, field{words[len(words)-1], at, kind})
					at += size
				}
			}
		}
		out[m[2]] = fs
	}
	return out
}

// The kernels read these bytes: a field that moves is a wrong result.
func TestArgumentsMatchTheHeader(t *testing.T) {
	declared := parse(header(t))
	if len(declared) != len(mirrors) {
		t.Errorf("the header has %d structs, args.go %d", len(declared), len(mirrors))
	}
	for name, want := range declared {
		m, ok := mirrors[name]
		if !ok {
			t.Errorf("%s has no mirror", name)
			continue
		}
		typ := reflect.TypeOf(m)
		if typ.NumField() != len(want) {
			t.Errorf("%s has %d fields, want %d", typ, typ.NumField(), len(want))
			continue
		}
		for i, w := range want {
			f := typ.Field(i)
			kind := f.Type.Kind().String()
			if kind == "uintptr" {
				kind = "pointer"
			}
			if g := (field{strings.ToLower(f.Name), int(f.Offset), kind}); g != (field{strings.ToLower(strings.ReplaceAll(w.name, "_", "")), w.offset, w.kind}) {
				t.Errorf("%s field %d: %v, want %v", typ, i, g, w)
			}
		}
	}
}

func TestConstantsMatchTheHeader(t *testing.T) {
	text := header(t)
	for name, v := range map[string]int{
		"MEAP_BLOCK": blockThreads, "MEAP_NORM_CHUNK": normChunk, "MEAP_SORT_BITS": sortBits, "MEAP_SORT_TILE": sortTile, "MEAP_SPAN": spanQueries,
		"MEAP_FORWARD_TILE_64": forwardTile64, "MEAP_FORWARD_TILE_128": forwardTile128, "MEAP_GRAD_Q_TILE_64": gradQTile64,
		"MEAP_GRAD_Q_TILE_128": gradQTile128, "MEAP_GRAD_KV_TILE_64": gradKVTile64, "MEAP_GRAD_KV_TILE_128": gradKVTile128,
		"MEAP_FORWARD_TILE_SM90": forwardTile90, "MEAP_GRAD_Q_TILE_SM90": gradQTile90, "MEAP_GRAD_KV_TILE_SM90": gradKVTile90,
		"MEAP_FORWARD_SHARED_SM90": forwardShared90, "MEAP_GRAD_Q_SHARED_SM90": gradQShared90, "MEAP_GRAD_KV_SHARED_SM90": gradKVShared90,
		"MEAP_DELTA_TILE": deltaTile, "MEAP_LOGITS_HELD": logitsHeld, "MEAP_FEW_PLACES": fewPlaces, "MEAP_TENSOR_THREADS": tensorThreads, "MEAP_GENERAL_THREADS": generalThreads, "MEAP_PRODUCT_TILE": productTile,
	} {
		m := regexp.MustCompile(`#define ` + name + ` (\d+)`).FindStringSubmatch(text)
		if m == nil {
			t.Errorf("the header has no %s", name)
		} else if n, _ := strconv.Atoi(m[1]); n != v {
			t.Errorf("%s is %d, args.go has %d", name, n, v)
		}
	}
	for name, f := range map[string]func(int) int{"FORWARD": forwardShared, "GRAD_Q": gradQShared, "GRAD_KV": gradKVShared} {
		m := regexp.MustCompile(`#define MEAP_` + name + `_SHARED\(d\) \(\(d\) == 64 \? (\d+) : (\d+)\)`).FindStringSubmatch(text)
		if m == nil {
			t.Errorf("the header has no MEAP_%s_SHARED", name)
			continue
		}
		if m[1] != strconv.Itoa(f(64)) || m[2] != strconv.Itoa(f(128)) {
			t.Errorf("MEAP_%s_SHARED is %s and %s, want %d and %d", name, m[1], m[2], f(64), f(128))
		}
	}
	for _, line := range []string{
		"#define MEAP_GENERAL_FORWARD_SHARED(tile, d) (4 * (tile) * (3 * ((d) + 1) + (tile) + 1))",
		"#define MEAP_GENERAL_GRAD_SHARED(tile, d) (4 * (tile) * (4 * ((d) + 1) + 2 * ((tile) + 1)))",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the header no longer says %q, which generalForwardShared and generalGradShared follow", line)
		}
	}
}

func TestKernelNamesMatchTheHeader(t *testing.T) {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\s+X\((\w+), \w+\)`).FindAllStringSubmatch(header(t), -1) {
		names = append(names, m[1])
	}
	if !slices.Equal(names, kernelNames) {
		t.Errorf("kernels of the header:\n%v\nkernels of kernels.go:\n%v", names, kernelNames)
	}
}
