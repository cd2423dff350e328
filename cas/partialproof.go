package cas

import (
	"bytes"
	"context"
	"io"
)

// recheck drops the groups from the map that do not lead to the digest: a
// power failure may have kept the map and lost what it is about.
func (p *Partial) recheck(ctx context.Context) error {
	buf := make([]byte, groupSize)
	for g := range groups(p.size) {
		if p.present[g/8]&(1<<(g%8)) == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		off := g * groupSize
		b := buf[:min(groupSize, p.size-off)]
		_, err := p.data.ReadAt(b, off)
		if err == nil {
			err = p.verify(b, off, p.nodes, nil)
		}
		if err != nil {
			p.present[g/8] &^= 1 << (g % 8)
		}
	}
	return nil
}

// verify checks bytes against the digest, and notes the nodes that led there.
func (p *Partial) verify(b []byte, off int64, nodes io.ReaderAt, used *nodeRuns) error {
	o, err := ParseOutboard(&proof{head: outboardHead(p.size), nodes: nodes, used: used}, outboardSize(p.size), p.digest)
	if err != nil {
		return err
	}
	return o.Verify(b, off)
}

// proof is an outboard whose header is known.
type proof struct {
	head  []byte
	nodes io.ReaderAt
	used  *nodeRuns // nil: not wanted
}

// nodeRuns are nodes of an outboard; those that lie side by side are one run.
type nodeRuns []struct {
	at int64
	b  []byte
}

// add adds a node. A verification meets them in ascending order; the one after
// it begins with some that were met before.
func (r *nodeRuns) add(at int64, node []byte) {
	for i := len(*r) - 1; i >= 0; i-- {
		run := &(*r)[i]
		switch end := run.at + int64(len(run.b)); {
		case at == end && i == len(*r)-1:
			run.b = append(run.b, node...)
			return
		case at >= end:
			i = 0 // it is none of those before either
		case at >= run.at:
			return
		}
	}
	*r = append(*r, struct {
		at int64
		b  []byte
	}{at, bytes.Clone(node)})
}

func (r *proof) ReadAt(b []byte, off int64) (int, error) {
	if off == 0 {
		return copy(b, r.head), nil
	}
	n, err := r.nodes.ReadAt(b, off)
	if r.used != nil && n == len(b) {
		r.used.add(off, b)
	}
	return n, err
}
