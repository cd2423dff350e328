package cas

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Kind says what a tree entry is.
type Kind uint8

// The kinds of entries.
const (
	KindFile       Kind = iota + 1 // regular file, mode 0444 in views
	KindExecutable                 // regular file, mode 0555 in views
	KindDir                        // a tree of its own
	KindSymlink                    // Target holds the link's text
)

// String returns "file", "executable", "directory" or "symlink".
func (k Kind) String() string {
	switch k {
	case KindFile:
		return "file"
	case KindExecutable:
		return "executable"
	case KindDir:
		return "directory"
	case KindSymlink:
		return "symlink"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Limits of names and link targets in trees: those of Linux, so that every
// tree can be shown in a mount.
const (
	MaxName   = 255  // bytes of an entry's name
	MaxTarget = 4095 // bytes of a symlink's target
)

// Entry is one name in a [Tree].
type Entry struct {
	Name   string
	Kind   Kind
	Size   int64  // bytes of a file; of a directory: of all files below it
	Digest Digest // of the file's bytes or of the sub-tree's encoding; zero for symlinks
	Target string // of a symlink
	Attrs  Attrs
}

// IsRegular reports whether e is a file, executable or not.
func (e Entry) IsRegular() bool { return e.Kind == KindFile || e.Kind == KindExecutable }

// Tree is a directory, immutable once encoded. Entries are sorted by Name
// (bytewise) and unique.
type Tree struct {
	// Single marks an artifact that is one file: following the only entry of
	// each level leads to one regular file, and a reference to the artifact
	// means that file. Only roots have it.
	Single  bool
	Attrs   Attrs // the artifact's own metadata; empty below the root
	Entries []Entry
}

// Sort puts the entries in the order that [Tree.Encode] wants.
func (t *Tree) Sort() {
	slices.SortFunc(t.Entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
}

// Digest returns the digest of the canonical encoding.
func (t *Tree) Digest() (Digest, error) {
	b, err := t.Encode()
	if err != nil {
		return Digest{}, err
	}
	return Sum(b), nil
}

// Lookup finds the entry called name.
func (t *Tree) Lookup(name string) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(t.Entries, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return Entry{}, false
	}
	return t.Entries[i], true
}

// Bytes is the sum of the sizes of all files below t.
func (t *Tree) Bytes() int64 {
	var n int64
	for i := range t.Entries {
		n += t.Entries[i].Size
	}
	return n
}

// Files is the number of regular files directly in t.
func (t *Tree) Files() int64 {
	var n int64
	for i := range t.Entries {
		if t.Entries[i].IsRegular() {
			n++
		}
	}
	return n
}

// CheckEntryName reports why name cannot stand in a tree: empty, ".", "..",
// with '/' or NUL, or longer than [MaxName]. The error wraps [ErrInvalid].
func CheckEntryName(name string) error {
	if why := badEntryName(name); why != "" {
		return fmt.Errorf("file name %q %s: %w", name, why, ErrInvalid)
	}
	return nil
}

func badEntryName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case name == "." || name == "..":
		return "leads out of its directory"
	case len(name) > MaxName:
		return fmt.Sprintf("is longer than %d bytes", MaxName)
	case strings.IndexByte(name, '/') >= 0:
		return "has a slash"
	case strings.IndexByte(name, 0) >= 0:
		return "has a NUL byte"
	}
	return ""
}

// check reports why t has no canonical encoding.
func (t *Tree) check() error {
	if err := t.Attrs.check(); err != nil {
		return err
	}
	if t.Single {
		if len(t.Entries) != 1 || t.Entries[0].Kind == KindSymlink {
			return fmt.Errorf("a single-file tree must have one entry that leads to a file")
		}
	}
	var total int64
	for i := range t.Entries {
		e := &t.Entries[i]
		if why := badEntryName(e.Name); why != "" {
			return fmt.Errorf("name %q %s", e.Name, why)
		}
		if i > 0 && e.Name <= t.Entries[i-1].Name {
			return fmt.Errorf("names %q and %q are not in order", t.Entries[i-1].Name, e.Name)
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
		if e.Size > math.MaxInt64-total {
			return fmt.Errorf("%q: sizes add up to more than %d bytes", e.Name, int64(math.MaxInt64))
		}
		total += e.Size
	}
	return nil
}

// check reports why e, but for its name, cannot be encoded.
func (e *Entry) check() error {
	switch e.Kind {
	case KindFile, KindExecutable, KindDir:
		switch {
		case e.Size < 0:
			return fmt.Errorf("size %d is negative", e.Size)
		case e.Digest.IsZero():
			return fmt.Errorf("%s without a digest", e.Kind)
		case e.Target != "":
			return fmt.Errorf("%s with a link target", e.Kind)
		}
	case KindSymlink:
		switch {
		case e.Target == "":
			return fmt.Errorf("symlink without a target")
		case len(e.Target) > MaxTarget:
			return fmt.Errorf("symlink target is longer than %d bytes", MaxTarget)
		case strings.IndexByte(e.Target, 0) >= 0:
			return fmt.Errorf("symlink target has a NUL byte")
		case e.Size != 0 || !e.Digest.IsZero():
			return fmt.Errorf("symlink with a size or digest")
		}
	default:
		return fmt.Errorf("unknown %s", e.Kind)
	}
	return e.Attrs.check()
}
