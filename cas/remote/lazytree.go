package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/curi-store/curi/cas"
)

// lazyTree is a tree of a remote as [cas.RemoteTree].
type lazyTree struct {
	s     *cas.Store
	b     Bucket
	root  cas.Digest
	pages *cas.Pages

	mu      sync.Mutex
	now     *openTree
	renewed time.Time
}

// openTree is the recipe of a tree as it was at one time.
type openTree struct {
	rc    *Recipe
	small smallBlocks
}

func entryOf(n Node) cas.LazyEntry {
	return cas.LazyEntry{Entry: n.Entry, Place: [2]int64{n.place.at, n.place.length}}
}

func nodeOf(e cas.LazyEntry) Node { return Node{e.Entry, place{e.Place[0], e.Place[1]}} }

func (t *lazyTree) current() *openTree {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// renewEvery is how often a recipe is read anew because it led nowhere.
const renewEvery = 10 * time.Second

// with calls fn with the recipe. Where that leads to what is not there, or is
// something else, it is read anew, once: the remote may have been collected,
// and the tree pushed again, since it was read and kept. Directories lie where
// they lay; where the chunks lie is what changes.
func (t *lazyTree) with(ctx context.Context, fn func(*openTree) error) error {
	was := t.current()
	err := fn(was)
	if !errors.Is(err, ErrGone) && !errors.Is(err, cas.ErrCorrupt) || ctx.Err() != nil {
		return err
	}
	if now := t.renew(ctx, was); now != nil {
		return fn(now)
	}
	return err
}

func (t *lazyTree) renew(ctx context.Context, was *openTree) *openTree {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now != was {
		return t.now
	}
	if time.Since(t.renewed) < renewEvery {
		return nil
	}
	t.renewed = time.Now()
	t.pages.Clear()
	rc, err := openRecipe(ctx, t.b, t.root, firstRead, t.pages)
	if err != nil {
		return nil // what failed first says more
	}
	t.now = &openTree{rc: rc}
	return t.now
}

func (t *lazyTree) Root() cas.LazyEntry { return entryOf(t.current().rc.Root()) }
func (t *lazyTree) Files() int64        { return t.current().rc.Files() }

func (t *lazyTree) Large(dir cas.LazyEntry) bool { return nodeOf(dir).place.length > treePageSize }

func (t *lazyTree) Tree(ctx context.Context, dir cas.LazyEntry) (tree *cas.Tree, entries []cas.LazyEntry, err error) {
	err = t.with(ctx, func(o *openTree) error {
		var nodes []Node
		if tree, nodes, err = o.rc.Tree(ctx, nodeOf(dir)); err != nil {
			return err
		}
		entries = make([]cas.LazyEntry, len(nodes))
		for i, n := range nodes {
			entries[i] = entryOf(n)
		}
		return nil
	})
	return tree, entries, err
}

func (t *lazyTree) Lookup(ctx context.Context, dir cas.LazyEntry, name string) (e cas.LazyEntry, err error) {
	err = t.with(ctx, func(o *openTree) error {
		n, err := o.rc.Lookup(ctx, nodeOf(dir), name)
		e = entryOf(n)
		return err
	})
	return e, err
}

func (t *lazyTree) Small(ctx context.Context, e cas.LazyEntry) (b []byte, err error) {
	n := nodeOf(e)
	if !n.IsRegular() || n.Size > cas.MinOutboard {
		return nil, fmt.Errorf("read %q: it is no small file: %w", n.Name, cas.ErrInvalid)
	}
	err = t.with(ctx, func(o *openTree) error {
		if b, err = o.small.read(ctx, o.rc, span{n.place.at, n.place.at + n.Size}); err != nil {
			return err
		}
		return checkSmall(n, b)
	})
	return b, err
}

// Range brings whole chunks, as far as they hold bytes of the file, where they
// have to come anyway.
func (t *lazyTree) Range(ctx context.Context, e cas.LazyEntry, p *cas.Partial, lo, hi int64) error {
	n := nodeOf(e)
	if !n.IsRegular() || n.Size != p.Size() {
		return fmt.Errorf("fetch %q: it is no file of %d bytes: %w", n.Name, p.Size(), cas.ErrInvalid)
	}
	for {
		a, b := p.Missing(lo, hi-lo)
		if a == b {
			return nil
		}
		err := t.with(ctx, func(o *openTree) (err error) {
			lo, err = o.rc.fetchFrom(ctx, n, p, a, b)
			return err
		})
		if err != nil {
			return fmt.Errorf("fetch bytes %d to %d of %s: %w", a, b, n.Digest, err)
		}
	}
}

// Stretch is a pack, as far as it holds the file, where one request brings it as
// fast as several bring parts of it.
func (t *lazyTree) Stretch(ctx context.Context, e cas.LazyEntry, at int64) (end int64, err error) {
	if l, ok := t.b.(*link); !ok || !l.pace.fast() {
		return at, nil
	}
	err = t.with(ctx, func(o *openTree) error {
		end, err = o.rc.stretch(ctx, nodeOf(e), at)
		return err
	})
	return end, err
}

func (t *lazyTree) Pull(ctx context.Context, dir cas.LazyEntry, progress cas.Progress) (added *cas.Added, err error) {
	err = t.with(ctx, func(o *openTree) error {
		added, err = pullDir(ctx, t.s, o.rc, nodeOf(dir), PullOptions{Progress: progress})
		return err
	})
	return added, err
}

// fetchLeast is how much of a file comes at once at least, in bytes: who reads
// here mostly goes on nearby.
const fetchLeast = 64 << 10

// widen returns the part of a segment of the file, in whole groups, that the
// chunks under at hold.
func (rc *Recipe) widen(ctx context.Context, n Node, at span) (span, error) {
	rows, err := rc.rows(ctx, n.place.at+at.lo, n.place.at+at.hi)
	if err != nil || len(rows) == 0 {
		return at, err
	}
	k := at.lo / segmentSize * segmentSize
	first, last := rows[0], rows[len(rows)-1]
	lo, hi := first.start-n.place.at, last.end()-n.place.at
	// Chunks that are stored as they are come in part.
	least := int64(fetchLeast)
	if at.hi-at.lo >= fetchLeast {
		least = cas.GroupSize
	}
	if first.enc == encStored {
		lo = max(lo, at.lo/least*least)
	}
	if last.enc == encStored {
		hi = min(hi, (at.hi+least-1)/least*least)
	}
	lo, hi = max(k, lo), min(k+segmentSize, n.Size, hi)
	lo = (lo + cas.GroupSize - 1) / cas.GroupSize * cas.GroupSize
	if hi != n.Size {
		hi = hi / cas.GroupSize * cas.GroupSize
	}
	return span{min(lo, at.lo), max(hi, at.hi)}, nil
}

// smallBlocks reads small files, which share chunks, through the blocks of the
// file stream that it read lately: who reads one file mostly reads its
// neighbours next.
type smallBlocks struct {
	mu      sync.Mutex
	blocks  []*block // the one that was made last last
	bytes   int64
	next    int64 // where a reader in order goes on
	window  int64
	started bool
}

// block is a part of the file stream in whole chunks.
type block struct {
	span
	b     []byte
	err   error
	ready chan struct{} // closed with b or err set
}

const (
	maxBlocks  = 8 << 20   // bytes that are kept
	blockMin   = 128 << 10 // read ahead at once, at first
	blockMax   = 4 << 20
	blockSlack = 512 << 10
)

// read returns a part of the stream, which is the caller's.
func (c *smallBlocks) read(ctx context.Context, rc *Recipe, at span) ([]byte, error) {
	if at.lo == at.hi {
		return []byte{}, nil
	}
	for {
		bl, mine, err := c.block(ctx, rc, at)
		if err != nil {
			return nil, err
		}
		if mine {
			bl.b, bl.err = rc.readSpan(ctx, bl.span)
			c.settle(bl)
			close(bl.ready)
		}
		select {
		case <-bl.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if bl.err == nil {
			return append([]byte{}, bl.b[at.lo-bl.lo:at.hi-bl.lo]...), nil
		}
		if mine || ctx.Err() != nil {
			return nil, bl.err
		}
		// Who fetched it may just have given up.
	}
}

// block finds the block that covers at, or makes one, which the caller fills.
func (c *smallBlocks) block(ctx context.Context, rc *Recipe, at span) (bl *block, mine bool, err error) {
	c.mu.Lock()
	bl, want := c.find(at), c.plan(at, rc.head.stream)
	c.mu.Unlock()
	if bl != nil {
		return bl, false, nil
	}
	rows, err := rc.rows(ctx, want.lo, want.hi)
	if err != nil {
		return nil, false, err
	}
	if len(rows) > 0 {
		want = span{rows[0].start, rows[len(rows)-1].end()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if bl := c.find(at); bl != nil {
		return bl, false, nil // made meanwhile
	}
	bl = &block{span: want, ready: make(chan struct{})}
	c.blocks = append(c.blocks, bl)
	for c.bytes += want.hi - want.lo; c.bytes > maxBlocks && len(c.blocks) > 1; c.blocks = c.blocks[1:] {
		c.bytes -= c.blocks[0].hi - c.blocks[0].lo
	}
	return bl, true, nil
}

func (c *smallBlocks) find(at span) *block {
	for i := len(c.blocks) - 1; i >= 0; i-- {
		if bl := c.blocks[i]; bl.lo <= at.lo && at.hi <= bl.hi {
			return bl
		}
	}
	return nil
}

// plan notes a read, and returns what is to be fetched if it must be.
func (c *smallBlocks) plan(at span, end int64) span {
	switch {
	case !c.started:
		c.started = true
	case at.lo < c.next-blockSlack || at.lo > c.next+blockSlack:
		c.window = 0
	default:
		c.window = min(max(2*c.window, blockMin), blockMax)
	}
	c.next = at.hi
	return span{at.lo, min(end, at.hi+c.window)}
}

// settle forgets a block that did not come.
func (c *smallBlocks) settle(bl *block) {
	if bl.err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.blocks {
		if c.blocks[i] == bl {
			c.blocks = append(c.blocks[:i], c.blocks[i+1:]...)
			c.bytes -= bl.hi - bl.lo
			return
		}
	}
}
