package remote

import (
	"context"
	"io"
	"sort"
	"sync"
)

// nodeCache keeps nodes of outboards: who reads here and there in a segment
// needs those of the segment again and again. They may be wrong; what they are
// to verify tells.
type nodeCache struct {
	mu    sync.Mutex
	runs  map[span]*nodeRun
	bytes int64
}

// nodeRun is nodes that lie in one piece, or are about to be here.
type nodeRun struct {
	b     []byte
	err   error
	ready chan struct{} // closed with b or err set
}

const (
	// maxNodes bounds what a recipe keeps of nodes, in bytes.
	maxNodes = 8 << 20
	// nodesAhead is for how many segments nodes are fetched at once for who
	// reads one after the other.
	nodesAhead = 32
)

// nodesOf returns the nodes of a file that lead to the bytes of segments: those
// above segments, 64 MiB at most (of [cas.MaxPartial]), and those of each from
// first to last. What is fetched is fetched once.
func (rc *Recipe) nodesOf(ctx context.Context, n Node, first, last int64) (*sparseNodes, error) {
	want := []span{upperSpan(n)}
	end := last + 1
	if first >= 1 && rc.nodes.has(lowerSpan(n, first-1)) {
		end = min((last/nodesAhead+1)*nodesAhead, (n.Size+segmentSize-1)/segmentSize)
	}
	for k := first; k < end; k++ {
		want = append(want, lowerSpan(n, k))
	}
	for {
		runs, mine := rc.nodes.claim(want)
		if err := rc.bringNodes(ctx, mine); err != nil {
			return nil, err
		}
		nodes := newSparseNodes(n.Size)
		for i, r := range runs[:last-first+2] {
			select {
			case <-r.ready:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if r.err != nil { // who fetched them may just have given up
				nodes = nil
				break
			}
			nodes.put(want[i].lo-n.place.at-n.Size, r.b)
		}
		if nodes != nil {
			return nodes, nil
		}
	}
}

// upperSpan is where in the file stream the nodes of a file lie that cover more
// than a segment.
func upperSpan(n Node) span {
	behind := n.place.at + n.Size
	return span{behind, behind + upperLen(n.Size)}
}

// lowerSpan is where those of a segment lie.
func lowerSpan(n Node, segment int64) span {
	lo := n.place.at + n.Size + segmentNodes(n.Size, segment)
	return span{lo, lo + nodesBelow(min(segmentSize, n.Size-segment*segmentSize))}
}

func (c *nodeCache) has(at span) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runs[at] != nil
}

// claim finds the runs at these places, or begins them; mine are those that the
// caller has to bring.
func (c *nodeCache) claim(at []span) (runs []*nodeRun, mine []nodeClaim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range at {
		r := c.runs[s]
		if r == nil {
			r = &nodeRun{ready: make(chan struct{})}
			mine = append(mine, nodeClaim{s, r})
			if c.bytes += s.hi - s.lo; c.bytes > maxNodes || c.runs == nil {
				c.runs, c.bytes = map[span]*nodeRun{}, s.hi-s.lo
			}
			c.runs[s] = r
		}
		runs = append(runs, r)
	}
	return runs, mine
}

// nodeClaim is a run that somebody brings.
type nodeClaim struct {
	span
	run *nodeRun
}

// bringNodes fetches runs, which ascend. Those that lie near each other come at
// once.
func (rc *Recipe) bringNodes(ctx context.Context, mine []nodeClaim) error {
	var groups [][]nodeClaim
	for _, m := range mine {
		if k := len(groups) - 1; k >= 0 {
			if last := groups[k][len(groups[k])-1]; m.lo-last.hi <= fetchGap {
				groups[k] = append(groups[k], m)
				continue
			}
		}
		groups = append(groups, []nodeClaim{m})
	}
	err := each(ctx, len(groups), fetchers, func(ctx context.Context, i int) error {
		g := groups[i]
		all := span{g[0].lo, g[len(g)-1].hi}
		if all.lo == all.hi {
			return nil
		}
		b := make([]byte, 0, all.hi-all.lo)
		err := rc.unproven(ctx, all, func(p []byte) error {
			b = append(b, p...)
			return nil
		})
		for _, m := range g {
			if err == nil {
				m.run.b = b[m.lo-all.lo : m.hi-all.lo]
			}
		}
		return err
	})
	if err != nil {
		rc.nodes.forget(mine)
	}
	for _, m := range mine {
		m.run.err = err
		close(m.run.ready)
	}
	return err
}

// forget drops runs.
func (c *nodeCache) forget(claims []nodeClaim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range claims {
		if c.runs[m.span] == m.run {
			delete(c.runs, m.span)
			c.bytes -= m.hi - m.lo
		}
	}
}

// replace puts nodes in the place of those that may be wrong.
func (c *nodeCache) replace(at span, b []byte) {
	r := &nodeRun{b: b, ready: make(chan struct{})}
	close(r.ready)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs[at] != nil {
		c.runs[at] = r
	}
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
