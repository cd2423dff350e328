package cas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/internal/fault"
)

// Ref is a mutable name for a tree: "stage/<key>", "run/<id>",
// "part/<run>/<node>". Artifacts have functions of their own.
type Ref struct {
	Name string          `json:"-"`
	Tree Digest          `json:"tree"` // zero where a run left no tree
	Time time.Time       `json:"time"` // when it was written
	Info json.RawMessage `json:"info,omitempty"`
}

// The limits of a ref's name; one component is a file name on every system.
const (
	maxRefName      = 1024
	maxRefComponent = 200
)

// checkRefName refuses what is no ref or could lead out of STORE/refs. Names
// that begin with a dot are the store's own.
func checkRefName(name string) error {
	bad := func(why string) error { return fmt.Errorf("ref name %q: %s: %w", name, why, ErrInvalid) }
	if len(name) > maxRefName {
		return bad("longer than 1024 bytes")
	}
	parts := strings.Split(name, "/")
	if len(parts) < 2 {
		return bad(`want a kind and a name, such as "run/train-7f3k2m"`)
	}
	if parts[0] == "artifact" {
		return bad("artifacts are published, not set")
	}
	for _, p := range parts {
		if why := badComponent(p); why != "" {
			return bad(why)
		}
	}
	return nil
}

// badComponent says why p cannot be a file below refs/ or locks/; "" if it can.
func badComponent(p string) string {
	switch {
	case p == "":
		return "has an empty part"
	case p[0] == '.':
		return "has a part that begins with a dot"
	case len(p) > maxRefComponent:
		return "has a part longer than 200 bytes"
	}
	for i := range len(p) {
		c := p[i]
		if !isNameByte(c) && !strings.ContainsRune("._+=:,@", rune(c)) {
			return fmt.Sprintf("holds %q", c)
		}
	}
	return ""
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

func (s *Store) refPath(name string) string {
	return filepath.Join(s.dir, "refs", filepath.FromSlash(name))
}

// parseRef parses a ref's file; what is wrong wraps [ErrCorrupt]. Fields of
// later versions are passed over.
func parseRef(b []byte) (Ref, error) {
	var w struct {
		Tree *Digest         `json:"tree"`
		Time *time.Time      `json:"time"`
		Info json.RawMessage `json:"info"`
	}
	if err := parseJSON(b, &w); err != nil {
		return Ref{}, err
	}
	if w.Tree == nil {
		return Ref{}, fmt.Errorf("%w: lacks tree", ErrCorrupt)
	}
	if w.Time == nil {
		return Ref{}, fmt.Errorf("%w: lacks time", ErrCorrupt)
	}
	return Ref{Tree: *w.Tree, Time: *w.Time, Info: w.Info}, nil
}

// SetRef creates or replaces a ref, durably; the tree must be stored
// ([ErrNotFound]). A zero Time means now.
func (s *Store) SetRef(ctx context.Context, r Ref) error {
	return s.writeRef(ctx, r, s.putAnyway)
}

// CreateRef creates a ref; [ErrExists] if the name is taken. Of several
// processes that try at once one succeeds.
func (s *Store) CreateRef(ctx context.Context, r Ref) error {
	return s.writeRef(ctx, r, s.createFile)
}

func (s *Store) writeRef(ctx context.Context, r Ref, write func(string, []byte) error) error {
	if err := checkRefName(r.Name); err != nil {
		return err
	}
	if r.Time.IsZero() {
		r.Time = now()
	}
	b, err := encodeJSON(r)
	if err != nil {
		return fmt.Errorf("ref %s: info is not JSON (%v): %w", r.Name, err, ErrInvalid)
	}
	release, err := s.shareCommit(ctx)
	if err != nil {
		return fmt.Errorf("write ref %s: %w", r.Name, err)
	}
	defer release()
	if !r.Tree.IsZero() {
		if err := s.needTree(r.Tree); err != nil {
			return fmt.Errorf("write ref %s: %w", r.Name, err)
		}
	}
	return write(s.refPath(r.Name), b)
}

// needTree checks that a tree is stored or lazy; the caller has the right to
// commit.
func (s *Store) needTree(d Digest) error {
	if !s.HasTree(d) && !s.HasLazyTree(d) {
		return fmt.Errorf("tree %s is not stored: %w", d, ErrNotFound)
	}
	return nil
}

// Ref reads one ref; [ErrNotFound], or [ErrCorrupt] with its path.
func (s *Store) Ref(ctx context.Context, name string) (Ref, error) {
	if err := checkRefName(name); err != nil {
		return Ref{}, err
	}
	return s.readRef(name)
}

func (s *Store) readRef(name string) (Ref, error) {
	if err := fault.In(fault.Read); err != nil {
		return Ref{}, fmt.Errorf("read ref %s: %w", name, err)
	}
	path := s.refPath(name)
	b, err := os.ReadFile(path)
	switch {
	case noFile(err):
		return Ref{}, fmt.Errorf("ref %s: %w", name, ErrNotFound)
	case err != nil:
		return Ref{}, fmt.Errorf("read ref %s: %w", name, err)
	}
	r, err := parseRef(b)
	if err != nil {
		return Ref{}, fmt.Errorf("ref %s: %s: %w", name, path, err)
	}
	r.Name = name
	return r, nil
}

// noFile also takes a name below a file, or of a directory, for missing.
func noFile(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR)
}

// DeleteRef removes a ref; [ErrNotFound].
func (s *Store) DeleteRef(ctx context.Context, name string) error {
	if err := checkRefName(name); err != nil {
		return err
	}
	path := s.refPath(name)
	if fi, err := os.Lstat(path); noFile(err) || err == nil && fi.IsDir() {
		return fmt.Errorf("ref %s: %w", name, ErrNotFound)
	}
	if err := os.Remove(path); noFile(err) {
		return fmt.Errorf("ref %s: %w", name, ErrNotFound)
	} else if err != nil {
		return fmt.Errorf("delete ref %s: %w", name, err)
	}
	return syncDir(filepath.Dir(path))
}

// TouchRef notes that a ref was used now, for [Store.Collect]; [ErrNotFound]. It
// waits for a collection that sweeps: a ref that was touched is there, and a
// caller who lets unused ones expire finds it used. A member of the store's
// group may touch another's ref.
func (s *Store) TouchRef(ctx context.Context, name string) error {
	if err := checkRefName(name); err != nil {
		return err
	}
	release, err := s.shareCommit(ctx)
	if err != nil {
		return fmt.Errorf("touch ref %s: %w", name, err)
	}
	defer release()
	err = touchFile(s.refPath(name))
	if noFile(err) {
		return fmt.Errorf("ref %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("touch ref %s: %w", name, err)
	}
	return nil
}

// Refs yields the refs whose names begin with a prefix such as "run/", in
// order of names. One that does not parse is yielded as an error, with its
// Name, and the iteration goes on.
func (s *Store) Refs(ctx context.Context, prefix string) iter.Seq2[Ref, error] {
	return func(yield func(Ref, error) bool) {
		s.walkRefs(ctx, "", prefix, yield)
	}
}

// walkRefs yields the refs below the directory at, false to stop.
func (s *Store) walkRefs(ctx context.Context, at, prefix string, yield func(Ref, error) bool) bool {
	ents, err := os.ReadDir(s.refPath(at))
	if noFile(err) {
		return true
	}
	if err != nil {
		return yield(Ref{Name: at}, fmt.Errorf("list refs: %w", err))
	}
	for _, e := range ents {
		if err := ctx.Err(); err != nil {
			yield(Ref{}, err)
			return false
		}
		name := at + e.Name()
		if strings.HasPrefix(e.Name(), ".") || name == "artifact" {
			continue
		}
		if e.IsDir() {
			below := name + "/"
			if (strings.HasPrefix(below, prefix) || strings.HasPrefix(prefix, below)) && !s.walkRefs(ctx, below, prefix, yield) {
				return false
			}
			continue
		}
		if at == "" || !strings.HasPrefix(name, prefix) {
			continue
		}
		r, err := s.readRef(name)
		if errors.Is(err, ErrNotFound) {
			continue // deleted since the listing
		}
		if err != nil {
			r = Ref{Name: name}
		}
		if !yield(r, err) {
			return false
		}
	}
	return true
}
