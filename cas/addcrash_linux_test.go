package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// add-path PATH adds it once and prints the tree.
	childRoles["add-path"] = func(ctx context.Context, s *Store, args []string) error {
		fmt.Println("adding")
		a, err := s.AddPath(ctx, args[0], AddOptions{})
		if err != nil {
			return err
		}
		fmt.Println(a.Tree)
		a.Release()
		return nil
	}
}

// manyFilesIn makes some hundred small files and two large ones.
func manyFilesIn(t *testing.T, dir string) {
	t.Helper()
	files := map[string]string{"big1": string(noise(11, 5<<20)), "big2": string(noise(12, 5<<20))}
	for i := range 200 {
		files[fmt.Sprintf("d%d/f%d", i%7, i)] = strings.Repeat(fmt.Sprint(i), i)
	}
	writeFiles(t, dir, files)
}

// verified fails the test if anything stored is not what its digest says, or
// a stored tree is not whole.
func verified(t *testing.T, s *Store) {
	t.Helper()
	for _, room := range []string{"blobs", "trees"} {
		names, err := filepath.Glob(filepath.Join(s.Dir(), room, "??", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if Sum(b).String() != filepath.Base(name) {
				t.Errorf("%s does not match its digest", name)
			}
			if room == "trees" {
				tree, err := ParseTree(b)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				} else if err := s.checkWhole(tree); err != nil {
					t.Errorf("%s is not whole: %v", name, err)
				}
			}
		}
	}
}

func TestKilledAdd(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	manyFilesIn(t, dir)
	// Killed at other moments each time, from the first file to the last rename.
	for i := range 12 {
		c := startChild(t, "add-path", s, nil, dir)
		c.line()
		time.Sleep(time.Duration(i*i) * time.Millisecond)
		c.cmd.Process.Kill()
		c.cmd.Wait()
		verified(t, s)
	}
	left, err := os.ReadDir(filepath.Join(s.Dir(), "staging"))
	if err != nil {
		t.Fatal(err)
	}
	a := mustAdd(t, s, dir, AddOptions{})
	verified(t, s)
	if got := contents(t, s, a.Tree); len(got) != 202+7 {
		t.Errorf("added %d names", len(got))
	}
	// What the killed ones left is collected; what a living one fills is not.
	mine, err := s.newStaging()
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	if _, _, err := s.sweepStaging(t.Context(), 0, false, func(Digest) bool { return false }); err != nil {
		t.Fatal(err)
	}
	now, err := filepath.Glob(filepath.Join(s.Dir(), "staging", "*", stagingLock))
	if err != nil || len(now) != 1 || filepath.Dir(now[0]) != mine.dir {
		t.Errorf("staging held %d things after the kills, then %v, %v", len(left), now, err)
	}
}

func TestTwoProcessesAddTheSame(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	manyFilesIn(t, dir)
	var children []*child
	for range 3 {
		children = append(children, startChild(t, "add-path", s, nil, dir))
	}
	for _, c := range children {
		c.line()
	}
	trees := map[string]bool{}
	for _, c := range children {
		trees[c.line()] = true
	}
	if len(trees) != 1 {
		t.Errorf("added %v", trees)
	}
	a := mustAdd(t, s, dir, AddOptions{})
	if !trees[a.Tree.String()] {
		t.Errorf("added %s, the others %v", a.Tree, trees)
	}
	verified(t, s)
	emptyStaging(t, s)
}

// needsRoot skips a test that cannot mount here; in CI none may.
func needsRoot(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" || os.Geteuid() == 0 {
		t.Fatal(err)
	}
	t.Skipf("needs root: %v", err)
}

// smallFilesystem mounts a tmpfs of size bytes.
func smallFilesystem(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		needsRoot(t, fmt.Errorf("mount a tmpfs: %w", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAddToFullDisk(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(smallFilesystem(t, 32<<20), "store"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"fits": string(noise(1, 20<<20)), "large/x": string(noise(2, 24<<20))})
	fits := filepath.Join(dir, "fits")
	first := mustAdd(t, s, fits, AddOptions{})

	_, err = s.AddPath(t.Context(), filepath.Join(dir, "large"), AddOptions{})
	var full *NoSpaceError
	if !errors.Is(err, ErrNoSpace) || !errors.As(err, &full) || full.Needed < 24<<20 || full.Available > 12<<20 {
		t.Errorf("too large: %v", err)
	}
	for _, way := range []string{"--reference", "--move", "gc", "--store", s.Dir()} {
		if err == nil || !strings.Contains(err.Error(), way) {
			t.Errorf("the error does not name %s: %v", way, err)
		}
	}
	// What is stored needs no space, be it under another name and new times.
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(copied, noise(1, 20<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if a := mustAdd(t, s, copied, AddOptions{As: "fits"}); a.Tree != first.Tree {
		t.Errorf("added %s, want %s", a.Tree, first.Tree)
	}
	mustAdd(t, s, filepath.Join(dir, "large"), AddOptions{Reference: true})

	// It fills up in the midst: a stream's length is not known before.
	_, err = s.AddReader(t.Context(), strings.NewReader(strings.Repeat("0123456789abcdef", 2<<20)), "stream", AddOptions{})
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "--store") {
		t.Errorf("a stream that is too long: %v", err)
	}
	emptyStaging(t, s)
	verified(t, s)
	os.RemoveAll(s.blobPath(first.Digest))
	if _, err := s.AddPath(t.Context(), filepath.Join(dir, "large"), AddOptions{}); err != nil {
		t.Errorf("after space was freed: %v", err)
	}
}

func TestAddChangingFile(t *testing.T) {
	s := addStore(t)
	p := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(p, noise(1, 8<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The add itself calls the writer, so that no scheduler comes between.
	_, err = s.AddPath(t.Context(), p, AddOptions{Progress: func(int64, int64, int64, int64) {
		if _, err := f.Write([]byte{1}); err != nil {
			t.Error(err)
		}
	}})
	if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), p) {
		t.Errorf("a file that is written all the time: %v", err)
	}
	emptyStaging(t, s)
	mustAdd(t, s, p, AddOptions{})
}

func TestIdenticalAddMakesNoBytes(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	manyFilesIn(t, dir)
	first := mustAdd(t, s, dir, AddOptions{})
	before := inodesIn(t, s)
	other := filepath.Join(t.TempDir(), "copy")
	manyFilesIn(t, other)
	second := mustAdd(t, s, other, AddOptions{})
	if first.Tree != second.Tree {
		t.Errorf("added %s and %s", first.Tree, second.Tree)
	}
	after := inodesIn(t, s)
	if len(before) != len(after) {
		t.Errorf("%d files in the store, then %d", len(before), len(after))
	}
	for name, ino := range before {
		if after[name] != ino {
			t.Errorf("%s was replaced", name)
		}
	}
}

func inodesIn(t *testing.T, s *Store) map[string]uint64 {
	t.Helper()
	m := map[string]uint64{}
	for _, room := range []string{"blobs", "trees"} {
		names, err := filepath.Glob(filepath.Join(s.Dir(), room, "??", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			st, err := lstatFile(n)
			if err != nil {
				t.Fatal(err)
			}
			m[n] = st.ino
		}
	}
	return m
}
