package remote

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// PullOptions of [Remote.Pull].
type PullOptions struct {
	Progress cas.Progress
}

// flushAfter is how many bytes, and how many files, a pull stages before it
// makes them durable: what is lost at most where it is killed.
const (
	flushAfter = 256 << 20
	flushFiles = 4096
)

const (
	// A file of at least so many bytes is kept as a partial blob while it comes:
	// a pull that is killed goes on within it.
	resumeFrom = 32 << 20
	// so many of its segments come at once; each takes a few times its size of
	// memory.
	segmentsAtOnce = 3
)

// Pull brings a whole tree into the store, verified, and pins it until the
// result is released. What the store has is not fetched; what a pull that was
// cut off brought is there for the next one.
func (r *Remote) Pull(ctx context.Context, s *cas.Store, root cas.Digest, o PullOptions) (*cas.Added, error) {
	added, err := r.pull(ctx, s, root, o)
	if err != nil {
		return nil, fmt.Errorf("pull tree %s: %w", root.Short(), err)
	}
	return added, nil
}

func (r *Remote) pull(ctx context.Context, s *cas.Store, root cas.Digest, o PullOptions) (*cas.Added, error) {
	rc, err := r.Recipe(ctx, root)
	if err != nil {
		return nil, err
	}
	added, err := pullDir(ctx, s, rc, rc.Root(), o)
	if err == nil {
		added.Files = rc.Files()
	}
	return added, err
}

// pullDir brings a directory of a recipe. Files of the result is not set.
func pullDir(ctx context.Context, s *cas.Store, rc *Recipe, dir Node, o PullOptions) (*cas.Added, error) {
	p := &puller{ctx: ctx, rc: rc, s: s, progress: o.Progress, files: map[cas.Digest]Node{}}
	w := treeWalk{rc: rc, seen: map[cas.Digest]bool{}, file: p.need, dir: p.tree}
	if err := w.walk(ctx, dir, 0); err != nil {
		return nil, err
	}
	in, err := s.NewIntake()
	if err != nil {
		return nil, err
	}
	p.in = in
	defer p.in.Close()
	for round := 0; ; round++ {
		if err := p.fetch(); err != nil {
			return nil, err
		}
		fault.At(fault.PullFetched)
		added, missing, err := p.in.Publish(ctx, p.trees)
		if err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			return added, nil
		}
		if round == 10 {
			return nil, fmt.Errorf("a collection takes what comes in, again and again: %w", cas.ErrBusy)
		}
		p.todo = p.todo[:0]
		for _, d := range missing {
			p.todo = append(p.todo, p.files[d])
		}
	}
}

// puller is one pull.
type puller struct {
	ctx      context.Context
	rc       *Recipe
	s        *cas.Store
	in       *cas.Intake
	progress cas.Progress

	trees [][]byte // children before parents
	files map[cas.Digest]Node
	todo  []Node // that the store lacks
	large []Node // of them, those that come in parts

	mu                    sync.Mutex // of what follows
	total, done           int64      // bytes
	totalFiles, doneFiles int64
	flushed               int64 // files
}

func (p *puller) need(n Node) error {
	if _, ok := p.files[n.Digest]; ok {
		return nil
	}
	p.files[n.Digest] = n
	if !p.s.HasWholeBlob(n.Digest, n.Size) {
		p.todo = append(p.todo, n)
		p.total += n.Size
		p.totalFiles++
	}
	return nil
}

func (p *puller) tree(t *cas.Tree, _ cas.Digest) error {
	enc, err := t.Encode()
	p.trees = append(p.trees, enc)
	return err
}

// fetch brings what is to do into the intake.
func (p *puller) fetch() error {
	slices.SortFunc(p.todo, func(a, b Node) int { return cmp.Compare(a.place.at, b.place.at) })
	p.todo = slices.DeleteFunc(p.todo, func(n Node) bool {
		if n.Size < resumeFrom {
			return false
		}
		p.large = append(p.large, n)
		return true
	})
	if err := p.fetchSmall(); err != nil {
		return err
	}
	for _, n := range p.large {
		if err := p.resume(n); err != nil {
			return fmt.Errorf("fetch file %s: %w", n.Digest, err)
		}
		p.tell(0, 1)
	}
	p.large = nil
	return nil
}

// resume brings a large file, of which the store may have parts.
func (p *puller) resume(n Node) error {
	part, err := p.s.OpenPartial(p.ctx, n.Digest, n.Size)
	if err != nil {
		return err
	}
	defer part.Close()
	base := p.done
	came := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.done = base + part.Local()
		if p.progress != nil {
			p.progress(p.done, p.total, p.doneFiles, p.totalFiles)
		}
	}
	came()
	var lacking []int64 // segments
	for lo := int64(0); lo < n.Size; lo += segmentSize {
		if a, b := part.Missing(lo, segmentSize); a != b {
			lacking = append(lacking, lo)
		}
	}
	err = each(p.ctx, len(lacking), segmentsAtOnce, func(ctx context.Context, i int) error {
		if err := p.rc.Fetch(ctx, n, part, lacking[i], min(n.Size, lacking[i]+segmentSize)); err != nil {
			return err
		}
		part.WriteBack(lacking[i], segmentSize)
		came()
		fault.At(fault.PullPart)
		return nil
	})
	if err != nil {
		return err
	}
	return part.Promote(p.ctx)
}

// fetchSmall brings the files that come whole or not at all.
func (p *puller) fetchSmall() error {
	var spans []span
	for _, n := range p.todo {
		if n.Size == 0 {
			continue
		}
		lo, hi := n.place.at, n.place.at+n.Size
		switch k := len(spans); {
		case k > 0 && lo < spans[k-1].hi:
			return fmt.Errorf("%s: files lie over each other: %w", p.rc.key, cas.ErrCorrupt)
		case k > 0 && lo == spans[k-1].hi:
			spans[k-1].hi = hi
		default:
			spans = append(spans, span{lo, hi})
		}
	}
	r := p.rc.read(p.ctx, spans)
	defer r.Close()
	small := newStager(p.in)
	defer small.wait()
	for _, n := range p.todo {
		if err := p.one(n, r, small); err != nil {
			return fmt.Errorf("fetch file %s: %w", n.Digest, err)
		}
		p.tell(0, 1)
		if p.in.Staged() >= flushAfter || p.doneFiles-p.flushed >= flushFiles {
			p.flushed = p.doneFiles
			if err := small.wait(); err != nil {
				return err
			}
			if err := p.in.Flush(p.ctx); err != nil {
				return err
			}
		}
	}
	return small.wait()
}

// tell counts bytes and files that came.
func (p *puller) tell(n, files int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += int64(n)
	p.doneFiles += int64(files)
	if p.progress != nil {
		p.progress(p.done, p.total, p.doneFiles, p.totalFiles)
	}
}

// one stages one file, whose bytes are the next of r.
func (p *puller) one(n Node, r io.Reader, small *stager) error {
	if n.Size <= cas.MinOutboard {
		b := make([]byte, n.Size)
		if _, err := io.ReadFull(r, b); err != nil {
			return cutOff(p.rc.key, err)
		}
		p.tell(len(b), 0)
		return small.add(n.Digest, b)
	}
	return p.in.Reader(p.ctx, n.Digest, n.Size, &countedReader{r, func(n int) { p.tell(n, 0) }})
}

type countedReader struct {
	r    io.Reader
	tell func(int)
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.tell(n)
	return n, err
}
