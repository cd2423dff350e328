package cas

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// VerifyOptions of [Store.Verify].
type VerifyOptions struct {
	Sample   float64 // share of the blobs to rehash, 0 < Sample <= 1; 0 is all. Trees are always checked
	Progress Progress
}

// BadBlob is one that is not what its digest says.
type BadBlob struct {
	Digest Digest   `json:"digest"` // zero for a name that does not parse
	Reason string   `json:"reason"`
	UsedBy []string `json:"used_by"` // "digits@2/sub/file", "stage/<key>", "run/<id>"; sorted
	// Partial: it came in parts from a remote and is not whole; what was bad of
	// it comes anew when it is read.
	Partial bool `json:"partial,omitempty"`
}

// VerifyReport is what [Store.Verify] found.
type VerifyReport struct {
	BlobsChecked int64     `json:"blobs_checked"`
	Bad          []BadBlob `json:"bad"` // in order of digests
}

// Verify rehashes blobs, referenced files and trees, and what came of partial
// blobs, checks that outboards lead to their digests and that stored trees are whole, and moves what is bad
// to STORE/quarantine/<digest>.<time>; referenced files are left as they are,
// and a damaged outboard is made again. What the disk does not give is reported
// and left where it is: another read may succeed. So is all that is bad in a
// store that can only be read. Others may go on using the store.
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (VerifyReport, error) {
	r, err := s.verify(ctx, o)
	if err != nil {
		return r, fmt.Errorf("verify %s: %w", s.dir, err)
	}
	return r, nil
}

func (s *Store) verify(ctx context.Context, o VerifyOptions) (VerifyReport, error) {
	if o.Sample == 0 {
		o.Sample = 1
	}
	if !(o.Sample > 0 && o.Sample <= 1) {
		return VerifyReport{}, fmt.Errorf("a sample of %v: want a share above 0, at most 1: %w", o.Sample, ErrInvalid)
	}
	v := &verification{s: s, o: o, bad: map[Digest]*finding{}}
	if err := v.blobs(ctx); err != nil {
		return VerifyReport{}, err
	}
	if err := v.trees(ctx); err != nil {
		return VerifyReport{}, err
	}
	lost := v.names(ctx)
	if err := v.usedBy(ctx); err != nil {
		return VerifyReport{}, err
	}
	if err := v.quarantine(ctx); ctx.Err() != nil {
		return VerifyReport{}, err
	} else if err != nil {
		// What was found is worth more than what cannot be done about it.
		s.log.Warn("what is bad stays where it is", "err", err)
	}
	r := VerifyReport{BlobsChecked: v.checked, Bad: lost}
	for _, d := range v.order() {
		f := v.bad[d]
		if f.usedBy == nil {
			f.usedBy = []string{}
		}
		slices.Sort(f.usedBy)
		r.Bad = append(r.Bad, BadBlob{d, f.reason, f.usedBy, f.partial})
	}
	if r.Bad == nil {
		r.Bad = []BadBlob{}
	}
	return r, nil
}

// finding is what is wrong with one blob or tree.
type finding struct {
	reason  string
	partial bool
	path    string // to be quarantined; "" if there is nothing to move
	file    os.FileInfo
	usedBy  []string
}

type verification struct {
	s *Store
	o VerifyOptions

	mu         sync.Mutex
	bad        map[Digest]*finding
	checked    int64
	bytes      int64
	totalBytes int64
	total      int64
}

func (v *verification) order() []Digest {
	ds := make([]Digest, 0, len(v.bad))
	for d := range v.bad {
		ds = append(ds, d)
	}
	slices.SortFunc(ds, func(a, b Digest) int { return slices.Compare(a[:], b[:]) })
	return ds
}

// found notes what is wrong with d; the first finding counts.
func (v *verification) found(d Digest, f finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bad[d] == nil {
		v.bad[d] = &f
	}
}

// sample picks the share of ds that is asked for, at least one.
func (v *verification) sample(ds []Digest) []Digest {
	if v.o.Sample >= 1 || len(ds) == 0 {
		return ds
	}
	rand.Shuffle(len(ds), func(i, j int) { ds[i], ds[j] = ds[j], ds[i] })
	return ds[:int(math.Ceil(float64(len(ds))*v.o.Sample))]
}

// blobs rehashes blobs, referenced files and what there is of partial blobs.
func (v *verification) blobs(ctx context.Context) error {
	stored, err := v.s.digestsIn(ctx, "blobs")
	if err != nil {
		return err
	}
	referred, err := v.s.digestsIn(ctx, "references")
	if err != nil {
		return err
	}
	partial, err := v.s.digestsIn(ctx, "partial")
	if err != nil {
		return err
	}
	stored, referred, partial = v.sample(stored), v.sample(referred), v.sample(partial)
	v.total = int64(len(stored) + len(referred) + len(partial))
	for _, d := range stored {
		if fi, err := os.Lstat(v.s.blobPath(d)); err == nil {
			v.totalBytes += fi.Size()
		}
	}
	return parallel(ctx, int(v.total), runtime.GOMAXPROCS(0), func(ctx context.Context, i int) error {
		var n int64
		var err error
		switch k := i - len(stored); {
		case k < 0:
			n, err = v.blob(ctx, stored[i])
		case k < len(referred):
			n, err = v.reference(ctx, referred[k])
		default:
			n, err = v.partial(ctx, partial[k-len(referred)])
		}
		if err != nil {
			return err
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.checked++
		v.bytes += n
		if v.o.Progress != nil {
			v.o.Progress(v.bytes, max(v.bytes, v.totalBytes), v.checked, v.total)
		}
		return nil
	})
}

// blob checks one stored blob, in the same pass its outboard.
func (v *verification) blob(ctx context.Context, d Digest) (int64, error) {
	path := v.s.blobPath(d)
	f, err := os.Open(path)
	if noFile(err) {
		return 0, nil // collected meanwhile
	}
	if err != nil {
		v.found(d, finding{reason: "cannot be opened: " + err.Error()})
		return 0, nil
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		v.found(d, finding{reason: unreadable(err)})
		return 0, nil
	}
	if !fi.Mode().IsRegular() {
		v.found(d, finding{reason: "is not a regular file", path: path, file: fi})
		return 0, nil
	}
	ob := v.openOutboard(d, fi.Size())
	var have Digest
	if ob == nil {
		have, err = hashFile(ctx, f, fi.Size(), nil)
	} else {
		defer ob.Close()
		have, err = hashFile(ctx, f, fi.Size(), ob)
	}
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, ErrChanged):
		v.found(d, finding{reason: "cannot be read: " + err.Error(), path: path, file: fi})
	case err != nil:
		v.found(d, finding{reason: unreadable(err)})
	case have != d:
		v.found(d, finding{reason: fmt.Sprintf("its %d bytes have the digest %s", fi.Size(), have), path: path, file: fi})
	case ob != nil && ob.wrong.Load():
		return fi.Size(), v.remakeOutboard(ctx, d, f, fi.Size())
	}
	return fi.Size(), nil
}

// unreadable words what the disk, not the bytes, is to blame for.
func unreadable(err error) string {
	return fmt.Sprintf("cannot be read: %v; it stays where it is, as another read may succeed", err)
}

// reference checks one referenced file by its digest; it is never touched.
func (v *verification) reference(ctx context.Context, d Digest) (int64, error) {
	if v.s.hasLocalBlob(d) {
		return 0, nil
	}
	b, err := v.s.openReference(d)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		v.found(d, finding{reason: err.Error()})
		return 0, nil
	}
	defer b.Close()
	st, err := fstatFile(b.File)
	if err != nil {
		v.found(d, finding{reason: unreadable(err)})
		return 0, nil
	}
	have, err := hashFile(ctx, sparseSource(b.File, st), b.Size(), nil)
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil:
		v.found(d, finding{reason: fmt.Sprintf("referenced file %s: %v", b.Name(), err)})
	case have != d:
		v.found(d, finding{reason: fmt.Sprintf("referenced file %s now has the digest %s: %v", b.Name(), have, ErrChanged)})
	}
	return b.Size(), nil
}

// trees checks that trees parse and that what they name is stored.
func (v *verification) trees(ctx context.Context) error {
	ds, err := v.s.digestsIn(ctx, "trees")
	if err != nil {
		return err
	}
	return parallel(ctx, len(ds), runtime.GOMAXPROCS(0), func(ctx context.Context, i int) error { return v.tree(ctx, ds[i]) })
}

func (v *verification) tree(ctx context.Context, d Digest) error {
	path := v.s.treePath(d)
	fi, err := os.Stat(path)
	if noFile(err) {
		return nil
	}
	if err != nil {
		v.found(d, finding{reason: unreadable(err)})
		return nil
	}
	t, err := v.s.storedTree(ctx, d)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrNotFound):
		return nil
	case errors.Is(err, ErrCorrupt):
		v.found(d, finding{reason: err.Error(), path: path, file: fi})
		return nil
	case err != nil:
		v.found(d, finding{reason: unreadable(err)})
		return nil
	}
	for i := range t.Entries {
		e := &t.Entries[i]
		var reason string
		switch {
		case e.Kind == KindDir && !v.s.HasTree(e.Digest):
			reason = "the tree is missing"
		case e.IsRegular():
			reason = v.entryReason(e)
		}
		if reason != "" && v.s.HasTree(d) { // not collected just now
			v.found(e.Digest, finding{reason: reason})
		}
	}
	return nil
}

// entryReason says what is wrong with the blob of an entry as far as its size
// tells; "" if nothing.
func (v *verification) entryReason(e *Entry) string {
	fi, err := os.Lstat(v.s.blobPath(e.Digest))
	switch {
	case err == nil && fi.Size() != e.Size:
		return fmt.Sprintf("has %d bytes, its tree says %d", fi.Size(), e.Size)
	case noFile(err) && !v.s.hasReference(e.Digest):
		return "is missing"
	}
	return ""
}

// names checks refs, versions and the trees that they name.
func (v *verification) names(ctx context.Context) (unreadable []BadBlob) {
	roots, bad := v.s.scanNames(ctx)
	for _, err := range bad {
		unreadable = append(unreadable, BadBlob{Reason: err.Error(), UsedBy: []string{}})
	}
	for _, r := range roots {
		if v.s.needTree(r.tree) != nil {
			v.found(r.tree, finding{reason: "the tree is missing"})
		}
	}
	return unreadable
}

// quarantine moves the bad files away, while no commit relies on them.
func (v *verification) quarantine(ctx context.Context) error {
	order := slices.DeleteFunc(v.order(), func(d Digest) bool { return v.bad[d].path == "" })
	if len(order) == 0 {
		return nil // a store that can only be read can be verified, too
	}
	stamp := time.Now().UTC().Format("20060102T150405Z")
	release, err := v.s.stopCommits(ctx)
	if err != nil {
		return err
	}
	defer release()
	for _, d := range order {
		f := v.bad[d]
		if fi, err := os.Lstat(f.path); err != nil || !os.SameFile(fi, f.file) {
			continue // replaced meanwhile
		}
		to := filepath.Join(v.s.dir, "quarantine", d.String()+"."+stamp)
		if err := v.s.renameDurable(f.path, to); err != nil {
			return fmt.Errorf("quarantine %s: %w", f.path, err)
		}
		if err := syncDir(filepath.Dir(f.path)); err != nil {
			return fmt.Errorf("quarantine %s: %w", f.path, err)
		}
		v.s.log.Warn("moved to quarantine", "what", strings.TrimPrefix(f.path, v.s.dir), "reason", f.reason, "to", to)
	}
	return nil
}
