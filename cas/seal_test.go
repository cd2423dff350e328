package cas

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSealTree(t *testing.T) {
	s := addStore(t)
	out := filepath.Join(s.Dir(), "at", "0123456789abcdef", "out", "model")
	big := string(noise(7, 3*smallFile))
	writeFiles(t, out, map[string]string{"a": "one", "b": "one", "sub/big": big})
	before, err := os.Stat(filepath.Join(out, "sub", "big"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Seal(t.Context(), out, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	got := contents(t, s, a.Tree)
	if got["a"] != "one" || got["b"] != "one" || got["sub/big"] != big || len(got) != 4 {
		t.Errorf("sealed %d names", len(got))
	}
	after, err := os.Stat(s.blobPath(Sum([]byte(big))))
	if err != nil || !os.SameFile(before, after) || after.Mode() != 0o444 {
		t.Errorf("the file was not renamed into the store: %v %v", after, err)
	}
	a.Release()
	if _, err := os.Lstat(out); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", out, err)
	}
	emptyStaging(t, s)
}

func TestSealFile(t *testing.T) {
	s := addStore(t)
	p := filepath.Join(s.Dir(), "at", "0123456789abcdef", "out", "model", "model.ckpt")
	writeFiles(t, filepath.Dir(p), map[string]string{"model.ckpt": "weights"})
	a, err := s.Seal(t.Context(), p, SealOptions{As: "x/model.ckpt", Attrs: MetaAttrs(map[string]string{"type": "Net"})})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	name, _, ok, err := s.SingleFile(t.Context(), a.Tree)
	if err != nil || !ok || name != "x/model.ckpt" || a.Digest != Sum([]byte("weights")) {
		t.Errorf("sealed %+v as %q: %v", a, name, err)
	}
}
