package launcher

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/curi-store/curi/cas"
)

// nodeLogs is the directory in a run's tree that has the logs of all nodes but
// the first.
const nodeLogs = "nodes"

func nodeLog(rank int) string { return strconv.Itoa(rank) + ".txt" }

// putPart stores what this node printed and wrote, and says so.
func (r *run) putPart(ctx context.Context, p part, done []sealed) error {
	t := new(cas.Tree)
	if r.log != nil {
		log, err := r.s.AddPath(ctx, r.logPath(), cas.AddOptions{})
		if err != nil {
			r.warn("the log of this node is not kept: %s", oneLine(err))
		} else {
			defer log.Release()
			t.Entries = append(t.Entries, cas.Entry{Name: "log.txt", Kind: cas.KindFile, Size: log.Bytes, Digest: log.Digest})
		}
	}
	if len(done) > 0 {
		outs, err := addOutputs(ctx, r.s, nil, done)
		if err != nil {
			return err
		}
		defer outs.Release()
		t.Entries = append(t.Entries, cas.Entry{Name: "out", Kind: cas.KindDir, Size: outs.Bytes, Digest: outs.Tree})
	}
	if len(t.Entries) > 0 {
		whole, err := r.s.AddTree(ctx, t)
		if err != nil {
			return err
		}
		defer whole.Release()
		p.tree = whole.Tree
	}
	return putInfo(ctx, r.s, partRef(r.id, r.node), p.tree, p)
}

// storeNodeLogs stores the logs of the other nodes as one tree, nil if there
// are none, until drop is called, and notes them in r.parts. Of a node that
// died it is what lies in its place.
func (r *run) storeNodeLogs(ctx context.Context) (_ *cas.Added, drop func(), err error) {
	var keep []*cas.Added
	drop = func() {
		for _, a := range keep {
			a.Release()
		}
	}
	t := new(cas.Tree)
	for i, p := range r.parts {
		entry := cas.Entry{Kind: cas.KindFile}
		if !p.tree.IsZero() {
			e, err := r.s.Lookup(ctx, p.tree, "log.txt")
			if errors.Is(err, cas.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, drop, err
			}
			entry.Digest, entry.Size = e.Digest, e.Size
		} else {
			a, err := r.s.AddPath(ctx, filepath.Join(realDir(r.place), nodeDir(p.rank), "log.txt"), cas.AddOptions{})
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, cas.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, drop, err
			}
			keep = append(keep, a)
			entry.Digest, entry.Size = a.Digest, a.Bytes
		}
		entry.Name = nodeLog(p.rank)
		r.parts[i].log = entry.Digest
		t.Entries = append(t.Entries, entry)
	}
	if len(t.Entries) == 0 {
		return nil, drop, nil
	}
	t.Sort()
	whole, err := r.s.AddTree(ctx, t)
	if err != nil {
		return nil, drop, err
	}
	keep = append(keep, whole)
	return whole, drop, nil
}
