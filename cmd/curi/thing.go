package main

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// thing is what a REF means, described: `curi show --json` prints it.
type thing struct {
	Name       string            `json:"name"`    // of an artifact without its version
	Version    int               `json:"version"` // 0: not a version of an artifact
	Tags       []string          `json:"tags"`
	Digest     cas.Digest        `json:"digest"` // the file's own for a single file, else the tree's
	Tree       cas.Digest        `json:"tree"`
	Kind       string            `json:"kind"` // "file", "directory", "symlink", "run", "work"
	Bytes      int64             `json:"bytes"`
	Files      int64             `json:"files"`
	LocalBytes int64             `json:"local_bytes"`
	Meta       map[string]string `json:"meta"`
	MadeBy     string            `json:"made_by"`
	Time       *time.Time        `json:"time"`
	Ref        string            `json:"ref"`              // the canonical REF: "digits@2/images"
	File       string            `json:"file"`             // of a single file: its path inside the tree
	Target     string            `json:"target,omitempty"` // of a symlink
	Run        *stages.Run       `json:"run,omitempty"`
	Path       string            `json:"path,omitempty"`   // of a work directory
	Remote     string            `json:"remote,omitempty"` // where it is
	By         string            `json:"by,omitempty"`     // who published it there, as they say
}

// describe looks up what there is to know of a target.
func describe(ctx context.Context, s *cas.Store, t stages.Target) (thing, error) {
	d := thing{Name: t.Name, Ref: t.Name, Tags: []string{}, Tree: t.Tree, Digest: t.Tree, Kind: "directory", Meta: map[string]string{}}
	if t.WorkDir != "" {
		d.Kind, d.Path, d.Run = "work", t.WorkDir, t.Run
		return d, d.countDisk()
	}
	if v := t.Version; v != nil {
		d.Name, d.Version, d.MadeBy, d.Time = v.Name, v.N, v.MadeBy, &v.Time
		if d.Tags = slices.Clone(v.Tags); d.Tags == nil {
			d.Tags = []string{}
		}
	}
	if t.Run != nil {
		d.MadeBy = t.Run.ID
		d.Time = &t.Run.Started
	}
	if t.Tree.IsZero() && !t.Blob.IsZero() {
		return d, d.bareBlob(ctx, s, t.Blob)
	}
	if t.Run != nil && t.Path == "" && t.Name == t.Run.ID {
		d.Kind, d.Run, d.MadeBy = "run", t.Run, ""
		if t.Tree.IsZero() {
			return d, nil
		}
	}
	root, err := s.Tree(ctx, t.Tree)
	if err != nil {
		return d, fmt.Errorf("%s: %w", t.Ref, err)
	}
	d.Meta = root.Attrs.Meta()
	inside := t.Path
	if inside == "" && root.Single {
		if p, _, ok, err := s.SingleFile(ctx, t.Tree); err == nil && ok {
			inside = p
		}
	}
	if t.Link != "" {
		d.Kind, d.Target, d.Digest = "symlink", t.Link, cas.Digest{}
		return d, nil
	}
	if inside == "" {
		return d, d.countTree(ctx, s, t.Tree)
	}
	e, err := s.Lookup(ctx, t.Tree, inside)
	if err != nil {
		return d, fmt.Errorf("%s: %w", t.Ref, err)
	}
	for k, v := range e.Attrs.Meta() {
		d.Meta[k] = v
	}
	d.Digest = e.Digest
	if e.Kind == cas.KindDir {
		return d, d.countTree(ctx, s, e.Digest)
	}
	d.Kind, d.File, d.Bytes, d.Files = "file", inside, e.Size, 1
	d.LocalBytes = s.LocalBytes(e.Digest, e.Size)
	return d, nil
}

func (d *thing) bareBlob(ctx context.Context, s *cas.Store, digest cas.Digest) error {
	b, err := s.OpenBlob(ctx, digest)
	if err != nil {
		return err
	}
	defer b.Close()
	d.Digest, d.Kind, d.Files, d.Bytes, d.LocalBytes = digest, "file", 1, b.Size(), b.Size()
	return nil
}

func (d *thing) countTree(ctx context.Context, s *cas.Store, tree cas.Digest) error {
	return s.Walk(ctx, tree, func(_ string, e cas.Entry) error {
		if e.Kind == cas.KindFile || e.Kind == cas.KindExecutable {
			d.Files++
			d.Bytes += e.Size
			d.LocalBytes += s.LocalBytes(e.Digest, e.Size)
		}
		return nil
	})
}

func (d *thing) countDisk() error {
	return filepath.WalkDir(d.Path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type().IsRegular() {
			if st, err := e.Info(); err == nil {
				d.Files++
				d.Bytes += st.Size()
				d.LocalBytes += st.Size()
			}
		}
		return nil
	})
}

// insidePath is the path inside a target's tree that the REF means: the file
// of a single-file tree where the REF names no path.
func insidePath(ctx context.Context, s *cas.Store, t stages.Target) (string, error) {
	if t.Path != "" || t.Tree.IsZero() {
		return path.Clean("/" + t.Path)[1:], nil
	}
	p, _, ok, err := s.SingleFile(ctx, t.Tree)
	if err != nil || !ok {
		return "", err
	}
	return p, nil
}
