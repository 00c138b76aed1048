package dataset

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"meap/pkg/dataset/facts"
)

// factSources are files and records of which every part has lines of its own.
func factSources(t *testing.T) string {
	t.Helper()
	files := map[string]string{"short.txt": "too short for a document\n"}
	text := func(i, n int) string {
		var b strings.Builder
		for line := range n {
			fmt.Fprintf(&b, "text %d, line %d\n", i, line)
		}
		return b.String()
	}
	for i := range 40 {
		files[fmt.Sprintf("%02d.txt", i)] = text(i, 20+i*7%50)
	}
	var records strings.Builder
	for i := range 30 {
		fmt.Fprintf(&records, "{\"text\":%q}\n", text(100+i, 40))
	}
	files["records.jsonl"] = records.String()
	return tree(t, files)
}

func factConfig() facts.Config {
	f := facts.DefaultConfig()
	f.PerDocument, f.Questions, f.DocumentBytes = 3, 4, 127
	return f
}

var factLine = regexp.MustCompile(`(?m)^([a-z]{4})=\d{3}$`)

// With bytes for tokens every row is a document, whole; the names in training and in validation text are different; and neither the
// number of workers nor the order in which texts are read changes anything.
func TestFactsArePlanted(t *testing.T) {
	dir := factSources(t)
	c := DefaultConfig()
	c.Sources, c.ValidationFraction = []string{dir}, 0.2
	var first *Set
	names := map[string]map[string]bool{Train: {}, Validation: {}}
	for _, workers := range []int{1, 2, 5} {
		c.CacheDir = t.TempDir()
		set, err := Prepare(context.Background(), c, bytesTok, Options{Facts: factConfig(), Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = set
		}
		sameBytes(t, set, first)
	}
	if short := first.Index.Train.Skipped.Records + first.Index.Validation.Skipped.Records; short != 1 {
		t.Errorf("%d texts were too short, want 1", short)
	}
	for split, found := range names {
		l, err := first.Open(split, 128, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if l.Rows() != l.Info.Documents || l.Rows() < 30 {
			t.Errorf("%s: %d rows of %d documents", split, l.Rows(), l.Info.Documents)
		}
		row := make([]int32, 129)
		for i := range l.Rows() {
			if err := l.Row(i, row); err != nil {
				t.Fatal(err)
			}
			if row[0] != bytesTok.BOS() || row[128] != bytesTok.EOS() {
				t.Fatalf("%s, row %d: begins with %d and ends with %d", split, i, row[0], row[128])
			}
			lines := factLine.FindAllSubmatch(bytesTok.Decode(row[1:128]), -1)
			if len(lines) < 1 || len(lines) > 3 {
				t.Errorf("%s, row %d: %d facts", split, i, len(lines))
			}
			for _, m := range lines {
				found[string(m[1])] = true
			}
		}
	}
	for name := range names[Validation] {
		if names[Train][name] {
			t.Errorf("%s is in both splits", name)
		}
	}
}

// Other facts are other data, also for a preparation that takes up an interrupted one.
func TestFactsAreOfTheData(t *testing.T) {
	dir := factSources(t)
	c := DefaultConfig()
	c.Sources, c.ValidationFraction, c.CacheDir = []string{dir}, 0.2, t.TempDir()
	seen := map[string]bool{}
	for _, change := range []func(*facts.Config){
		func(f *facts.Config) { f.PerDocument = 0 },
		func(*facts.Config) {},
		func(f *facts.Config) { f.PerDocument = 2 },
		func(f *facts.Config) { f.Questions = 5 },
		func(f *facts.Config) { f.Question = "{name} is {code}" },
	} {
		f := factConfig()
		change(&f)
		set, err := Prepare(context.Background(), c, bytesTok, Options{Facts: f})
		if err != nil {
			t.Fatal(err)
		}
		if id := set.Index.Fingerprint(); !set.Built || seen[id] {
			t.Errorf("%+v: built %v, data %s", f, set.Built, id)
		} else {
			seen[id] = true
		}
	}
	f := factConfig()
	f.DocumentBytes = 20
	if _, err := Prepare(context.Background(), c, bytesTok, Options{Facts: f}); err == nil || !strings.HasPrefix(err.Error(), "facts.document_bytes = 20: ") {
		t.Errorf("documents too short for their facts: %v", err)
	}
}

func TestHeldOutFiles(t *testing.T) {
	dir := tree(t, map[string]string{"a.txt": "a", "b.txt": "b", "v/c.txt": "c", "v/d.jsonl": `{"text":"d"}`})
	c := DefaultConfig()
	c.Sources, c.Validation = []string{dir}, []string{dir + "/v"}
	files, err := HeldOutFiles(c)
	if err != nil || len(files) != 1 || !strings.HasSuffix(files[0], "c.txt") {
		t.Errorf("%v, %v, want v/c.txt alone", files, err)
	}
}
