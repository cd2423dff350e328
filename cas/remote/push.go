package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// PushOptions of [Remote.Push].
type PushOptions struct {
	// Bases are trees whose recipes the remote may have: what they hold already
	// is not sent again.
	Bases    []cas.Digest
	Progress cas.Progress
}

// Pushed says what a push did.
type Pushed struct {
	Tree  cas.Digest
	Bytes int64 // of all files of the tree
	Files int64
	Sent  int64 // bytes that were uploaded
	New   bool  // false: the remote had the tree already
}

// Push brings a stored tree to the remote: what lacks there, then the recipe.
// After it the tree is whole on the remote; a name is another matter
// ([Remote.Publish]). What was sent by a push that was cut off is not sent
// again by the next one.
func (r *Remote) Push(ctx context.Context, s *cas.Store, root cas.Digest, o PushOptions) (Pushed, error) {
	p, err := r.push(ctx, s, root, o)
	if err != nil {
		return p, fmt.Errorf("push tree %s: %w", root.Short(), err)
	}
	return p, nil
}

func (r *Remote) push(ctx context.Context, s *cas.Store, root cas.Digest, o PushOptions) (Pushed, error) {
	pin, err := s.Pin(ctx, "push", root)
	if err != nil {
		return Pushed{}, err
	}
	defer pin.Release()
	pl, err := newPlan(ctx, s, root)
	if err != nil {
		return Pushed{}, err
	}
	done := Pushed{Tree: root, Bytes: pl.bytes, Files: pl.files}
	guard, err := r.guard(ctx)
	if err != nil {
		return done, err
	}
	if rc, err := r.Recipe(ctx, root); err == nil {
		rows, err := rc.rows(ctx, 0, rc.head.stream)
		if err != nil {
			return done, err
		}
		return done, guard.keep(ctx, root, packsOf(rows))
	} else if !errors.Is(err, cas.ErrNotFound) && !errors.Is(err, cas.ErrCorrupt) {
		return done, err
	}
	known, err := r.knownOf(ctx, o.Bases)
	if err != nil {
		return done, err
	}
	known.forget(guard.gone)
	pk := newPacker(ctx, r.b, known, pl.fresh)
	defer pk.abort()
	meter := &pushMeter{o.Progress, pl.fresh, 0}
	if err := pushFiles(ctx, s, pl, pk, meter); err != nil {
		return done, err
	}
	rows, sent, err := pk.finish()
	if err != nil {
		return done, err
	}
	fault.At(fault.PushSent)
	w := recipeWriter{trees: pl.trees, rows: rows}
	w.head.files, w.head.bytes = pl.files, pl.bytes
	data, err := w.encode(ctx)
	if err != nil {
		return done, err
	}
	if err := guard.keep(ctx, root, packsOf(rows)); err != nil {
		return done, err
	}
	// Replacing one that another has just written is no harm: both are right.
	if err := r.b.Put(ctx, recipeKey(root), data); err != nil {
		return done, err
	}
	fault.At(fault.PushRecipe)
	done.New, done.Sent = true, sent+int64(len(data))
	return done, nil
}

func packsOf(rows []row) map[cas.Digest]bool {
	packs := map[cas.Digest]bool{}
	for i := range rows {
		packs[rows[i].pack] = true
	}
	return packs
}

type pushMeter struct {
	progress cas.Progress
	total    int64
	done     int64
}

func (m *pushMeter) add(n int) {
	m.done += int64(n)
	if m.progress != nil {
		m.progress(m.done, m.total, 0, 0)
	}
}

// pushFiles cuts the file stream into chunks and hands them to the packer.
func pushFiles(ctx context.Context, s *cas.Store, pl *plan, pk *packer, m *pushMeter) error {
	add := func(p []byte) error {
		m.add(len(p))
		return pk.add(p)
	}
	if err := chunks(&smallFiles{ctx: ctx, s: s, list: pl.small}, smallChunker, add); err != nil {
		return err
	}
	for _, f := range pl.large {
		if pk.reuse(f) {
			m.add(int(f.Size))
			continue
		}
		if err := pushLarge(ctx, s, f, pk, add); err != nil {
			return err
		}
	}
	return nil
}

// smallFiles reads small files one after the other, and verifies each.
type smallFiles struct {
	ctx  context.Context
	s    *cas.Store
	list []cas.Entry
	buf  []byte
	left []byte
}

func (r *smallFiles) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		if len(r.list) == 0 {
			return 0, io.EOF
		}
		e := r.list[0]
		r.list = r.list[1:]
		if e.Size == 0 {
			continue
		}
		if err := r.open(e); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *smallFiles) open(e cas.Entry) error {
	b, err := r.s.OpenBlob(r.ctx, e.Digest)
	if err != nil {
		return err
	}
	defer b.Close()
	if int64(cap(r.buf)) < e.Size {
		r.buf = make([]byte, cas.MinOutboard)
	}
	r.left = r.buf[:e.Size]
	if _, err := b.ReadAt(r.left, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", b.Name(), err)
	}
	if cas.Sum(r.left) != e.Digest {
		return damaged(b)
	}
	return nil
}

func damaged(b *cas.Blob) error {
	return fmt.Errorf("%s does not match its digest; curi fsck tells what used it: %w", b.Name(), cas.ErrCorrupt)
}

// pushLarge cuts one large file, and adds its outboard's nodes.
func pushLarge(ctx context.Context, s *cas.Store, f largeFile, pk *packer, add func([]byte) error) error {
	b, err := s.OpenBlob(ctx, f.Digest)
	if err != nil {
		return err
	}
	defer b.Close()
	if b.Size() != f.Size {
		return damaged(b)
	}
	// The local outboard would do, but that the bytes are still what they were
	// has to be found out in any case.
	outboard := newMemFile(cas.OutboardSize(f.Size))
	d, err := cas.SumAt(ctx, b, f.Size, outboard)
	if err != nil {
		return fmt.Errorf("read %s: %w", b.Name(), err)
	}
	if d != f.Digest {
		return damaged(b)
	}
	if err := chunks(io.NewSectionReader(b, 0, f.Size), largeChunker, add); err != nil {
		return err
	}
	nodes := newMemFile(nodesLen(f.Size))
	outRuns(f.Size, func(r outRun) { copy(nodes.b[r.stream:], outboard.b[r.outboard:][:r.length]) })
	for rest := bytes.NewBuffer(nodes.b); rest.Len() > 0; {
		if err := pk.add(rest.Next(largeNormal)); err != nil {
			return err
		}
	}
	return nil
}
