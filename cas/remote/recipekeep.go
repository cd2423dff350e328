package remote

import (
	"context"
	"errors"
	"io"

	"github.com/curi-store/curi/cas"
)

// Keep keeps the first read of the recipe in s, which knows the remote by that
// name: [cas.Store.Adopt] then asks nothing that is in it.
func (rc *Recipe) Keep(ctx context.Context, s *cas.Store, remote string) error {
	pages, err := s.KeepPages(ctx, remote, rc.head.root)
	if err != nil {
		return err
	}
	rc.mu.Lock()
	begin := rc.begin
	rc.mu.Unlock()
	if begin != nil {
		pages.Write(0, begin)
	}
	return nil
}

// fill reads a part of the recipe, from what is kept of it if it is there.
func (rc *Recipe) fill(ctx context.Context, p []byte, at int64) error {
	if rc.keep != nil {
		if b := rc.keep.Read(at); len(b) == len(p) {
			copy(p, b)
			return nil
		}
	}
	n, err := rc.b.ReadAt(ctx, rc.key, p, at)
	if err != nil && !(errors.Is(err, io.EOF) && n == len(p)) {
		return cutOff(rc.key, err)
	}
	if rc.keep != nil {
		rc.keep.Write(at, p)
	}
	return nil
}

// distrust forgets the stored form of a part: it may be what is damaged.
func (rc *Recipe) distrust(at int64) {
	rc.mu.Lock()
	begin := int64(len(rc.begin))
	if at < begin {
		rc.begin = nil
	}
	rc.mu.Unlock()
	if rc.keep == nil {
		return
	}
	if at < begin {
		rc.keep.Drop(0)
	}
	rc.keep.Drop(max(at, begin))
}

// gatherSize is how much of a recipe is read at once, where much is wanted.
const gatherSize = 4 << 20

// gather reads those of n pages that are not here, and which lie beside each
// other, by few requests.
func (rc *Recipe) gather(ctx context.Context, n int, page func(i int) pageInfo) error {
	var runs [][]pageInfo
	size := int64(0)
	for i := range n {
		p := page(i)
		rc.mu.Lock()
		_, ok := rc.pages[p.at]
		ok = ok || p.at+p.stored <= int64(len(rc.begin))
		rc.mu.Unlock()
		if ok || rc.keep != nil && rc.keep.Has(p.at) {
			size = gatherSize // the next one lies elsewhere
			continue
		}
		if size+p.stored > gatherSize || len(runs) == 0 {
			runs, size = append(runs, nil), 0
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], p)
		size += p.stored
	}
	return each(ctx, len(runs), fetchers, func(ctx context.Context, i int) error {
		run := runs[i]
		if len(run) == 1 {
			return nil // as any other page
		}
		at := run[0].at
		last := run[len(run)-1]
		b := make([]byte, last.at+last.stored-at)
		if n, err := rc.b.ReadAt(ctx, rc.key, b, at); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
			return cutOff(rc.key, err)
		}
		for _, p := range run {
			packed := b[p.at-at:][:p.stored]
			raw := make([]byte, p.raw)
			if zstdInto(raw, packed) != nil {
				continue // damaged on the way: it is read again by itself
			}
			if rc.keep != nil {
				rc.keep.Write(p.at, packed)
			}
			rc.mu.Lock()
			rc.room(len(raw))
			rc.pages[p.at] = raw
			rc.mu.Unlock()
		}
		return nil
	})
}
