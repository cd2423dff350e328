package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// What keeps trees and blobs elsewhere, in parts, needs a little more of their
// formats than who has them whole.

// MinOutboard is the size in bytes from which on a blob has an outboard: it
// must have more than these.
const MinOutboard = outboardMin

// GroupSize is the number of bytes that an outboard verifies at a time.
const GroupSize = groupSize

// OutboardSize is the length in bytes of the outboard of size bytes.
func OutboardSize(size int64) int64 { return outboardSize(size) }

// OutboardHead is how the outboard of size bytes begins: all but its nodes.
func OutboardHead(size int64) []byte { return outboardHead(size) }

// SumAt returns the digest of the size bytes of r, using all cores. If outboard
// is not nil the outboard is written to it.
func SumAt(ctx context.Context, r io.ReaderAt, size int64, outboard io.WriterAt) (Digest, error) {
	return hashFile(ctx, r, size, outboard)
}

// ParseTreeHead parses what the encoding of a tree begins with: all but its
// entries, of which n follow at b[used:].
func ParseTreeHead(b []byte) (t *Tree, n, used int, err error) {
	t = &Tree{}
	d, err := t.decodeHead(b)
	var count uint64
	if err == nil {
		count = d.uvarint()
		err = d.err
	}
	if err == nil {
		err = t.Attrs.check()
	}
	if err == nil && count > maxTreeSize/minEntrySize {
		err = errors.New("too many entries")
	}
	if err != nil {
		return nil, 0, 0, parseError(err)
	}
	return t, int(count), len(b) - len(d.b), nil
}

// ParseEntries parses n entries that stand in a row in the encoding of a tree,
// and returns them and the number of bytes that they take. What no tree could
// hold is an error that wraps [ErrCorrupt].
func ParseEntries(b []byte, n int) (entries []Entry, used int, err error) {
	d := decoder{b: b}
	if n < 0 || n > len(b)/minEntrySize {
		return nil, 0, fmt.Errorf("parse entries: %d in %d bytes: %w", n, len(b), ErrCorrupt)
	}
	entries = make([]Entry, 0, n)
	for i := 0; i < n && d.err == nil; i++ {
		entries = append(entries, d.entry())
	}
	err = d.err
	if err == nil {
		err = (&Tree{Entries: entries}).check()
	}
	if err != nil {
		return nil, 0, fmt.Errorf("parse entries: %w: %w", err, ErrCorrupt)
	}
	return entries, len(b) - len(d.b), nil
}
