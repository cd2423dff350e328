package cas

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	s := newCoreStore(t)
	put := func(tree Tree) Digest {
		t.Helper()
		tree.Sort()
		d, err := s.PutTree(t.Context(), &tree)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	file := func(name, content string) Entry {
		return Entry{Name: name, Kind: KindFile, Size: int64(len(content)), Digest: coreBlob(t, s, []byte(content))}
	}
	dir := func(name string, d Digest) Entry { return Entry{Name: name, Kind: KindDir, Digest: d} }
	link := func(name, to string) Entry { return Entry{Name: name, Kind: KindSymlink, Target: to} }
	exe := func(e Entry) Entry { e.Kind = KindExecutable; return e }
	attr := func(e Entry) Entry { e.Attrs = Attrs{{"user.curi.a", "b"}}; return e }

	empty := put(Tree{})
	same := put(Tree{Entries: []Entry{file("x", "1"), file("y", "2")}})
	other := put(Tree{Entries: []Entry{file("x", "1"), file("y", "3"), file("z", "4")}})
	one := Tree{Entries: []Entry{
		file("a", "a"), file("b", "b"), file("exe", "e"), dir("equal", same), dir("gone", same), dir("sub", same),
		link("l", "a"), file("kind", "k"), dir("kind2", empty), dir("attr", same), dir("e", empty),
	}}
	two := Tree{Attrs: Attrs{{"user.curi.type", "T"}}, Entries: []Entry{
		file("a", "a"), file("b", "B"), exe(file("exe", "e")), dir("equal", same), dir("new", same), dir("sub", other),
		link("l", "b"), dir("kind", same), file("kind2", "k"), attr(dir("attr", same)), dir("e", same),
	}}
	diff := func(a, b Digest) string {
		t.Helper()
		var lines []string
		err := s.Diff(t.Context(), a, b, func(c Change) error {
			sign := "~"
			switch {
			case c.Old.Kind == 0:
				sign = "+"
			case c.New.Kind == 0:
				sign = "-"
			}
			lines = append(lines, fmt.Sprintf("%s%s", sign, c.Path))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(lines, " ")
	}
	if got, want := diff(put(one), put(two)), "~ ~attr ~b +e/x +e/y ~exe -gone/x -gone/y -kind +kind/x +kind/y -kind2 +kind2 ~l +new/x +new/y ~sub/y +sub/z"; got != want {
		t.Errorf("differences\n%s\nwant\n%s", got, want)
	}
	if got := diff(put(one), put(one)); got != "" {
		t.Errorf("a tree differs from itself: %s", got)
	}
	if got := diff(empty, put(Tree{Entries: []Entry{dir("e", empty)}})); got != "+e" {
		t.Errorf("an empty directory: %s", got)
	}
	stop := errors.New("stop")
	if err := s.Diff(t.Context(), put(one), put(two), func(Change) error { return stop }); err != stop {
		t.Errorf("fn's error: %v", err)
	}
	if err := s.Diff(t.Context(), empty, Sum(nil), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tree that is not stored: %v", err)
	}
}
