package stages

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const goldenRecord = "testdata/record.json"

func wholeRecord() *Record {
	value, at := "1", time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	preimage := Preimage("curi stage key v1\nargv \"torchrun\"\n")
	d := cas.Sum([]byte("x"))
	return &Record{
		Format: RecordFormat, Key: preimage.Key().String(), Preimage: preimage,
		Run: "train-7f3k2m", Project: "example.org/team/digits", Stage: "train", Status: Succeeded, Exit: 1, Attempt: 2, Seconds: 12.5,
		Started: at, Ended: at.Add(12500 * time.Millisecond), User: "ada", Curi: "v0.1.0",
		Dir: ".", Command: []string{"torchrun", "{in.data}", "<&>"}, Argv: []string{"torchrun", "/m/at/k/in/data", "<&>"}, Shell: true, CleanEnv: true,
		Stdin:   &RecordStdin{Ref: "-", Digest: d},
		Params:  []RecordParam{{"lr", "float", "0.01", "1e-2", true}},
		Inputs:  []RecordInput{{"data", "digits", "digits@2", d, "digits.csv", true, nil}},
		Code:    []CodeFile{{"train.py", d}},
		Tools:   []ToolResult{{"nvcc --version", d, "nvcc 12"}},
		Env:     []RecordEnv{{"SEED", &value}, {"UNSET", nil}},
		Outputs: []RecordOutput{{"model", "model.ckpt", true, true, "runs/m", map[string]string{"type": "Net"}, []string{"model"}, d, d, 10, 1}},
		Work:    []string{"ckpt"},
		Git: &GitState{"0123", "main", "example.org/team/digits", true, "diff --git", "1 changed files left out",
			[]Untracked{{"a.py", 1, "x", nil, ""}, {"b.bin", 1, "", []byte{0xff}, ""}, {"c.bin", 2 << 20, "", nil, "longer than 1 MiB"}}},
		Python:      &PythonEnv{"/usr/bin/python3", []PythonPackage{{"torch", "2.15.0"}}},
		ResumedFrom: &RecordLink{"train-abcdef", d, "ckpt/a.ckpt", d},
		Accepted:    &Acceptance{"train-bcdefg", preimage.Key().String(), d, "only a comment"},
		Nodes:       []Node{{"n1", 1, "linux", "amd64", "6.18", 2, []string{"H100"}, "570", "nodes/1.txt"}},
		Reads:       []byte("null"),
		Unknown:     map[string]json.RawMessage{"later": json.RawMessage(`{"a":[1]}`)},
	}
}

// The file is what every curi must be able to read. A new field changes it;
// nothing else may.
func TestRecordGolden(t *testing.T) {
	r := wholeRecord()
	v := reflect.ValueOf(*r)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the golden record lacks %s", v.Type().Field(i).Name)
		}
	}
	got, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(goldenRecord, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenRecord)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the record is\n%s\nwant\n%s", got, want)
	}
	parsed, err := ParseRecord(want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parsed.Encode()
	if err != nil || !bytes.Equal(again, want) {
		t.Errorf("read and written again it is\n%s\n%v", again, err)
	}
	if p, err := readPreimage(bytes.NewReader(want)); err != nil || p != r.Preimage {
		t.Errorf("its preimage is %q, %v", p, err)
	}
}

func TestEmptyRecordHasLists(t *testing.T) {
	b, err := (&Record{Format: 1, Key: "k", Run: "r"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"command", "argv", "params", "inputs", "code", "tools", "env", "outputs", "work", "nodes"} {
		if !strings.Contains(string(b), `"`+field+`": []`) {
			t.Errorf("%s is no empty list in\n%s", field, b)
		}
	}
	for _, field := range []string{"git", "python", "reads", "stdin", "accepted", "resumed_from"} {
		if !strings.Contains(string(b), `"`+field+`": null`) {
			t.Errorf("%s is not null in\n%s", field, b)
		}
	}
}

func TestParseRecordErrors(t *testing.T) {
	for text, want := range map[string]error{
		"":                            cas.ErrCorrupt,
		"[]":                          cas.ErrCorrupt,
		"null":                        cas.ErrCorrupt,
		"{}":                          cas.ErrCorrupt,
		`{"format":1,"key":"k"}`:      cas.ErrCorrupt,
		`{"format":1,"key":1}`:        cas.ErrCorrupt,
		`{"format":1,"key":"k"} {}`:   cas.ErrCorrupt,
		`{"FORMAT":1,"key":"k"}`:      cas.ErrCorrupt,
		`{"format":99,"new":"shape"}`: cas.ErrFormat,
	} {
		if _, err := ParseRecord([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", text, err, want)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	b, err := wholeRecord().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"key":"k","run":"r","x":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err != nil {
			if !errors.Is(err, cas.ErrCorrupt) && !errors.Is(err, cas.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		once, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRecord(once)
		if err != nil {
			t.Fatalf("its own encoding does not parse: %v\n%s", err, once)
		}
		twice, err := again.Encode()
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("written twice it differs:\n%s\n%s\n%v", once, twice, err)
		}
	})
}

// Records come from others, too, and their names become paths.
func TestRecordWithNamesThatLeadOut(t *testing.T) {
	const good = `{"format":1,"key":"k","preimage":"p","run":"r",` +
		`"inputs":[{"name":"data","file":"a/b.txt"}],"outputs":[{"name":"model","path":"x/model.ckpt"},{"name":"dir","path":"."}],"work":["ck"]}`
	if _, err := ParseRecord([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]string{
		{`"data"`, `"../../../.ssh"`}, {`"a/b.txt"`, `"../../x"`}, {`"a/b.txt"`, `"/etc/passwd"`},
		{`"model"`, `"a/b"`}, {`"x/model.ckpt"`, `"../model.ckpt"`}, {`"x/model.ckpt"`, `"/model.ckpt"`}, {`"x/model.ckpt"`, `""`},
		{`"ck"`, `".."`},
	} {
		text := strings.Replace(good, bad[0], bad[1], 1)
		if _, err := ParseRecord([]byte(text)); !errors.Is(err, cas.ErrCorrupt) || errors.Is(err, ErrUsage) {
			t.Errorf("%s instead of %s: %v", bad[1], bad[0], err)
		}
	}
}
