package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// A root is a tree that something needs.
type root struct {
	tree Digest
	by   string // "digits@2", "stage/<key>", "pin …"
}

// namedRoots lists the trees of all refs and versions. A name that cannot be
// read is an error: what it needs is unknown.
func (s *Store) namedRoots(ctx context.Context) ([]root, error) {
	roots, bad := s.scanNames(ctx)
	if len(bad) > 0 {
		return nil, bad[0]
	}
	return roots, ctx.Err()
}

// scanNames lists the trees of all refs and versions, and apart the errors of
// those that cannot be read.
func (s *Store) scanNames(ctx context.Context) (roots []root, bad []error) {
	names, err := s.artifactNames()
	if err != nil {
		bad = append(bad, err)
	}
	for _, name := range names {
		ns, err := s.numbers(name)
		if err != nil {
			bad = append(bad, err)
		}
		for _, n := range ns {
			v, err := s.readVersion(name, n)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				bad = append(bad, err)
				continue
			}
			roots = append(roots, root{v.Tree, fmt.Sprintf("%s@%d", name, n)})
		}
	}
	for r, err := range s.Refs(ctx, "") {
		switch {
		case err != nil:
			bad = append(bad, err)
		case !r.Tree.IsZero():
			roots = append(roots, root{r.Tree, r.Name})
		}
	}
	return roots, bad
}

// heldRoots lists the trees that running things need: those of live pins and
// of the places that runs have. void is told of pins that count no more.
func (s *Store) heldRoots(ctx context.Context, placeAge time.Duration, void func(path string)) ([]root, error) {
	var roots []root
	err := s.livePins(func(trees []Digest) error {
		for _, d := range trees {
			roots = append(roots, root{d, "a pin"})
		}
		return nil
	}, func(path string) error {
		void(path)
		return nil
	})
	if err != nil {
		return nil, err
	}
	places, err := s.placeInfos(ctx, placeAge)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if !p.active {
			continue
		}
		need := func(d Digest, what string) {
			// What a run reads, its pin has. A place whose trees are gone may be
			// held by another collection, which is about to remove it.
			if !d.IsZero() && s.needTree(d) == nil {
				roots = append(roots, root{d, "place " + p.short + " " + what})
			}
		}
		for name, d := range p.state.Inputs {
			need(d, "in/"+name)
		}
		need(p.state.Result, "out")
	}
	return roots, nil
}

// placeInfo is a place as a collection sees it.
type placeInfo struct {
	short  string
	dir    string
	state  PlaceState
	held   bool // a run has it
	active bool // held, or left without an end not long ago
	old    bool // nothing in it changed for the age asked for
}

// placeInfos looks at all places. One whose state cannot be read is an error:
// what it needs is unknown.
func (s *Store) placeInfos(ctx context.Context, age time.Duration) ([]placeInfo, error) {
	at := filepath.Join(s.dir, "at")
	ents, err := os.ReadDir(at)
	if noFile(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list places: %w", err)
	}
	var places []placeInfo
	for _, e := range ents {
		link := e.Type()&os.ModeSymlink != 0
		if !e.IsDir() && !link || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := placeInfo{short: e.Name(), dir: filepath.Join(at, e.Name())}
		if link { // it lies elsewhere
			if p.dir, err = filepath.EvalSymlinks(p.dir); err != nil {
				continue
			}
		}
		p.state, err = s.placeState(p.short)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("%w: move the place away and try again", err)
		}
		if err == nil {
			if p.held, err = s.lockHeld(KeyLock(p.state.Key)); err != nil {
				return nil, err
			}
		}
		p.old = age > 0 && !p.held && !changedSince(p.dir, fault.Now().Add(-age))
		p.active = p.held || p.state.Active && !p.old
		places = append(places, p)
	}
	return places, nil
}

// lockHeld reports whether somebody holds a lock. It takes it for a moment
// only in a way that does not hinder others who look.
func (s *Store) lockHeld(name string) (bool, error) {
	f, err := os.Open(s.lockPath(name))
	if noFile(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	h, err := readHolder(f)
	if err != nil {
		return false, err
	}
	if h.PID != 0 && !sameKernel(h.Host, h.BootID) {
		silent, err := s.silentFor(f)
		return silent < leaseSilence(), err
	}
	// Also where no holder is written: it may be just about to.
	free, err := tryFlock(f, unix.LOCK_SH)
	return !free, err
}

// changedSince reports whether anything below dir is younger than t. A run
// that never ended wrote its state long before its last checkpoint.
func changedSince(dir string, t time.Time) bool {
	changed := false
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err == nil && fi.ModTime().After(t) {
			changed = true
			return filepath.SkipAll
		}
		return nil
	})
	return changed || err != nil && !noFile(err)
}

// marker knows what is needed.
type marker struct {
	s     *Store
	trees map[Digest]bool
	blobs map[Digest]bool
	lazy  map[Digest]bool // trees that are not here whole
}

func (s *Store) newMarker() *marker {
	return &marker{s, map[Digest]bool{}, map[Digest]bool{}, map[Digest]bool{}}
}

// mark marks everything below the roots. A tree that is missing or damaged
// ends it, as nobody knows what it needs.
func (m *marker) mark(ctx context.Context, roots []root) error {
	for _, r := range roots {
		if err := m.tree(ctx, r.tree, 0); err != nil {
			return fmt.Errorf("%s needs what cannot be read, so nothing was removed: %w: run a check of the store, or remove that name", r.by, err)
		}
	}
	return nil
}

func (m *marker) tree(ctx context.Context, d Digest, depth int) error {
	if m.trees[d] {
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("tree %s: nested too deep: %w", d, ErrCorrupt)
	}
	t, err := m.s.storedTree(ctx, d)
	if errors.Is(err, ErrNotFound) && m.s.HasLazyTree(d) {
		m.lazy[d] = true
		return m.came(ctx, d, depth)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.s.treePath(d), err)
	}
	for i := range t.Entries {
		e := &t.Entries[i]
		switch {
		case e.Kind == KindDir:
			err = m.tree(ctx, e.Digest, depth+1)
		case e.IsRegular():
			m.blobs[e.Digest] = true
		}
		if err != nil {
			return err
		}
	}
	m.trees[d] = true
	return nil
}

// came marks what came of a lazy tree: blobs, and parts that are trees by
// themselves.
func (m *marker) came(ctx context.Context, lazy Digest, depth int) (err error) {
	m.s.lazyCame(lazy, func(d Digest) {
		m.blobs[d] = true
		if err == nil && m.s.HasTree(d) {
			err = m.tree(ctx, d, depth+1)
		}
	})
	return err
}

// digestsIn lists the digests that the store has in one of its rooms, in order.
func (s *Store) digestsIn(ctx context.Context, room string) ([]Digest, error) {
	return s.digestsOf(ctx, room, "")
}

// digestsOf lists those of which there is a file with a suffix.
func (s *Store) digestsOf(ctx context.Context, room, suffix string) ([]Digest, error) {
	dir := filepath.Join(s.dir, room)
	shards, err := os.ReadDir(dir)
	if noFile(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var all []Digest
	for _, sh := range shards {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ents, err := os.ReadDir(filepath.Join(dir, sh.Name()))
		if noFile(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		for _, e := range ents {
			name, ok := strings.CutSuffix(e.Name(), suffix)
			if d, err := ParseDigest(name); ok && err == nil && strings.HasPrefix(name, sh.Name()) {
				all = append(all, d)
			}
		}
	}
	return slices.Clip(all), nil
}
