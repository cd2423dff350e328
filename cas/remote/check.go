package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/curi-store/curi/cas"
)

// CheckOptions of [Remote.Check].
type CheckOptions struct {
	// Read fetches and verifies all bytes. Without it only recipes are read,
	// and packs looked for.
	Read bool
	// Repair removes what is bad, and the recipes that need it: the next push
	// of these trees, from a store that has them, brings them anew. Only where
	// nobody pushes.
	Repair   bool
	Progress cas.Progress
}

// Checked says what a check found.
type Checked struct {
	Trees int         `json:"trees"` // that refs name
	Packs int         `json:"packs"` // that they need
	Bytes int64       `json:"bytes"` // that were read of packs
	Bad   []BadObject `json:"bad"`
}

// BadObject is an object that is missing or not what it should be.
type BadObject struct {
	Object  string   `json:"object"`
	Reason  string   `json:"reason"`
	UsedBy  []string `json:"used_by"` // names on the remote, such as model@3
	Removed bool     `json:"removed"` // by Repair
}

// Check reads what refs name, and verifies it.
func (r *Remote) Check(ctx context.Context, o CheckOptions) (Checked, error) {
	c := checker{r: r, o: o, names: map[cas.Digest][]string{}, bad: map[string]*BadObject{}, used: map[cas.Digest]bool{}, read: map[fetchID]bool{}, hurt: map[cas.Digest]bool{}}
	if err := c.run(ctx); err != nil {
		return c.done, fmt.Errorf("check: %w", err)
	}
	return c.done, nil
}

type checker struct {
	r     *Remote
	o     CheckOptions
	names map[cas.Digest][]string // of trees
	packs map[cas.Digest]Object
	used  map[cas.Digest]bool
	read  map[fetchID]bool
	bad   map[string]*BadObject
	hurt  map[cas.Digest]bool // trees that need something bad
	done  Checked
}

type fetchID struct {
	pack   cas.Digest
	off    int64
	stored int
}

func (c *checker) run(ctx context.Context) error {
	err := c.r.refTrees(ctx, func(name string, tree cas.Digest) {
		c.names[tree] = append(c.names[tree], refName(name))
	})
	if err != nil {
		return err
	}
	if c.packs, err = c.r.objects(ctx, "packs/"); err != nil {
		return err
	}
	trees := make([]cas.Digest, 0, len(c.names))
	for d := range c.names {
		trees = append(trees, d)
	}
	sort.Slice(trees, func(i, j int) bool { return c.names[trees[i]][0] < c.names[trees[j]][0] })
	c.done.Trees = len(trees)
	for i, d := range trees {
		if err := c.tree(ctx, d); err != nil {
			return err
		}
		if c.o.Progress != nil {
			c.o.Progress(c.done.Bytes, 0, int64(i+1), int64(len(trees)))
		}
	}
	c.done.Packs = len(c.used)
	if c.o.Repair {
		if err := c.repair(ctx); err != nil {
			return err
		}
	}
	c.done.Bad = []BadObject{}
	for _, b := range c.bad {
		slices.Sort(b.UsedBy)
		b.UsedBy = slices.Compact(b.UsedBy)
		c.done.Bad = append(c.done.Bad, *b)
	}
	slices.SortFunc(c.done.Bad, func(a, b BadObject) int { return strings.Compare(a.Object, b.Object) })
	return nil
}

// refName is artifact/model/0000000003 as model@3.
func refName(key string) string {
	rest, isVersion := strings.CutPrefix(key, "artifact/")
	name, number, _ := strings.Cut(rest, "/")
	if n := seriesNumber(number); isVersion && n > 0 {
		return fmt.Sprintf("%s@%d", name, n)
	}
	return key
}

// found notes what is bad; other errors than that end the check.
func (c *checker) found(tree cas.Digest, object string, err error) error {
	if !errors.Is(err, cas.ErrCorrupt) && !errors.Is(err, cas.ErrNotFound) && !errors.Is(err, cas.ErrInvalid) {
		return err
	}
	b := c.bad[object]
	if b == nil {
		reason := err.Error()
		if errors.Is(err, cas.ErrNotFound) {
			reason = "missing"
		}
		b = &BadObject{Object: object, Reason: reason}
		c.bad[object] = b
	}
	b.UsedBy = append(b.UsedBy, c.names[tree]...)
	c.hurt[tree] = true
	return nil
}

func (c *checker) tree(ctx context.Context, d cas.Digest) error {
	rc, err := c.r.Recipe(ctx, d)
	if err != nil {
		return c.found(d, recipeKey(d), err)
	}
	w := treeWalk{rc: rc, seen: map[cas.Digest]bool{}}
	if err := w.walk(ctx, rc.Root(), 0); err != nil {
		return c.found(d, rc.key, err)
	}
	// A page after the other: the rows of a large tree are many.
	for _, p := range rc.head.chunkPages {
		rows, err := rc.rows(ctx, p.start, p.end)
		if err != nil {
			return c.found(d, rc.key, err)
		}
		if err := c.rows(ctx, d, rows); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) rows(ctx context.Context, tree cas.Digest, rows []row) error {
	var good []row
	for _, row := range rows {
		c.used[row.pack] = true
		o, ok := c.packs[row.pack]
		switch key := packKey(row.pack); {
		case !ok:
			if err := c.found(tree, key, cas.ErrNotFound); err != nil {
				return err
			}
		case row.off+int64(row.stored) > o.Size:
			if err := c.found(tree, key, fmt.Errorf("cut off: it has %d bytes, and a chunk ends at %d: %w", o.Size, row.off+int64(row.stored), cas.ErrCorrupt)); err != nil {
				return err
			}
		default:
			good = append(good, row)
		}
	}
	if !c.o.Read {
		return nil
	}
	list := fetches(good, fetchSize)
	errs := make([]error, len(list))
	err := each(ctx, len(list), fetchers, func(ctx context.Context, i int) error {
		if f := &list[i]; !c.read[fetchID{f.pack, f.off, f.stored}] {
			var raw []byte
			raw, errs[i] = f.load(ctx, c.r.b)
			putBody(raw)
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for i, f := range list {
		id := fetchID{f.pack, f.off, f.stored}
		if errs[i] != nil {
			if err := c.found(tree, packKey(f.pack), errs[i]); err != nil {
				return err
			}
			continue
		}
		if !c.read[id] {
			c.read[id] = true
			c.done.Bytes += int64(f.stored)
		}
	}
	return nil
}

// repair removes what is bad, recipes first.
func (c *checker) repair(ctx context.Context) error {
	for d := range c.hurt {
		if err := c.r.b.Delete(ctx, recipeKey(d)); err != nil {
			return err
		}
	}
	for key, b := range c.bad {
		if err := c.r.b.Delete(ctx, key); err != nil {
			return err
		}
		b.Removed = true
	}
	return nil
}
