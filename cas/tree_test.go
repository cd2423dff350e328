package cas

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func sampleTree() *Tree {
	return &Tree{
		Attrs: Attrs{{"user.curi.type", "DigitsNet"}},
		Entries: []Entry{
			{Name: "a", Kind: KindFile, Size: 5, Digest: Sum([]byte("hello")), Attrs: Attrs{{"mtime", "12"}, {"user.curi.x", ""}}},
			{Name: "b\xff", Kind: KindExecutable, Size: 0, Digest: Sum(nil)},
			{Name: "d", Kind: KindDir, Size: 1 << 40, Digest: Sum([]byte("d"))},
			{Name: "é", Kind: KindSymlink, Target: "../a"},
		},
	}
}

func TestTreeRoundTrip(t *testing.T) {
	for _, want := range []*Tree{
		{},
		sampleTree(),
		{Single: true, Entries: []Entry{{Name: "m", Kind: KindFile, Size: math.MaxInt64, Digest: Sum([]byte("m"))}}},
	} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseTree(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("parsed %+v, %v; want %+v", got, err, want)
		}
		if d, err := want.Digest(); err != nil || d != Sum(b) {
			t.Errorf("Digest %s, %v; want %s", d, err, Sum(b))
		}
	}
}

// The digest of a directory must never change by accident: every key and
// every stored tree of every user hangs on it.
func TestTreeDigestIsStable(t *testing.T) {
	const want = "17d9164d6267b09da188daabd0accc091fc7d4ca03eff28b10069782d4af5c86"
	if d, err := sampleTree().Digest(); err != nil || d.String() != want {
		t.Errorf("digest %s, %v; want %s", d, err, want)
	}
}

func TestEncodeRefuses(t *testing.T) {
	file := Entry{Name: "f", Kind: KindFile, Digest: Sum(nil)}
	named := func(name string) *Tree { e := file; e.Name = name; return &Tree{Entries: []Entry{e}} }
	with := func(f func(*Entry)) *Tree { e := file; f(&e); return &Tree{Entries: []Entry{e}} }
	for what, tree := range map[string]*Tree{
		"empty name":     named(""),
		"dot":            named("."),
		"dot dot":        named(".."),
		"slash":          named("a/b"),
		"absolute":       named("/etc"),
		"NUL":            named("a\x00"),
		"long name":      named(strings.Repeat("a", 256)),
		"order":          {Entries: []Entry{{Name: "b", Kind: KindSymlink, Target: "x"}, {Name: "a", Kind: KindSymlink, Target: "x"}}},
		"twice":          {Entries: []Entry{file, file}},
		"kind 0":         with(func(e *Entry) { e.Kind = 0 }),
		"kind 5":         with(func(e *Entry) { e.Kind = 5 }),
		"no digest":      with(func(e *Entry) { e.Digest = Digest{} }),
		"negative":       with(func(e *Entry) { e.Size = -1 }),
		"target of file": with(func(e *Entry) { e.Target = "x" }),
		"empty target":   with(func(e *Entry) { *e = Entry{Name: "f", Kind: KindSymlink} }),
		"NUL target":     with(func(e *Entry) { *e = Entry{Name: "f", Kind: KindSymlink, Target: "a\x00"} }),
		"long target":    with(func(e *Entry) { *e = Entry{Name: "f", Kind: KindSymlink, Target: strings.Repeat("a", 4096)} }),
		"sizes overflow": {Entries: []Entry{{Name: "a", Kind: KindFile, Size: math.MaxInt64, Digest: Sum(nil)}, {Name: "b", Kind: KindFile, Size: 1, Digest: Sum(nil)}}},
		"attr order":     with(func(e *Entry) { e.Attrs = Attrs{{"b", ""}, {"a", ""}} }),
		"attr twice":     with(func(e *Entry) { e.Attrs = Attrs{{"a", ""}, {"a", ""}} }),
		"attr no key":    with(func(e *Entry) { e.Attrs = Attrs{{"", "x"}} }),
		"attr too big":   {Attrs: Attrs{{"a", strings.Repeat("x", MaxAttrBytes)}}},
		"single of two":  {Single: true, Entries: []Entry{{Name: "a", Kind: KindFile, Digest: Sum(nil)}, {Name: "b", Kind: KindFile, Digest: Sum(nil)}}},
		"single of none": {Single: true},
		"single link":    {Single: true, Entries: []Entry{{Name: "a", Kind: KindSymlink, Target: "x"}}},
	} {
		if _, err := tree.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
}

// rawEntry encodes an entry as Encode would, if Encode let it.
func rawEntry(name string) []byte {
	b := append([]byte{byte(KindFile)}, byte(len(name)))
	b = append(b, name...)
	b = append(b, 0)
	d := Sum(nil)
	b = append(b, d[:]...)
	return append(b, 0)
}

func TestParseRefusesEscapes(t *testing.T) {
	head := append([]byte(treeMagic), treeVersion, 0, 0)
	good := slices.Concat(head, []byte{1}, rawEntry("ok"))
	if _, err := ParseTree(good); err != nil {
		t.Fatalf("the test's own encoding: %v", err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "/", "../x", "a\x00b"} {
		if _, err := ParseTree(slices.Concat(head, []byte{1}, rawEntry(name))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("name %q: %v, want ErrCorrupt", name, err)
		}
	}
	for what, b := range map[string][]byte{
		"empty":         {},
		"other magic":   []byte("curitreX\x01\x00\x00\x00"),
		"flag":          append([]byte(treeMagic), treeVersion, 2, 0, 0),
		"rest":          append(bytes.Clone(good), 0),
		"long number":   slices.Concat(head, []byte{0x81, 0x00}, rawEntry("ok")),
		"long varint":   slices.Concat(head, bytes.Repeat([]byte{0xff}, 11)),
		"out of order":  slices.Concat(head, []byte{2}, rawEntry("b"), rawEntry("a")),
		"name twice":    slices.Concat(head, []byte{2}, rawEntry("a"), rawEntry("a")),
		"negative size": slices.Concat(head, []byte{1, 1, 1, 'a'}, binary.AppendUvarint(nil, 1<<63), make([]byte, 33)),
	} {
		if _, err := ParseTree(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", what, err)
		}
	}
	for i := range good {
		if _, err := ParseTree(good[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v, want ErrCorrupt", i, err)
		}
	}
	if _, err := ParseTree(append([]byte(treeMagic), 2, 0, 0, 0)); !errors.Is(err, ErrFormat) {
		t.Errorf("newer version: %v, want ErrFormat", err)
	}
}

func TestHostileCountsAllocateLittle(t *testing.T) {
	head := append([]byte(treeMagic), treeVersion, 0)
	huge := binary.AppendUvarint(nil, 1<<60)
	for what, b := range map[string][]byte{
		"attributes": slices.Concat(head, huge),
		"entries":    slices.Concat(head, []byte{0}, huge, make([]byte, 100)),
		"name":       slices.Concat(head, []byte{0, 1, 1}, huge, make([]byte, 100)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ParseTree(b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", what, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated for %d bytes of input", what, n, len(b))
		}
	}
}

func FuzzParseTree(f *testing.F) {
	for _, tree := range []*Tree{{}, sampleTree(), {Single: true, Entries: sampleTree().Entries[:1]}} {
		b, err := tree.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := ParseTree(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		again, err := tree.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("encoded again %x, %v; parsed %x", again, err, b)
		}
		for _, e := range tree.Entries {
			if CheckEntryName(e.Name) != nil {
				t.Errorf("parsed the name %q", e.Name)
			}
		}
	})
}

func TestAttrs(t *testing.T) {
	a := MetaAttrs(map[string]string{"b": "2", "a": "1"})
	if !slices.Equal(a, Attrs{{"user.curi.a", "1"}, {"user.curi.b", "2"}}) {
		t.Errorf("MetaAttrs: %v", a)
	}
	b := a.With("mtime", "5").With("user.curi.a", "")
	if v, ok := b.Get("user.curi.a"); !ok || v != "" {
		t.Errorf("Get after With: %q, %v", v, ok)
	}
	if v, _ := a.Get("user.curi.a"); v != "1" {
		t.Errorf("With changed its receiver: %q", v)
	}
	if err := b.check(); err != nil {
		t.Errorf("With broke the order: %v", err)
	}
	if c := b.Without("mtime").Without("none"); len(c) != 2 || len(b) != 3 {
		t.Errorf("Without: %v of %v", c, b)
	}
	if m := b.Meta(); len(m) != 2 || m["b"] != "2" {
		t.Errorf("Meta: %v", m)
	}
	if m := Attrs(nil).Meta(); m == nil {
		t.Error("Meta of no attributes is nil")
	}
}

// The example of docs/format.md.
func TestDocumentedTree(t *testing.T) {
	tree := &Tree{Entries: []Entry{{Name: "a", Kind: KindFile, Digest: Sum(nil)}}}
	want := "\x63\x75\x72\x69\x74\x72\x65\x65\x01\x00\x00\x01" + "\x01\x01\x61\x00" +
		"\xaf\x13\x49\xb9\xf5\xf9\xa1\xa6\xa0\x40\x4d\xea\x36\xdc\xc9\x49\x9b\xcb\x25\xc9\xad\xc1\x12\xb7\xcc\x9a\x93\xca\xe4\x1f\x32\x62" + "\x00"
	if b, err := tree.Encode(); err != nil || string(b) != want {
		t.Errorf("%d bytes, %x, %v; docs/format.md has %x", len(b), b, err, want)
	}
	if len(want) != 49 {
		t.Errorf("the example has %d bytes", len(want))
	}
}
