package stages

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// zipFile is the shape of what torch.save writes.
func zipFile(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"archive/data.pkl", "archive/data/0"} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("weights"), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func safetensorsFile(data int) string {
	header := `{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`
	n := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return string(n) + header + string(make([]byte, data))
}

// Each case lists files from oldest to newest; the checkpoint is a file or a
// directory, or nothing.
func TestNewestCheckpoint(t *testing.T) {
	whole := zipFile(t)
	half := whole[:len(whole)/2]
	metadata := "\x80\x04\x8c\x0c__0_0.distcp\x94\x8c\x0c__1_0.distcp\x94."
	type file struct{ name, text string }
	for _, c := range []struct {
		name  string
		files []file
		held  string
		want  string
	}{
		{"nothing", nil, "", ""},
		{"the newest file", []file{{"epoch=1.ckpt", whole}, {"epoch=2.ckpt", whole}}, "", "epoch=2.ckpt"},
		{"the newest, not the last name", []file{{"last.ckpt", whole}, {"epoch=1.ckpt", whole}}, "", "epoch=1.ckpt"},
		{"a file that was cut off", []file{{"a.pt", whole}, {"b.pt", half}}, "", "a.pt"},
		{"an empty file", []file{{"a.pth", whole}, {"b.pth", ""}}, "", "a.pth"},
		{"bytes behind the end", []file{{"a.ckpt", whole}, {"b.ckpt", half + whole[:10]}}, "", "a.ckpt"},
		{"a file that is being written", []file{{"a.ckpt", whole}, {"b.ckpt", whole}}, "b.ckpt", "a.ckpt"},
		{"a temporary file", []file{{"a.ckpt", whole}, {"b.ckpt.tmp", whole}, {".c.ckpt", whole}}, "", "a.ckpt"},
		{"safetensors", []file{{"a.safetensors", safetensorsFile(8)}}, "", "a.safetensors"},
		{"safetensors cut off", []file{{"a.safetensors", safetensorsFile(7)}}, "", ""},
		{"safetensors that go on", []file{{"a.safetensors", safetensorsFile(9)}}, "", ""},
		{"a header that lies", []file{{"a.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}"}}, "", ""},
		{"a distributed checkpoint", []file{{"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata}}, "", "s1"},
		{"one without .metadata", []file{{"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata}, {"s2/__0_0.distcp", "x"}}, "", "s1"},
		{"one with .metadata.tmp", []file{{"s2/__0_0.distcp", "x"}, {"s2/.metadata.tmp", metadata}}, "", ""},
		{"one that lacks a part", []file{{"s1/__0_0.distcp", "x"}, {"s1/.metadata", metadata}}, "", ""},
		{"one with .metadata cut off", []file{{"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata[:20]}}, "", ""},
		{"one with a part being written", []file{{"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata}}, "s1/__1_0.distcp", ""},
		{"a trainer's", []file{{"checkpoint-5/trainer_state.json", "{}"}, {"checkpoint-5/model.safetensors", safetensorsFile(8)}}, "", "checkpoint-5"},
		{"a trainer's without its state", []file{{"checkpoint-5/trainer_state.json", "{}"}, {"checkpoint-10/model.safetensors", safetensorsFile(8)}}, "", "checkpoint-5"},
		{"a trainer's with half a model", []file{{"checkpoint-5/trainer_state.json", "{}"}, {"checkpoint-5/model.safetensors", safetensorsFile(2)}}, "", ""},
		{"a trainer's parts are no checkpoints", []file{{"checkpoint-5/rng_state.pth", whole}}, "", ""},
		{"the newest of all kinds", []file{{"checkpoint-5/trainer_state.json", "{}"}, {"v0/a.ckpt", whole}, {"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata}}, "", "s1"},
	} {
		dir := t.TempDir()
		at := time.Now().Add(-time.Hour)
		for i, f := range c.files {
			path := filepath.Join(dir, f.name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
				t.Fatal(err)
			}
			when := at.Add(time.Duration(i) * time.Second)
			if err := os.Chtimes(path, when, when); err != nil {
				t.Fatal(err)
			}
		}
		got, err := NewestCheckpoint([]string{filepath.Join(dir, "not-there"), dir}, func(path string) bool {
			return c.held != "" && path == filepath.Join(dir, c.held)
		})
		want := c.want
		if want != "" {
			want = filepath.Join(dir, want)
		}
		if err != nil || got != want {
			t.Errorf("%s: offers %q (%v), want %q", c.name, got, err, want)
		}
	}
}

// FuzzCheckpoint checks that a file of any bytes can be judged, and that no
// .safetensors file is complete when a byte is missing or one is too many.
func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(zipFile(f)))
	f.Add([]byte(safetensorsFile(8)))
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 2), "{}"...))
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 1<<63), "{}"...))
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 36), `{"w":{"data_offsets":[0,9223372036854775807]}}`...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := int64(len(b))
		zipComplete(bytes.NewReader(b), n)
		if !safetensorsComplete(bytes.NewReader(b), n) {
			return
		}
		if safetensorsComplete(bytes.NewReader(b[:n-1]), n-1) {
			t.Errorf("%q is complete without its last byte too", b)
		}
		if safetensorsComplete(bytes.NewReader(append(b[:n:n], 0)), n+1) {
			t.Errorf("%q is complete with one byte more too", b)
		}
	})
}
