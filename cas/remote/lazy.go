package remote

import (
	"context"
	"errors"
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

// fetchPart fetches a part of one segment. The outboard proves it: what that
// finds damaged is fetched again chunk by chunk, of which each has to match its
// digest, as what damaged it may have been the way.
func (rc *Recipe) fetchPart(ctx context.Context, n Node, p *cas.Partial, lo, hi int64) error {
	err := rc.fetchProven(ctx, n, p, lo, hi)
	if !errors.Is(err, cas.ErrCorrupt) {
		return err
	}
	segment := lo / segmentSize
	b, err := rc.readSpan(ctx, span{n.place.at + lo, n.place.at + hi})
	if err != nil {
		return err
	}
	defer putBody(b)
	upperAt, underAt := upperSpan(n), lowerSpan(n, segment)
	upper, err := rc.readSpan(ctx, upperAt)
	if err != nil {
		return err
	}
	under, err := rc.readSpan(ctx, underAt)
	if err != nil {
		return err
	}
	if err := p.Add(b, lo, segmentProof(n, segment, upper, under)); err != nil {
		return err
	}
	rc.nodes.replace(upperAt, upper)
	rc.nodes.replace(underAt, under)
	return nil
}

// fetchProven fetches bytes of a file with what proves them, both at once.
func (rc *Recipe) fetchProven(ctx context.Context, n Node, p *cas.Partial, lo, hi int64) error {
	var proof *sparseNodes
	proofHere := make(chan struct{})
	at := lo
	return each(ctx, 2, 2, func(ctx context.Context, i int) (err error) {
		if i == 1 {
			if proof, err = rc.nodesOf(ctx, n, lo/segmentSize, (hi-1)/segmentSize); err == nil {
				close(proofHere)
			}
			return err
		}
		return rc.unproven(ctx, span{n.place.at + lo, n.place.at + hi}, func(b []byte) error {
			select {
			case <-proofHere:
			case <-ctx.Done():
				return ctx.Err()
			}
			err := p.Add(b, at, proof)
			at += int64(len(b))
			return err
		})
	})
}

// segmentProof is the outboard of a file as far as it leads to a segment.
func segmentProof(n Node, segment int64, upper, under []byte) *sparseNodes {
	nodes := newSparseNodes(n.Size)
	nodes.put(0, upper)
	nodes.put(segmentNodes(n.Size, segment), under)
	return nodes
}

// readSpan reads a part of the file stream, each chunk of it verified.
func (rc *Recipe) readSpan(ctx context.Context, at span) ([]byte, error) {
	if at.lo == at.hi {
		return []byte{}, nil
	}
	b := getBody(int(at.hi - at.lo))
	r := rc.read(ctx, []span{at})
	defer r.Close()
	_, err := io.ReadFull(r, b)
	return b, cutOff(rc.key, err)
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
