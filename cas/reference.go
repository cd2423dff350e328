package cas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// referencedFile is a file outside the store, as it was when it was hashed.
type referencedFile struct {
	Path  string `json:"path"` // absolute
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // ns since 1970
	Ctime int64  `json:"ctime"` // ns since 1970
	Inode uint64 `json:"inode"`
}

// reference is the content of STORE/references/<2 hex>/<digest>: the files
// that hold the blob, the one recorded last first.
type reference struct {
	Files []referencedFile `json:"files"`
}

// maxReferenced is how many files are remembered for one blob.
const maxReferenced = 16

// check reports [ErrChanged] if f, open, is not the file that was recorded.
func (r *referencedFile) check(f *os.File) error {
	st, err := fstatFile(f)
	if err != nil {
		return err
	}
	return r.compare(st)
}

func (r *referencedFile) compare(st fileState) error {
	var what string
	switch {
	case !st.isRegular():
		what = "kind"
	case st.size != r.Size:
		what = fmt.Sprintf("size (%d, was %d)", st.size, r.Size)
	case st.ino != r.Inode:
		what = "inode"
	case st.mtime != r.Mtime:
		what = "mtime"
	case st.ctime != r.Ctime:
		what = "ctime"
	default:
		return nil
	}
	return fmt.Errorf("%s has another %s; add it again, or bring it back: %w", r.Path, what, ErrChanged)
}

func (s *Store) readReference(d Digest) (reference, error) {
	var r reference
	b, err := os.ReadFile(s.referencePath(d))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil || len(r.Files) == 0 {
		return r, fmt.Errorf("%s does not parse; add the file again: %w", s.referencePath(d), ErrCorrupt)
	}
	return r, nil
}

// putReference records, durably, that the file at the absolute path held the
// blob d when its state was st. The caller sees to it that nobody else records
// files for that blob at the same moment.
func (s *Store) putReference(d Digest, path string, st fileState) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("record reference to %s: not an absolute path: %w", path, ErrInvalid)
	}
	f := referencedFile{path, st.size, st.mtime, st.ctime, st.ino}
	old, err := s.readReference(d)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("record reference to %s: %w", path, err)
	}
	if slices.Contains(old.Files, f) {
		return nil
	}
	files := append([]referencedFile{f}, slices.DeleteFunc(old.Files, func(o referencedFile) bool { return o.Path == path })...)
	b, err := json.Marshal(reference{files[:min(len(files), maxReferenced)]})
	if err != nil {
		return err
	}
	return s.writeFileDurable(s.referencePath(d), append(b, '\n'), s.smallFileMode())
}

func (s *Store) hasReference(d Digest) bool {
	_, err := os.Lstat(s.referencePath(d))
	return err == nil
}

// openReference opens the first recorded file that still is what it was.
func (s *Store) openReference(d Digest) (*Blob, error) {
	r, err := s.readReference(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob %s: %w", d, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", d, err)
	}
	var first error
	for i := range r.Files {
		ref := &r.Files[i]
		// Should the name have become a FIFO, do not hang.
		f, err := os.OpenFile(ref.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			if err = ref.check(f); err == nil {
				return &Blob{File: f, size: ref.Size, digest: d, reference: ref}, nil
			}
			f.Close()
		} else if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s is gone; bring it back or add it again: %w", ref.Path, ErrChanged)
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("open referenced blob %s: %w", d, first)
}

// CheckReferences looks at every referenced file that the tree needs: one that
// is no longer what was recorded is an error that wraps [ErrChanged] and names
// the path in the tree. Whoever read the tree for a while, and publishes what
// came of it, asks again before.
func (s *Store) CheckReferences(ctx context.Context, tree Digest) error {
	if rooms, err := os.ReadDir(filepath.Join(s.dir, "references")); err == nil && len(rooms) == 0 {
		return nil
	}
	checked := map[Digest]bool{}
	return s.Walk(ctx, tree, func(path string, e Entry) error {
		if !e.IsRegular() || checked[e.Digest] || s.hasLocalBlob(e.Digest) {
			return nil
		}
		checked[e.Digest] = true
		b, err := s.openReference(e.Digest)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return b.Close()
	})
}
