package stages

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

const formatPage = "../docs/format.md"

// documentedPlan is the stage of the example in docs/format.md.
func documentedPlan() *Plan {
	lang := "C"
	numbers := cas.Sum([]byte("1 2 3 4\n"))
	return &Plan{
		Stage: Stage{
			Name: "count", Dir: "/work/digits/tools", Stdin: "digits",
			Command: []string{"python", "count.py", "{in.data}", "{out.n}", "--title", "two \"words\"\n"},
			Params:  []Param{{Name: "lr", Type: "float", Raw: "1e-2", Canonical: "0.01"}, {Name: "workers", Type: "int", Raw: "4", Canonical: "4", Operational: true}},
			Outputs: []Output{{Name: "n", Path: "count.txt", Meta: map[string]string{"unit": "files"}, Publish: []string{"total"}}},
			Work:    []string{"cache"},
		},
		Project:   Project{Name: "digits", Dir: "/work/digits"},
		In:        []BoundInput{{Input: Input{Name: "data", Ref: "digits"}, Tree: cas.Sum([]byte("a tree")), Single: "numbers.txt", From: "digits@1"}},
		CodeFile:  []CodeFile{{"tools/count.py", cas.Sum([]byte("print()\n"))}},
		Tool:      []ToolResult{{"python --version", cas.Sum([]byte("Python 3.11.2\n")), "Python 3.11.2"}},
		EnvBound:  []BoundEnv{{"LANG", &lang}, {"SEED", nil}},
		StdinBlob: numbers,
	}
}

// block returns the indented block of docs/format.md that begins with a line,
// without the indentation.
func block(t *testing.T, first string) string {
	t.Helper()
	page, err := os.ReadFile(formatPage)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "\n    "+first+"\n")
	if !ok {
		t.Fatalf("%s has no example that begins with %q", formatPage, first)
	}
	text := first + "\n"
	for line := range strings.Lines(rest) {
		inside, ok := strings.CutPrefix(line, "    ")
		if !ok {
			break
		}
		text += inside
	}
	return text
}

// What docs/format.md says of keys is how they are made.
func TestDocumentedKey(t *testing.T) {
	documented := Preimage(block(t, preimageVersion))
	p := documentedPlan()
	if made := p.preimage(); documented != made {
		t.Errorf("the documented preimage is\n%s\nthe stage has\n%s", documented, made)
	}
	page, err := os.ReadFile(formatPage)
	if err != nil {
		t.Fatal(err)
	}
	if key := documented.Key().String(); !strings.Contains(string(page), "`"+key+"`") {
		t.Errorf("the key of the documented preimage is %s; the page does not say so", key)
	}
}

// The documented record is one that is read, and written, so.
func TestDocumentedRecord(t *testing.T) {
	documented := block(t, "{")
	r, err := ParseRecord([]byte(documented))
	if err != nil {
		t.Fatal(err)
	}
	if key := r.Preimage.Key().String(); r.Key != key || r.Preimage != Preimage(block(t, preimageVersion)) {
		t.Errorf("its key is %s, its preimage\n%s\nof the key %s", r.Key, r.Preimage, key)
	}
	p := documentedPlan()
	p.Preimage = p.preimage()
	p.Key = p.Preimage.Key()
	made := NewRecord(p)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	made.Run, made.Status, made.Attempt, made.Seconds, made.Started, made.Ended = "count-7f3k2m", Succeeded, 1, 1.5, at, at.Add(1500*time.Millisecond)
	made.User, made.Curi = "ada", "v0.1.0"
	made.Argv = []string{"python", "count.py", "/mnt/curi/at/" + r.Key[:16] + "/in/data/numbers.txt", "/mnt/curi/at/" + r.Key[:16] + "/out/n/count.txt", "--title", "two \"words\"\n"}
	*made.Output("n") = RecordOutput{Name: "n", Path: "count.txt", Meta: map[string]string{"unit": "files"}, Publish: []string{"total"},
		Tree: cas.Sum([]byte("another tree")), Digest: cas.Sum([]byte("4\n")), Bytes: 2, Files: 1}
	made.Nodes = []Node{{Host: "node7", OS: "linux", Arch: "amd64", Kernel: "6.18.0", CPUs: 16, GPUs: []string{}}}
	b, err := made.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != documented {
		t.Errorf("the record is written as\n%s", b)
	}
}

// Every field that may stand in a record, beside a run or in a small file of
// the store is on the page.
func TestDocumentedFields(t *testing.T) {
	page, err := os.ReadFile(formatPage)
	if err != nil {
		t.Fatal(err)
	}
	var look func(of reflect.Type)
	look = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || of == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			if !strings.Contains(string(page), "`"+name+"`") && !strings.Contains(string(page), `"`+name+`":`) {
				t.Errorf("%s.%s: `%s` is not on the page", of, of.Field(i).Name, name)
			}
			look(of.Field(i).Type)
		}
	}
	look(reflect.TypeFor[Record]())
	look(reflect.TypeFor[Run]())
	look(reflect.TypeFor[resultInfo]())
	look(reflect.TypeFor[Job]())
	look(reflect.TypeFor[cas.Ref]())
	look(reflect.TypeFor[cas.Version]())
	look(reflect.TypeFor[cas.Holder]())
	look(reflect.TypeFor[cas.PlaceState]())
	look(reflect.TypeFor[cas.Mount]())
}
