package cas

import (
	"errors"
	"fmt"
)

// The errors that callers test for with [errors.Is]. All others are wrapped
// with what was being done to which path.
var (
	// ErrNotFound: no such blob, tree, ref, version or tag.
	ErrNotFound = errors.New("not found")
	// ErrExists: a create-if-absent met an existing name.
	ErrExists = errors.New("already exists")
	// ErrCorrupt: bytes do not match their digest, or do not parse.
	ErrCorrupt = errors.New("corrupt")
	// ErrBusy: a file is still held open for writing or was replaced, or a lock is held.
	ErrBusy = errors.New("busy")
	// ErrChanged: a referenced file is not what it was when it was added.
	ErrChanged = errors.New("changed since it was added")
	// ErrInvalid: a name, pattern or option that can never be right.
	ErrInvalid = errors.New("invalid")
	// ErrFormat: the store was made by another version of Curi.
	ErrFormat = errors.New("store format not supported")
	// ErrNoSpace: the filesystem cannot hold what is to be stored.
	ErrNoSpace = errors.New("not enough space")
)

// also adds to err what went wrong when things were put back, on one line.
func also(err, more error) error {
	if more == nil {
		return err
	}
	return fmt.Errorf("%w; and then: %w", err, more)
}
