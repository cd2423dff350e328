package remote

import (
	"context"
	"fmt"
	"io"
	"sort"
	"sync"

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
	upperAt := span{behind, behind + upperLen(n.Size)}
	lowerAt := span{behind + lower, behind + lower + nodesBelow(min(segmentSize, n.Size-k*segmentSize))}
	upper, under := rc.nodes.find(upperAt), rc.nodes.find(lowerAt)
	var data []byte
	err := each(ctx, 2, 2, func(ctx context.Context, i int) (err error) {
		if i == 0 {
			data, err = rc.readSpan(ctx, span{n.place.at + lo, n.place.at + hi})
			return err
		}
		// Those that lie beside each other share chunks.
		var want []span
		if upper == nil && upperAt.lo < upperAt.hi {
			want = append(want, upperAt)
		}
		if under == nil && lowerAt.lo < lowerAt.hi {
			want = append(want, lowerAt)
		}
		both, err := rc.readSpans(ctx, want)
		if upper == nil {
			upper, both = both[:upperAt.hi-upperAt.lo], both[upperAt.hi-upperAt.lo:]
		}
		if under == nil {
			under = both
		}
		return err
	})
	if err != nil {
		return err
	}
	nodes.put(0, upper)
	nodes.put(lower, under)
	if err := p.Add(data, lo, nodes); err != nil {
		return err
	}
	putBody(data)
	rc.nodes.add(upperAt, upper)
	rc.nodes.add(lowerAt, under)
	return nil
}

// readSpan reads a part of the file stream.
func (rc *Recipe) readSpan(ctx context.Context, at span) ([]byte, error) {
	if at.lo == at.hi {
		return []byte{}, nil
	}
	return rc.readSpans(ctx, []span{at})
}

// readSpans reads several, which ascend, joined.
func (rc *Recipe) readSpans(ctx context.Context, spans []span) ([]byte, error) {
	n := int64(0)
	for _, at := range spans {
		n += at.hi - at.lo
	}
	b := getBody(int(n))
	if n == 0 {
		return b, nil
	}
	r := rc.read(ctx, spans)
	defer r.Close()
	_, err := io.ReadFull(r, b)
	return b, cutOff(rc.key, err)
}

// nodeCache keeps nodes that verified something: who reads here and there in a
// segment needs those of the segment again and again.
type nodeCache struct {
	mu    sync.Mutex
	nodes map[span][]byte
	bytes int
}

// maxNodes bounds what a recipe keeps of nodes, in bytes.
const maxNodes = 8 << 20

func (c *nodeCache) find(at span) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[at]
}

func (c *nodeCache) add(at span, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.nodes[at]; ok || len(b) == 0 {
		return
	}
	if c.bytes += len(b); c.bytes > maxNodes || c.nodes == nil {
		c.nodes, c.bytes = map[span][]byte{}, len(b)
	}
	c.nodes[at] = b
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
	// The runs are as many as the file has segments.
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].outboard+s.runs[i].length > off })
	if i == len(s.runs) || off < s.runs[i].outboard || off+int64(len(p)) > s.runs[i].outboard+s.runs[i].length {
		return 0, io.EOF
	}
	at := s.runs[i].stream + off - s.runs[i].outboard
	for _, h := range s.have {
		if at >= h.at && at+int64(len(p)) <= h.at+int64(len(h.b)) {
			return copy(p, h.b[at-h.at:]), nil
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
	b, err := rc.readSpan(ctx, span{n.place.at, n.place.at + n.Size})
	if err != nil {
		return nil, err
	}
	return b, checkSmall(n, b)
}

func checkSmall(n Node, b []byte) error {
	if cas.Sum(b) != n.Digest {
		return fmt.Errorf("file %s: what the remote has in its place does not match: %w", n.Digest, cas.ErrCorrupt)
	}
	return nil
}
