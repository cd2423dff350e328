package remote

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync"

	"github.com/curi-store/curi/cas"
)

// known is what the remote is known to have.
type known struct {
	mu     sync.Mutex
	chunks map[cas.Digest]knownChunk
	files  map[cas.Digest]knownFile
}

type knownChunk struct {
	raw int
	spot
}

type knownFile struct {
	size int64
	at   int64
	rows []row // of the whole recipe
}

// knownOf reads the recipes of trees that the remote may have.
func (r *Remote) knownOf(ctx context.Context, trees []cas.Digest) (*known, error) {
	k := &known{chunks: map[cas.Digest]knownChunk{}, files: map[cas.Digest]knownFile{}}
	for _, d := range trees {
		err := k.learn(ctx, r, d)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		if err != nil && !errors.Is(err, cas.ErrNotFound) {
			// It only would have saved something.
			r.log.Warn("cannot read what the remote has of an earlier version; more is sent than needed", "tree", d, "error", err)
		}
	}
	return k, nil
}

func (k *known) learn(ctx context.Context, r *Remote, root cas.Digest) error {
	rc, err := r.Recipe(ctx, root)
	if err != nil {
		return err
	}
	rows, err := rc.rows(ctx, 0, rc.head.stream)
	if err != nil {
		return err
	}
	for i := range rows {
		k.chunks[rows[i].digest] = knownChunk{rows[i].raw, rows[i].spot}
	}
	w := treeWalk{rc: rc, seen: map[cas.Digest]bool{}, file: func(n Node) error {
		if n.Size > cas.MinOutboard {
			k.files[n.Digest] = knownFile{n.Size, n.place.at, rows}
		}
		return nil
	}}
	return w.walk(ctx, rc.Root(), 0)
}

// forget leaves out what lies in packs that are about to go.
func (k *known) forget(packs map[cas.Digest]bool) {
	if len(packs) == 0 {
		return
	}
	for d, c := range k.chunks {
		if packs[c.pack] {
			delete(k.chunks, d)
		}
	}
	for d, f := range k.files {
		if slices.ContainsFunc(f.rows, func(r row) bool { return packs[r.pack] }) {
			delete(k.files, d)
		}
	}
}

// chunk returns where the remote has a chunk.
func (k *known) chunk(d cas.Digest, raw int) (spot, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.chunks[d]
	return c.spot, ok && c.raw == raw
}

func (k *known) add(d cas.Digest, raw int, s spot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.chunks[d] = knownChunk{raw, s}
}

// file returns the rows of a large file with its nodes; nil if it is not known.
func (k *known) file(d cas.Digest, size int64) []row {
	f, ok := k.files[d]
	if !ok || f.size != size {
		return nil
	}
	lo, hi := f.at, f.at+size+nodesLen(size)
	i := sort.Search(len(f.rows), func(i int) bool { return f.rows[i].start >= lo })
	j := sort.Search(len(f.rows), func(j int) bool { return f.rows[j].end() >= hi })
	if i >= len(f.rows) || j >= len(f.rows) || f.rows[i].start != lo || f.rows[j].end() != hi {
		return nil
	}
	return f.rows[i : j+1]
}
