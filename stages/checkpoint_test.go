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

func fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "checkpoint", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Each case lists files from oldest to newest; the checkpoint is a file or a
// directory, or nothing.
func TestNewestCheckpoint(t *testing.T) {
	whole := zipFile(t)
	half := whole[:len(whole)/2]
	// By real versions of the libraries.
	legacy := fixture(t, "legacy.pt")
	torch := fixture(t, "torch.pt")
	distributed := fixture(t, "distributed.metadata") // of one file of 4099 bytes
	part := string(make([]byte, 4099))
	tensors := fixture(t, "model.safetensors")
	index := `{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}`
	parts := `{"weight_map":{"a":"m-00001-of-00002.safetensors","b":"m-00002-of-00002.safetensors"}}`
	rule := func(glob string) *ResumeRule { return &ResumeRule{Work: "ck", Glob: glob} }
	metadata := "\x80\x04\x8c\x0c__0_0.distcp\x94\x8c\x0c__1_0.distcp\x94."
	type file struct{ name, text string }
	for _, c := range []struct {
		name  string
		files []file
		held  string
		want  string
		rule  *ResumeRule
	}{
		{"nothing", nil, "", "", nil},
		{"the newest file", []file{{"epoch=1.ckpt", whole}, {"epoch=2.ckpt", whole}}, "", "epoch=2.ckpt", nil},
		{"the newest, not the last name", []file{{"last.ckpt", whole}, {"epoch=1.ckpt", whole}}, "", "epoch=1.ckpt", nil},
		{"a file that was cut off", []file{{"a.pt", whole}, {"b.pt", half}}, "", "a.pt", nil},
		{"an empty file", []file{{"a.pth", whole}, {"b.pth", ""}}, "", "a.pth", nil},
		{"bytes behind the end", []file{{"a.ckpt", whole}, {"b.ckpt", half + whole[:10]}}, "", "a.ckpt", nil},
		{"a file that is being written", []file{{"a.ckpt", whole}, {"b.ckpt", whole}}, "b.ckpt", "a.ckpt", nil},
		{"a temporary file", []file{{"a.ckpt", whole}, {"b.ckpt.tmp", whole}, {".c.ckpt", whole}}, "", "a.ckpt", nil},
		{"safetensors", []file{{"a.safetensors", safetensorsFile(8)}}, "", "a.safetensors", nil},
		{"safetensors cut off", []file{{"a.safetensors", safetensorsFile(7)}}, "", "", nil},
		{"safetensors that go on", []file{{"a.safetensors", safetensorsFile(9)}}, "", "", nil},
		{"a header that lies", []file{{"a.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}"}}, "", "", nil},
		{"a distributed checkpoint", []file{{"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata}}, "", "s1", nil},
		{"one without .metadata", []file{{"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata}, {"s2/__0_0.distcp", "x"}}, "", "s1", nil},
		{"one with .metadata.tmp", []file{{"s2/__0_0.distcp", "x"}, {"s2/.metadata.tmp", metadata}}, "", "", nil},
		{"one that lacks a part", []file{{"s1/__0_0.distcp", "x"}, {"s1/.metadata", metadata}}, "", "", nil},
		{"one with .metadata cut off", []file{{"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata[:20]}}, "", "", nil},
		{"one with a part being written", []file{{"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata}}, "s1/__1_0.distcp", "", nil},
		{"a trainer's", []file{{"checkpoint-5/trainer_state.json", "{}"}, {"checkpoint-5/model.safetensors", safetensorsFile(8)}}, "", "checkpoint-5", nil},
		{"a trainer's without its state", []file{{"checkpoint-5/trainer_state.json", "{}"}, {"checkpoint-10/model.safetensors", safetensorsFile(8)}}, "", "checkpoint-5", nil},
		{"a trainer's with half a model", []file{{"checkpoint-5/trainer_state.json", "{}"}, {"checkpoint-5/model.safetensors", safetensorsFile(2)}}, "", "", nil},
		{"a trainer's parts are no checkpoints", []file{{"checkpoint-5/rng_state.pth", whole}}, "", "", nil},
		{"what torch.save writes", []file{{"a.pt", torch}}, "", "a.pt", nil},
		{"the same cut off", []file{{"a.pt", torch[:len(torch)-1]}}, "", "", nil},
		{"the old format of torch.save", []file{{"a.pt", legacy}}, "", "a.pt", nil},
		{"the old format cut off", []file{{"a.pt", legacy[:len(legacy)-1]}}, "", "", nil},
		{"the old format cut off in its pickles", []file{{"a.pt", legacy[:300]}}, "", "", nil},
		{"the old format that goes on", []file{{"a.pt", legacy + "\x00"}}, "", "", nil},
		{"no checkpoint at all", []file{{"a.pt", "weights"}}, "", "", nil},
		{"a distributed checkpoint as it is", []file{{"s1/__0_0.distcp", part}, {"s1/.metadata", distributed}}, "", "s1", nil},
		{"one with a part cut off", []file{{"s1/__0_0.distcp", part[1:]}, {"s1/.metadata", distributed}}, "", "", nil},
		{"one with real metadata cut off", []file{{"s1/__0_0.distcp", part}, {"s1/.metadata", distributed[:len(distributed)-1]}}, "", "", nil},
		{"a trainer's that lacks a shard", []file{{"checkpoint-5/m.safetensors.index.json", index}, {"checkpoint-5/m-1.safetensors", safetensorsFile(8)}, {"checkpoint-5/trainer_state.json", "{}"}}, "", "", nil},
		{"a trainer's with all shards", []file{{"checkpoint-5/m.safetensors.index.json", index}, {"checkpoint-5/m-1.safetensors", safetensorsFile(8)}, {"checkpoint-5/m-2.safetensors", safetensorsFile(8)}, {"checkpoint-5/trainer_state.json", "{}"}}, "", "checkpoint-5", nil},
		{"a trainer's with half a distributed one", []file{{"checkpoint-5/fsdp_0/__0_0.distcp", part}, {"checkpoint-5/trainer_state.json", "{}"}}, "", "", nil},
		{"a rule", []file{{"a.npz", "x"}, {"b.npz", "x"}, {"c.ckpt", whole}}, "", "b.npz", rule("*.npz")},
		{"a rule for directories", []file{{"step1/w", "x"}, {"step2/w", "x"}, {"final.ckpt", whole}}, "", "step2", rule("step*")},
		{"a rule below directories", []file{{"v0/a/x.npz", "x"}, {"y.bin", "x"}}, "", "v0/a/x.npz", rule("**/*.npz")},
		{"a rule and a file being written", []file{{"a.npz", "x"}, {"b.npz", "x"}}, "b.npz", "a.npz", rule("*.npz")},
		{"a rule makes half a file no whole one", []file{{"a.ckpt", whole}, {"b.ckpt", half}}, "", "a.ckpt", rule("*.ckpt")},
		{"a rule for a directory with a file for each rank", []file{{"s1/rank0.pt", whole}, {"s1/rank1.pt", whole}, {"s2/rank0.pt", whole}, {"s2/rank1.pt", half}}, "", "s1", rule("s*")},
		{"a rule of another work directory", []file{{"a.ckpt", whole}}, "", "", &ResumeRule{Work: "other", Glob: "*"}},
		{"one that was half saved over", []file{{"s1/.metadata", distributed}, {"s1/__0_0.distcp", part}}, "", "", nil},
		{"one with half a file beside", []file{{"a.ckpt/__0_0.distcp", part}, {"a.ckpt/.metadata", distributed}, {"a.ckpt/meta.pt", half}}, "", "", nil},
		{"one of Lightning", []file{{"a.ckpt/__0_0.distcp", part}, {"a.ckpt/.metadata", distributed}, {"a.ckpt/meta.pt", whole}}, "", "a.ckpt", nil},
		{"one that is the work directory", []file{{"__0_0.distcp", part}, {".metadata", distributed}, {"meta.pt", whole}}, "", ".", nil},
		{"one below that is newer", []file{{"__0_0.distcp", part}, {".metadata", distributed}, {"b/b.pt", whole}}, "", "b/b.pt", nil},
		{"one whose ranks did not speak", []file{{"s1/__0_0.distcp", part}, {"s1/__0.metadata", distributed}}, "", "", nil},
		{"a rule for that", []file{{"s1/__0_0.distcp", part}, {"s1/__0.metadata", distributed}}, "", "s1", rule("s*")},
		{"timm's", []file{{"checkpoint-1.pth.tar", whole}, {"tmp.pth.tar", half}, {"data.tar", whole}}, "", "checkpoint-1.pth.tar", nil},
		{"a model in several files", []file{{"s1/m-00001-of-00002.safetensors", tensors}, {"s1/m-00002-of-00002.safetensors", tensors}, {"s1/m.safetensors.index.json", parts}}, "", "s1", nil},
		{"one that lacks one", []file{{"s1/m-00001-of-00002.safetensors", tensors}, {"s1/m.safetensors.index.json", parts}}, "", "", nil},
		{"one with half a file", []file{{"s1/m-00001-of-00002.safetensors", tensors}, {"s1/m-00002-of-00002.safetensors", tensors[1:]}, {"s1/m.safetensors.index.json", parts}}, "", "", nil},
		{"one without its index", []file{{"s1/m-00001-of-00002.safetensors", tensors}, {"s1/m-00002-of-00002.safetensors", tensors}}, "", "", nil},
		{"one of torch.save", []file{{"s1/m-1.bin", half}, {"s1/m.bin.index.json", `{"weight_map":{"a":"m-1.bin"}}`}}, "", "", nil},
		{"DeepSpeed's", []file{{"a.ckpt/checkpoint/mp_rank_00_model_states.pt", whole}, {"a.ckpt/checkpoint/zero_pp_rank_0_mp_rank_00_optim_states.pt", whole}, {"a.ckpt/latest", "checkpoint\n"}}, "", "a.ckpt", nil},
		{"DeepSpeed's in the work directory, half of the next", []file{{"step1/mp_rank_00_model_states.pt", whole}, {"latest", "step1"}, {"step2/mp_rank_00_model_states.pt", half}}, "", ".", nil},
		{"DeepSpeed's without latest", []file{{"a.ckpt/checkpoint/mp_rank_00_model_states.pt", whole}}, "", "", nil},
		{"DeepSpeed's with half a file", []file{{"a.ckpt/checkpoint/mp_rank_00_model_states.pt", half}, {"a.ckpt/latest", "checkpoint"}}, "", "", nil},
		{"Accelerate's", []file{{"checkpoint_0/model.safetensors", tensors}, {"checkpoint_0/optimizer.bin", torch}, {"checkpoint_0/random_states_0.pkl", torch}, {"checkpoint_0/random_states_1.pkl", torch}}, "", "checkpoint_0", nil},
		{"Accelerate's without the random state", []file{{"a/model.safetensors", tensors}, {"a/optimizer.bin", torch}}, "", "", nil},
		{"a program's own optimizer.bin", []file{{"optimizer.bin", torch}, {"model.pt", torch}}, "", "model.pt", nil},
		{"Accelerate's without that of a rank", []file{{"a/model.safetensors", tensors}, {"a/random_states_1.pkl", torch}}, "", "", nil},
		{"Accelerate's with half an optimizer", []file{{"a/model.safetensors", tensors}, {"a/optimizer.bin", half}, {"a/random_states_0.pkl", torch}}, "", "", nil},
		{"Accelerate's with half a model", []file{{"a/model.safetensors", tensors[1:]}, {"a/optimizer.bin", torch}, {"a/random_states_0.pkl", torch}}, "", "", nil},
		{"a latest that leads out", []file{{"b/x_model_states.pt", whole}, {"a/latest", "../b"}}, "", "", nil},
		{"the newest of all kinds", []file{{"checkpoint-5/trainer_state.json", "{}"}, {"v0/a.ckpt", whole}, {"s1/__0_0.distcp", "x"}, {"s1/__1_0.distcp", "x"}, {"s1/.metadata", metadata}}, "", "s1", nil},
	} {
		dir := filepath.Join(t.TempDir(), "ck")
		at := time.Now().Add(-time.Hour)
		for i, f := range c.files {
			path := filepath.Join(dir, f.name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
				t.Fatal(err)
			}
			when := at.Add(time.Duration(i) * 2 * time.Second)
			if err := os.Chtimes(path, when, when); err != nil {
				t.Fatal(err)
			}
		}
		search := CheckpointSearch{Dir: filepath.Dir(dir), Work: []string{"not-there", "ck"}, Rule: c.rule, BeingWritten: func(path string) bool {
			return c.held != "" && path == filepath.Join(dir, c.held)
		}}
		newest, err := search.Newest()
		got := newest.Path
		want := c.want
		if want != "" {
			want = filepath.Join(dir, want)
		}
		if err != nil || got != want {
			t.Errorf("%s: offers %q (%v), want %q", c.name, got, err, want)
		}
	}
}

// Wherever a real file is cut off, it is not complete.
func TestCutOffCheckpoint(t *testing.T) {
	for name, complete := range map[string]func(b []byte) bool{
		"torch.pt":          func(b []byte) bool { return zipComplete(bytes.NewReader(b), int64(len(b))) },
		"legacy.pt":         func(b []byte) bool { return legacyComplete(bytes.NewReader(b), int64(len(b))) },
		"model.safetensors": func(b []byte) bool { return safetensorsComplete(bytes.NewReader(b), int64(len(b))) },
		"distributed.metadata": func(b []byte) bool {
			files, err := storedFiles(bytes.NewReader(b))
			return err == nil && len(files) > 0
		},
	} {
		whole := []byte(fixture(t, name))
		if !complete(whole) {
			t.Errorf("%s is not complete", name)
		}
		for n := range whole {
			if complete(whole[:n]) {
				t.Errorf("%s is complete after %d of %d bytes", name, n, len(whole))
			}
		}
	}
}

// FuzzPickle checks that any bytes can be read as what torch writes, in bounded
// memory and time, and that no file of the old format is complete when a byte
// is missing or one is too many.
func FuzzPickle(f *testing.F) {
	f.Add([]byte(fixture(f, "legacy.pt")))
	f.Add([]byte(fixture(f, "distributed.metadata")))
	f.Add([]byte("\x80\x04(((((2222tttttt."))
	f.Add([]byte("\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Add([]byte("(lp0\nI1\naI2\nag0\n0(dp1\nS'a'\nL5L\nsctorch\nFloatStorage\n)R."))
	f.Fuzz(func(t *testing.T, b []byte) {
		if files, err := storedFiles(bytes.NewReader(b)); err == nil {
			for name, end := range files {
				if end < 0 {
					t.Errorf("%q ends at %d", name, end)
				}
			}
		}
		n := int64(len(b))
		if !legacyComplete(bytes.NewReader(b), n) {
			return
		}
		if legacyComplete(bytes.NewReader(b[:n-1]), n-1) {
			t.Errorf("%q is complete without its last byte too", b)
		}
		if legacyComplete(bytes.NewReader(append(b[:n:n], 0)), n+1) {
			t.Errorf("%q is complete with one byte more too", b)
		}
	})
}

// FuzzCheckpoint checks that a file of any bytes can be judged, and that no
// .safetensors file is complete when a byte is missing or one is too many.
func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(zipFile(f)))
	f.Add([]byte(fixture(f, "torch.pt")))
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

// An archive of so many members has its directory in the form for large ones.
func TestZipOfManyMembers(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for range 1 << 16 {
		if _, err := z.CreateHeader(&zip.FileHeader{Name: "m", Method: zip.Store}); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	n := int64(b.Len())
	if !zipComplete(bytes.NewReader(b.Bytes()), n) {
		t.Error("a whole archive is not complete")
	}
	if zipComplete(bytes.NewReader(b.Bytes()[:n-1]), n-1) {
		t.Error("an archive without its last byte is complete")
	}
}
