package cas

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
)

// cannotWrite reports whether err means that nothing can be written to the
// store for now, though it can be read: it is full, on a filesystem that is
// mounted read-only, or another user's.
func cannotWrite(err error) bool {
	return errors.Is(err, ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}

// hold keeps a stored tree from being collected while it is read, until
// release; [ErrNotFound] if it is gone. That is a pin where one can be written.
// Elsewhere it is the lock that commits share, which a collection waits for.
func (s *Store) hold(ctx context.Context, what string, tree Digest) (release func(), err error) {
	pin, err := s.Pin(ctx, what, tree)
	if err == nil {
		return func() { _ = pin.Release() }, nil // void without its holder anyway
	}
	if !cannotWrite(err) {
		return nil, err
	}
	release, err = s.shareCommit(ctx)
	if cannotWrite(err) {
		release, err = func() {}, nil // without the lock's file there was no collection yet
	}
	if err != nil {
		return nil, err
	}
	if err := s.needTree(tree); err != nil {
		release()
		return nil, err
	}
	return release, nil
}
