package remote

import (
	"context"
	"fmt"
	"io"

	"github.com/curi-store/curi/cas"
)

// Fetch brings what lacks of the bytes of a large file from lo to hi into p,
// verified, and widened to whole groups. Several calls at once may fetch the
// same bytes twice: who has many readers gathers them first.
//
// The place of the bytes and the place of what verifies them stand in the
// recipe: after its pages are read, all that is fetched is fetched at once.
func (rc *Recipe) Fetch(ctx context.Context, n Node, p *cas.Partial, lo, hi int64) error {
	if !n.IsRegular() || n.Size != p.Size() {
		return fmt.Errorf("fetch %q: it is no file of %d bytes: %w", n.Name, p.Size(), cas.ErrInvalid)
	}
	for {
		a, b := p.Missing(lo, hi-lo)
		if a == b {
			return nil
		}
		// Nodes are stored by segments.
		b = min(b, (a/segmentSize+1)*segmentSize)
		if err := rc.fetchPart(ctx, n, p, a, b); err != nil {
			return fmt.Errorf("fetch bytes %d to %d of %s: %w", a, b, n.Digest, err)
		}
		lo = b
	}
}

// fetchPart fetches a part of one segment.
func (rc *Recipe) fetchPart(ctx context.Context, n Node, p *cas.Partial, lo, hi int64) error {
	nodes := newSparseNodes(n.Size)
	behind := n.place.at + n.Size
	k := lo / segmentSize
	lower := segmentNodes(n.Size, k)
	parts := []struct {
		span
		to []byte
	}{
		{span{n.place.at + lo, n.place.at + hi}, make([]byte, hi-lo)},
		{span{behind, behind + upperLen(n.Size)}, nil},
		{span{behind + lower, behind + lower + nodesBelow(min(segmentSize, n.Size-k*segmentSize))}, nil},
	}
	err := each(ctx, len(parts), len(parts), func(ctx context.Context, i int) error {
		q := &parts[i]
		if q.to == nil {
			q.to = make([]byte, q.hi-q.lo)
		}
		if len(q.to) == 0 {
			return nil
		}
		r := rc.read(ctx, []span{q.span})
		defer r.Close()
		_, err := io.ReadFull(r, q.to)
		return cutOff(rc.key, err)
	})
	if err != nil {
		return err
	}
	nodes.put(0, parts[1].to)
	nodes.put(lower, parts[2].to)
	return p.Add(parts[0].to, lo, nodes)
}

// sparseNodes is an outboard of which some nodes are there, taken from the
// order that the file stream has them in.
type sparseNodes struct {
	runs []outRun
	have []struct {
		at int64 // behind the blob
		b  []byte
	}
}

func newSparseNodes(size int64) *sparseNodes {
	s := &sparseNodes{}
	outRuns(size, func(r outRun) { s.runs = append(s.runs, r) })
	return s
}

func (s *sparseNodes) put(at int64, b []byte) {
	s.have = append(s.have, struct {
		at int64
		b  []byte
	}{at, b})
}

// ReadAt reads one node.
func (s *sparseNodes) ReadAt(p []byte, off int64) (int, error) {
	for _, r := range s.runs {
		if off < r.outboard || off+int64(len(p)) > r.outboard+r.length {
			continue
		}
		at := r.stream + off - r.outboard
		for _, h := range s.have {
			if at >= h.at && at+int64(len(p)) <= h.at+int64(len(h.b)) {
				return copy(p, h.b[at-h.at:]), nil
			}
		}
	}
	return 0, io.EOF
}

// readLarge writes a large file to w, in pieces that are verified first. What
// comes is kept in the store.
func (rc *Recipe) readLarge(ctx context.Context, s *cas.Store, n Node, w io.Writer) error {
	p, err := s.OpenPartial(ctx, n.Digest, n.Size)
	if err != nil {
		return err
	}
	defer p.Close()
	buf := make([]byte, segmentSize)
	for lo := int64(0); lo < n.Size; lo += segmentSize {
		b := buf[:min(segmentSize, n.Size-lo)]
		if err := rc.Fetch(ctx, n, p, lo, lo+int64(len(b))); err != nil {
			return err
		}
		if _, err := p.ReadAt(b, lo); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return p.Promote(ctx)
}

// WriteFile writes the bytes of a file to w, all of them verified before they
// are written. What comes of a large file is kept in the store, so that a call
// that is cut off and called again goes on.
func (rc *Recipe) WriteFile(ctx context.Context, s *cas.Store, n Node, w io.Writer) error {
	if n.Size > cas.MinOutboard {
		return rc.readLarge(ctx, s, n, w)
	}
	b, err := rc.ReadSmall(ctx, n)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// ReadSmall returns the bytes of a file of at most [cas.MinOutboard] bytes,
// verified.
func (rc *Recipe) ReadSmall(ctx context.Context, n Node) ([]byte, error) {
	if !n.IsRegular() || n.Size > cas.MinOutboard {
		return nil, fmt.Errorf("read %q: it is no small file: %w", n.Name, cas.ErrInvalid)
	}
	b := make([]byte, n.Size)
	if n.Size > 0 {
		r := rc.read(ctx, []span{{n.place.at, n.place.at + n.Size}})
		defer r.Close()
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, cutOff(rc.key, err)
		}
	}
	if cas.Sum(b) != n.Digest {
		return nil, fmt.Errorf("file %s: what the remote has in its place does not match: %w", n.Digest, cas.ErrCorrupt)
	}
	return b, nil
}
