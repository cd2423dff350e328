package cas

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The canonical encoding of a tree (docs/format.md, "Tree"):
//
//	tree    = "curitree" version flags attrs count entry*
//	version = 0x01
//	flags   = bit 0: Single; the others zero
//	attrs   = count (key value)*          keys strictly ascending
//	entry   = kind name body attrs        names strictly ascending
//	body    = size digest                 kinds file, executable, directory
//	        | target                      kind symlink
//	count, size   = unsigned LEB128, shortest form
//	key, value, name, target = length (as count), then the bytes
//	digest  = 32 bytes
//
// There is one encoding of each tree and nothing after it, so that equal
// directories have equal digests.

const (
	treeMagic   = "curitree"
	treeVersion = 1

	treeFlagSingle = 1 << 0

	// minEntrySize is the length of the shortest entry, a symlink: kind, name
	// length and byte, target length and byte, no attributes. It bounds what a
	// hostile count can make the parser allocate.
	minEntrySize = 6
	minAttrSize  = 3 // key length and byte, value length

	// maxTreeSize bounds what is read into memory for one directory: some ten
	// million names.
	maxTreeSize = 1 << 30
)

// Encode returns the canonical encoding (docs/format.md). A tree that has none
// (names out of order, a name that could escape, ...) is an error that wraps
// [ErrInvalid].
func (t *Tree) Encode() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("encode tree: %w: %w", err, ErrInvalid)
	}
	n := len(treeMagic) + 2 + attrsSize(t.Attrs) + binary.MaxVarintLen64
	for i := range t.Entries {
		e := &t.Entries[i]
		n += len(e.Name) + len(e.Target) + 1 + 2 + binary.MaxVarintLen64 + DigestSize + attrsSize(e.Attrs)
	}
	b := make([]byte, 0, n)
	b = append(b, treeMagic...)
	var flags byte
	if t.Single {
		flags |= treeFlagSingle
	}
	b = append(b, treeVersion, flags)
	b = appendAttrs(b, t.Attrs)
	b = binary.AppendUvarint(b, uint64(len(t.Entries)))
	for i := range t.Entries {
		e := &t.Entries[i]
		b = append(b, byte(e.Kind))
		b = appendString(b, e.Name)
		if e.Kind == KindSymlink {
			b = appendString(b, e.Target)
		} else {
			b = binary.AppendUvarint(b, uint64(e.Size))
			b = append(b, e.Digest[:]...)
		}
		b = appendAttrs(b, e.Attrs)
	}
	if len(b) > maxTreeSize {
		return nil, fmt.Errorf("encode tree: %d entries take %d bytes, a directory can have %d; split it: %w", len(t.Entries), len(b), maxTreeSize, ErrInvalid)
	}
	return b, nil
}

func attrsSize(a Attrs) int {
	n := 2
	for _, x := range a {
		n += 2*3 + len(x.Key) + len(x.Value)
	}
	return n
}

func appendAttrs(b []byte, a Attrs) []byte {
	b = binary.AppendUvarint(b, uint64(len(a)))
	for _, x := range a {
		b = appendString(b, x.Key)
		b = appendString(b, x.Value)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// ParseTree parses a canonical encoding; whatever Encode would not have
// written is an error that wraps [ErrCorrupt]. A version of the encoding that
// this package does not know wraps [ErrFormat].
func ParseTree(b []byte) (*Tree, error) {
	t, err := parseTree(b)
	if err != nil {
		return nil, parseError(err)
	}
	return t, nil
}

func parseError(err error) error {
	if errors.Is(err, ErrFormat) {
		return fmt.Errorf("parse tree: %w", err)
	}
	return fmt.Errorf("parse tree: %w: %w", err, ErrCorrupt)
}

// parseTreeHead is ParseTree without the entries, which it does not look at.
func parseTreeHead(b []byte) (single bool, attrs Attrs, err error) {
	t := &Tree{}
	if _, err = t.decodeHead(b); err == nil {
		err = t.Attrs.check()
	}
	if err != nil {
		return false, nil, parseError(err)
	}
	return t.Single, t.Attrs, nil
}

// decodeHead reads what stands before the entries, and leaves the decoder at
// their number.
func (t *Tree) decodeHead(b []byte) (*decoder, error) {
	if len(b) < len(treeMagic)+2 || string(b[:len(treeMagic)]) != treeMagic {
		return nil, errors.New("does not begin like a tree")
	}
	version, flags := b[len(treeMagic)], b[len(treeMagic)+1]
	if version != treeVersion {
		return nil, fmt.Errorf("encoding version %d, this Curi reads %d: use a newer Curi: %w", version, treeVersion, ErrFormat)
	}
	if flags&^treeFlagSingle != 0 {
		return nil, fmt.Errorf("unknown flags %#x", flags)
	}
	d := &decoder{b: b[len(treeMagic)+2:]}
	t.Single, t.Attrs = flags&treeFlagSingle != 0, d.attrs()
	return d, d.err
}

func parseTree(b []byte) (*Tree, error) {
	t := &Tree{}
	d, err := t.decodeHead(b)
	if err != nil {
		return nil, err
	}
	if n := d.count(minEntrySize); n > 0 {
		t.Entries = make([]Entry, 0, n)
		for i := 0; i < n && d.err == nil; i++ {
			t.Entries = append(t.Entries, d.entry())
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	if len(d.b) != 0 {
		return nil, fmt.Errorf("%d bytes after the end", len(d.b))
	}
	return t, t.check()
}

// decoder takes values off the front of b; after the first error it yields
// zero values.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.b) {
		d.fail("cut off")
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("cut off or too large a number")
		return 0
	}
	if n > 1 && d.b[n-1] == 0 {
		d.fail("a number is not in its shortest form")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many items follow, each of at least size bytes.
func (d *decoder) count(size int) int { return d.fit(d.uvarint(), size) }

// fit is the number of items v, each of at least size bytes, if there is room.
func (d *decoder) fit(v uint64, size int) int {
	if v > uint64(len(d.b)/size) {
		d.fail("%d items announced, there is no room for them", v)
		return 0
	}
	return int(v)
}

func (d *decoder) string() string { return string(d.take(d.count(1))) }

func (d *decoder) attrs() Attrs {
	n := d.count(minAttrSize)
	if n == 0 {
		return nil
	}
	if n > MaxAttrs {
		d.fail("%d attributes, at most %d are kept", n, MaxAttrs)
		return nil
	}
	a := make(Attrs, 0, n)
	for range n {
		a = append(a, Attr{d.string(), d.string()})
	}
	return a
}

func (d *decoder) entry() Entry {
	var e Entry
	if k := d.take(1); k != nil {
		e.Kind = Kind(k[0])
	}
	e.Name = d.string()
	if e.Kind == KindSymlink {
		e.Target = d.string()
	} else {
		size := d.uvarint()
		if size > math.MaxInt64 {
			d.fail("size %d is too large", size)
		}
		e.Size = int64(size)
		copy(e.Digest[:], d.take(DigestSize))
	}
	e.Attrs = d.attrs()
	return e
}
