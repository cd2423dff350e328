package cas

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGoldenDigests: what was stored once must be found again by every later
// version, so these never change.
func TestGoldenDigests(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"a.txt": "hello\n", "sub/empty": "", "sub/run": "#!/bin/sh\n", "none/": ""})
	if err := os.Chmod(filepath.Join(dir, "sub", "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/run", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, want string
		added      *Added
	}{
		{"directory", "5432927a3af3474c4bd270bc12072a6ce5f96cf67b41fcfc825685386c2ed966", mustAdd(t, s, dir, AddOptions{})},
		{"directory with metadata", "fd8afabba536562448c60f461e32be53046889635a6f63e9cb2a32072443b7b6", mustAdd(t, s, dir, AddOptions{Attrs: MetaAttrs(map[string]string{"type": "Net"})})},
		{"single file", "c83032f977d8ef3cfac1d6d9f0050e784a2b2a066e1ea890a6cb26d7c9495241", mustAdd(t, s, filepath.Join(dir, "a.txt"), AddOptions{})},
		{"single file below a directory", "3348a129005494a4306d20b8e3fe6a9c0a8e7f99851a0aaeea3ef001e47ab7a6", mustAdd(t, s, filepath.Join(dir, "a.txt"), AddOptions{As: "x/y"})},
	} {
		if got := c.added.Tree.String(); got != c.want {
			t.Errorf("%s: tree %s, want %s", c.what, got, c.want)
		}
	}
	// As b3sum prints it.
	if a := mustAdd(t, s, filepath.Join(dir, "a.txt"), AddOptions{}); a.Digest.String() != "8e4c7c1b99dbfd50e7a95185fead5ee1448fa904a2fdd778eaf5f2dbfd629a99" {
		t.Errorf("a.txt: %s", a.Digest)
	}
}
