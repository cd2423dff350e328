package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A lazy tree is one that a remote has and the store does not have whole. It
// lies in a tier of its own, which says so itself: a directory for each root
// that was taken over by [Store.Adopt] or read through a mount,
//
//	lazy/<aa>/<digest>/tree.json   the remotes that have it
//	                   came        the digests of what came of it, 32 bytes each
//	                   p<offset>   what was read of the remote's recipe, from that offset on
//
// STORE/trees keeps its promise: what lies there is whole. A lazy tree may be
// named by refs and versions, pinned, and be the input of a stage, as any
// other. What was read of it stays, so that it can be read again without the
// remote: blobs in the store as all others, large ones that are not whole as
// partial blobs ([Partial]).
//
// Of the functions of [Store], those that read trees and blobs ([Store.Tree],
// [Store.Head], [Store.Lookup], [Store.Walk], [Store.FS], [Store.OpenBlob],
// [Store.Diff]) bring what they need, if the store was told how
// ([Store.UseRemotes]). Those that need all of a tree ([Store.Checkout],
// [Store.View], [Store.PathOf]) complete it first. HasTree and HasBlob tell
// only of what is here. Verify counts what is not here yet as neither missing
// nor bad. Usage counts what came. Collect keeps a lazy tree that is named or
// pinned, with what came of it; another goes when nobody opened it for
// [CollectOptions.PartialAge].

// Remotes is how a store reaches what only remotes have. Package remote has
// the one that Curi uses; a test may have another. All methods may be called
// by several goroutines at once.
type Remotes interface {
	// Names lists the remotes that the store knows, and with one of them the
	// names of its artifacts, as of the last pull.
	Names(ctx context.Context, remote string) ([]string, error)
	// Find finds NAME, NAME@NUMBER or NAME@TAG among them; [ErrNotFound].
	Find(ctx context.Context, remote, name string) (Digest, error)
	// FindTree finds a remote on which one of those names means the tree;
	// [ErrNotFound]. No remote is asked.
	FindTree(ctx context.Context, tree Digest) (remote string, err error)
	// Open opens a tree of a remote. What is read about it, not of it, may be
	// kept in pages.
	Open(ctx context.Context, remote string, root Digest, pages *Pages) (RemoteTree, error)
}

// RemoteTree is a tree that a remote has, open. All that it returns is
// verified. Its methods may be called by several goroutines at once, end soon
// after their context does, and fail within a bound where the remote is away.
type RemoteTree interface {
	// Root is the tree itself, a KindDir entry without a name.
	Root() LazyEntry
	// Files is how many files the tree has, as the remote says.
	Files() int64
	// Tree reads a directory whole.
	Tree(ctx context.Context, dir LazyEntry) (*Tree, []LazyEntry, error)
	// Lookup finds a name in a directory, of a large one without reading it
	// whole; [ErrNotFound].
	Lookup(ctx context.Context, dir LazyEntry, name string) (LazyEntry, error)
	// Large reports whether Lookup costs less than Tree.
	Large(dir LazyEntry) bool
	// Small reads a file of at most [MinOutboard] bytes.
	Small(ctx context.Context, e LazyEntry) ([]byte, error)
	// Range brings what lacks from lo to hi of a larger file into p, and
	// perhaps what comes along of what lies around.
	Range(ctx context.Context, e LazyEntry, p *Partial, lo, hi int64) error
	// Stretch is where the part of a larger file ends that begins at a byte, the
	// beginning of a group, and comes best as one Range; that byte itself where a
	// few small ones at once are better.
	Stretch(ctx context.Context, e LazyEntry, at int64) (int64, error)
	// Pull brings all of a directory into the store, and pins it.
	Pull(ctx context.Context, dir LazyEntry, progress Progress) (*Added, error)
}

// LazyEntry is an entry of a tree that a remote has. The place is where what it
// names lies there; only the RemoteTree that gave it knows what it means.
type LazyEntry struct {
	Entry
	Place [2]int64
}

// UseRemotes tells the store how to reach remotes. Call it before the store is
// used by others.
func (s *Store) UseRemotes(r Remotes) { s.remotes = r }

// UseScratch names a directory for what comes of large files that only remotes
// have while they are read, where the store cannot be written to; without, they
// cannot be read then. Call it before the store is used by others.
func (s *Store) UseScratch(dir string) { s.scratch = dir }

// Remotes is what UseRemotes was told; nil if nothing.
func (s *Store) Remotes() Remotes { return s.remotes }

// lazyFile is the content of tree.json.
type lazyFile struct {
	Remotes []string    `json:"remotes"`      // the one that was adopted last first
	In      *lazyInside `json:"in,omitempty"` // nil: the remotes have it as a tree of its own
	Made    *lazyMade   `json:"made,omitempty"`
}

// lazyInside is where a lazy tree lies in another one that a remote has.
type lazyInside struct {
	Tree  Digest   `json:"tree"`
	Place [2]int64 `json:"place"` // see [LazyEntry]
	Size  int64    `json:"size"`
}

// own reports whether the remotes have it as a tree of its own.
func (f lazyFile) own() bool { return f.In == nil && f.Made == nil }

func (s *Store) lazyPath(d Digest) string { return s.path("lazy", d) }

const lazyTreeFile = "tree.json"

// HasLazyTree reports whether the store knows a remote that has the tree. The
// tree may be in the store as well.
func (s *Store) HasLazyTree(d Digest) bool {
	_, err := os.Lstat(filepath.Join(s.lazyPath(d), lazyTreeFile))
	return err == nil
}

// LazyRemotes lists the remotes that are known to have the tree, the one to
// ask first first; [ErrNotFound] if the store knows none.
func (s *Store) LazyRemotes(d Digest) ([]string, error) {
	f, err := s.readLazy(d)
	return f.Remotes, err
}

func (s *Store) readLazy(d Digest) (f lazyFile, _ error) {
	err := readJSON(filepath.Join(s.lazyPath(d), lazyTreeFile), &f)
	if errors.Is(err, fs.ErrNotExist) {
		return lazyFile{}, fmt.Errorf("tree %s: %w", d, ErrNotFound)
	}
	if err == nil && len(f.Remotes) == 0 {
		err = ErrCorrupt
	}
	if err != nil {
		return lazyFile{}, fmt.Errorf("lazy tree %s: %w", d, err)
	}
	return f, nil
}

// KeepPages returns where the pages of a tree are kept that remote has, and
// notes that it has it: what was read already, before [Store.Adopt], need not be
// read again.
func (s *Store) KeepPages(ctx context.Context, remote string, tree Digest) (*Pages, error) {
	if err := s.noteLazy(ctx, remote, tree); err != nil {
		return nil, fmt.Errorf("keep what remote %s says of tree %s: %w", remote, tree.Short(), err)
	}
	return s.pages(tree), nil
}

// noteLazy writes that remote has the tree.
func (s *Store) noteLazy(ctx context.Context, remote string, tree Digest) error {
	if err := CheckName(remote); err != nil {
		return fmt.Errorf("remote: %w", err)
	}
	have, err := s.readLazy(tree)
	known := have.Remotes
	if err == nil && have.own() && known[0] == remote {
		return nil
	}
	if !have.own() {
		known = nil // they have it inside another
	}
	known = slices.DeleteFunc(known, func(r string) bool { return r == remote })
	return s.writeLazy(ctx, tree, lazyFile{Remotes: append([]string{remote}, known...)})
}

func (s *Store) writeLazy(ctx context.Context, tree Digest, f lazyFile) error {
	b, err := encodeJSON(f)
	if err != nil {
		return err
	}
	release, err := s.shareCommit(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.writeFileDurable(filepath.Join(s.lazyPath(tree), lazyTreeFile), b, s.smallFileMode())
}

// touchLazy notes that a lazy tree is used: a collection goes by it.
func (s *Store) touchLazy(d Digest) {
	now := time.Now()
	_ = os.Chtimes(filepath.Join(s.lazyPath(d), lazyTreeFile), now, now)
}

// Complete brings all of a lazy tree into the store and pins it until the
// result is released. A tree that is whole is only pinned. What an earlier call
// that was cut off brought is not fetched again.
func (s *Store) Complete(ctx context.Context, tree Digest, progress Progress) (*Added, error) {
	a, err := s.complete(ctx, tree, progress)
	if err != nil {
		return nil, fmt.Errorf("bring tree %s: %w", tree.Short(), err)
	}
	return a, nil
}

func (s *Store) complete(ctx context.Context, tree Digest, progress Progress) (*Added, error) {
	if s.HasTree(tree) {
		if a, err := s.addedWhole(ctx, tree); !errors.Is(err, ErrNotFound) {
			return a, err
		}
	}
	t, err := s.OpenLazyTree(ctx, tree)
	if err != nil {
		return nil, err
	}
	src, err := t.source(ctx)
	if err != nil {
		return nil, err
	}
	a, err := src.Pull(ctx, t.rootOf(src), progress)
	if err != nil {
		return nil, err
	}
	if a.Files = src.Files(); !t.file.own() {
		a.Files, err = s.countFiles(ctx, tree)
	}
	if err == nil && a.Single {
		err = a.look(ctx, s)
	}
	if err != nil {
		a.Release()
		return nil, err
	}
	return a, nil
}

// wholeTree completes a tree where a function needs all of it: a lazy one, or a
// directory that was met in one. Any other tree that is not whole is for that
// function to miss.
func (s *Store) wholeTree(ctx context.Context, tree Digest, progress Progress) (release func(), err error) {
	if s.HasTree(tree) {
		return func() {}, nil
	}
	if !s.HasLazyTree(tree) {
		if _, ok := s.met(tree); !ok {
			return func() {}, nil
		}
		dir, err := s.AdoptDir(ctx, tree)
		if err != nil {
			return nil, err
		}
		defer dir.Release()
	}
	a, err := s.Complete(ctx, tree, progress)
	if err != nil {
		return nil, err
	}
	return a.Release, nil
}
