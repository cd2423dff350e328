package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// Collecting a bucket that others push to takes two steps, some time apart,
// because a push builds on what is there without saying so:
//
//  1. A round is opened: an object that lists recipes and packs that nothing
//     needs. Nothing is removed.
//  2. Once that is Grace old, the round is closed by creating its fate, "sweep".
//     What is still not needed then is removed.
//
// A push that needs something of an open round creates the fate itself, "void",
// and the round ends without removing anything: of the two fates one wins. A
// push that was not seen by the second look has looked at the rounds before it
// wrote its recipe (see roundGuard), so that between its look and its ref less
// than Grace must pass, which are seconds, however long the push took.
const (
	fateSweep = `{"fate":"sweep"}`
	fateVoid  = `{"fate":"void"}`
)

// CollectOptions of [Remote.Collect].
type CollectOptions struct {
	// Grace is how long what nothing needs is left alone, and how long a round
	// is open. Zero is only right where nobody pushes.
	Grace  time.Duration
	DryRun bool // only say what a round would list
}

// Collected says what a collection did.
type Collected struct {
	Removed      int       `json:"removed"` // objects
	RemovedBytes int64     `json:"removed_bytes"`
	Listed       int       `json:"listed"` // objects of the round that is open now
	ListedBytes  int64     `json:"listed_bytes"`
	Due          time.Time `json:"due,omitzero"` // when these may be removed, by the bucket's clock
	Kept         int       `json:"kept"`         // recipes and packs
}

// Collect removes recipes and packs that no ref needs, in two steps: what one
// call lists, a later one removes. Safe beside pushes; a pull of something that
// was removed from the remote more than a Grace ago may find it gone.
func (r *Remote) Collect(ctx context.Context, o CollectOptions) (Collected, error) {
	c, err := r.collect(ctx, o)
	if err != nil {
		return c, fmt.Errorf("collect: %w", err)
	}
	return c, nil
}

func (r *Remote) collect(ctx context.Context, o CollectOptions) (Collected, error) {
	var done Collected
	now, err := r.bucketTime(ctx, o.DryRun)
	if err != nil {
		return done, err
	}
	if !o.DryRun {
		if err := r.sweepLeases(ctx, now, o.Grace, &done); err != nil {
			return done, err
		}
		if err := r.sweepWork(ctx, now, o.Grace, &done); err != nil {
			return done, err
		}
	}
	if d, ok := r.b.(*dirBucket); ok && !o.DryRun {
		if err := d.sweepTemp(ctx, now); err != nil {
			return done, err
		}
	}
	rounds, err := r.rounds(ctx)
	if err != nil {
		return done, err
	}
	last := 0
	if k := len(rounds) - 1; k >= 0 {
		rd := rounds[k]
		last = rd.n
		ripe := !rd.opened.Add(o.Grace).After(now)
		if rd.open() && ripe && !o.DryRun {
			err := r.decide(ctx, rd.n, fateSweep)
			if err != nil && !errors.Is(err, cas.ErrExists) {
				return done, err
			}
			if err == nil {
				rd.fate = fateSweep
			} else if rd.fate, err = r.fate(ctx, rd.n); err != nil {
				return done, err
			}
		}
		if rd.sweeping() && !o.DryRun {
			if err := r.sweep(ctx, rd, now, o.Grace, &done); err != nil {
				return done, err
			}
		} else if rd.open() && !ripe {
			l, err := r.list(ctx, rd.n)
			done.Listed, done.Due = len(l.Recipes)+len(l.Packs), rd.opened.Add(o.Grace)
			return done, err
		}
	}
	m, err := r.mark(ctx, now, o.Grace)
	if err != nil {
		return done, err
	}
	l, size := m.dead()
	done.Listed, done.ListedBytes = len(l.Recipes)+len(l.Packs), size
	done.Kept = len(m.recipes) + len(m.packs) - m.deadCount
	if done.Listed == 0 || o.DryRun {
		return done, nil
	}
	if err := r.openRound(ctx, last+1, l); err != nil {
		return done, err
	}
	fault.At(fault.RoundOpened)
	done.Due = now.Add(o.Grace)
	if o.Grace > 0 {
		return done, nil
	}
	// Nobody pushes: both steps at once.
	if err := r.decide(ctx, last+1, fateSweep); err != nil {
		return done, err
	}
	done.Listed, done.ListedBytes, done.Due = 0, 0, time.Time{}
	return done, r.sweep(ctx, round{n: last + 1, fate: fateSweep}, now, 0, &done)
}

// clockKey is rewritten to learn the bucket's time.
const clockKey = "gc/clock"

func (r *Remote) bucketTime(ctx context.Context, dry bool) (time.Time, error) {
	if dry {
		return time.Now(), nil // nothing depends on it
	}
	if err := r.b.Put(ctx, clockKey, seal([]byte(`{}`))); err != nil {
		return time.Time{}, err
	}
	o, err := r.b.Stat(ctx, clockKey)
	return o.ModTime, err
}

// sweep removes what a round lists and what is still not needed.
func (r *Remote) sweep(ctx context.Context, rd round, now time.Time, grace time.Duration, done *Collected) error {
	fault.At(fault.RoundDecided)
	l, err := r.list(ctx, rd.n)
	if err != nil {
		return err
	}
	// The second look, after the fate was decided: a push that ended before is
	// seen, one that ends later sees the fate.
	m, err := r.mark(ctx, now, grace)
	if err != nil {
		return err
	}
	var keys []string
	// Recipes first: one that is there must not lead to packs that are not.
	for _, d := range l.Recipes {
		if o, ok := m.recipes[d]; ok && !m.liveRecipe[d] {
			keys = append(keys, recipeKey(d))
			done.RemovedBytes += o.Size
		}
	}
	recipes := len(keys)
	for _, d := range l.Packs {
		if o, ok := m.packs[d]; ok && !m.livePack[d] {
			keys = append(keys, packKey(d))
			done.RemovedBytes += o.Size
		}
	}
	remove := func(keys []string) error {
		return each(ctx, len(keys), 16, func(ctx context.Context, i int) error { return r.b.Delete(ctx, keys[i]) })
	}
	if err := remove(keys[:recipes]); err != nil {
		return err
	}
	fault.At(fault.RoundRecipes)
	if err := remove(keys[recipes:]); err != nil {
		return err
	}
	fault.At(fault.RoundSwept)
	done.Removed = len(keys)
	return r.endRound(ctx, rd.n)
}

// marked is what a bucket has, and what of it is needed.
type marked struct {
	recipes, packs       map[cas.Digest]Object
	liveRecipe, livePack map[cas.Digest]bool
	deadCount            int
}

// maxListed bounds what one round lists; the rest is for the next.
const maxListed = 10_000

// dead lists what is not needed.
func (m *marked) dead() (roundList, int64) {
	var l roundList
	var size int64
	pick := func(to *[]cas.Digest, all map[cas.Digest]Object, live map[cas.Digest]bool) {
		for d, o := range all {
			if live[d] {
				continue
			}
			m.deadCount++
			if len(l.Recipes)+len(l.Packs) < maxListed {
				*to = append(*to, d)
				size += o.Size
			}
		}
	}
	pick(&l.Recipes, m.recipes, m.liveRecipe)
	pick(&l.Packs, m.packs, m.livePack)
	return l, size
}

// mark finds what refs need, and what is younger than grace: what a push brings
// before it names it.
func (r *Remote) mark(ctx context.Context, now time.Time, grace time.Duration) (*marked, error) {
	m := &marked{liveRecipe: map[cas.Digest]bool{}, livePack: map[cas.Digest]bool{}}
	young := func(o Object) bool { return o.ModTime.Add(grace).After(now) }
	// Refs are read after the objects that they need were listed: a ref that is
	// new keeps objects that are.
	var err error
	if m.recipes, err = r.objects(ctx, "recipes/"); err != nil {
		return nil, err
	}
	if m.packs, err = r.objects(ctx, "packs/"); err != nil {
		return nil, err
	}
	for d, o := range m.recipes {
		m.liveRecipe[d] = young(o)
	}
	for d, o := range m.packs {
		m.livePack[d] = young(o)
	}
	if err := r.refTrees(ctx, func(_ string, tree cas.Digest) {
		m.liveRecipe[tree] = true
	}); err != nil {
		return nil, err
	}
	var live []cas.Digest
	for d, ok := range m.liveRecipe {
		if _, there := m.recipes[d]; there && ok {
			live = append(live, d)
		}
	}
	packs := make(chan cas.Digest)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for d := range packs {
			m.livePack[d] = true
		}
	}()
	err = each(ctx, len(live), 8, func(ctx context.Context, i int) error {
		rc, err := r.Recipe(ctx, live[i])
		if err != nil {
			// What it needs is not known: nothing can be said of any pack.
			return fmt.Errorf("read recipe %s, which is needed: %w", live[i].Short(), err)
		}
		rows, err := rc.rows(ctx, 0, rc.head.stream)
		if err != nil {
			return fmt.Errorf("read recipe %s, which is needed: %w", live[i].Short(), err)
		}
		var last cas.Digest
		for _, row := range rows {
			if row.pack != last {
				last = row.pack
				packs <- last
			}
		}
		return nil
	})
	close(packs)
	<-ended
	return m, err
}

// objects lists a room whose objects are named by digests.
func (r *Remote) objects(ctx context.Context, room string) (map[cas.Digest]Object, error) {
	all := map[cas.Digest]Object{}
	for o, err := range r.b.List(ctx, room, "") {
		if err != nil {
			return nil, err
		}
		if d, err := cas.ParseDigest(o.Key[strings.LastIndexByte(o.Key, '/')+1:]); err == nil && digestKey(strings.TrimSuffix(room, "/"), d) == o.Key {
			all[d] = o
		}
	}
	return all, nil
}

// refTrees calls fn, from one goroutine at a time, for each tree that a ref
// names. A ref that cannot be read is an error: it may need something.
func (r *Remote) refTrees(ctx context.Context, fn func(name string, tree cas.Digest)) error {
	var keys []string
	for o, err := range r.b.List(ctx, "refs/", "") {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(o.Key, tagRoom), o.Size == 0:
		case strings.HasPrefix(o.Key, "refs/artifact/"), strings.HasPrefix(o.Key, stageRoom), strings.HasPrefix(o.Key, workRoom):
			keys = append(keys, o.Key)
		default:
			return fmt.Errorf("%s is no ref that this Curi knows; use a newer one: %w", o.Key, cas.ErrFormat)
		}
	}
	trees := make([]cas.Digest, len(keys))
	err := each(ctx, len(keys), 16, func(ctx context.Context, i int) error {
		b, err := readSealed(ctx, r.b, keys[i])
		var v RefInfo
		if err == nil {
			v, err = parseRef(keys[i], b)
		}
		if errors.Is(err, cas.ErrNotFound) {
			return nil // removed meanwhile
		}
		trees[i] = v.Tree
		return err
	})
	if err != nil {
		return err
	}
	for i, d := range trees {
		if !d.IsZero() {
			fn(strings.TrimPrefix(keys[i], "refs/"), d)
		}
	}
	return nil
}
