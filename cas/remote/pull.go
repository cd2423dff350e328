package remote

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/curi-store/curi/cas"
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
	p := &puller{ctx: ctx, rc: rc, s: s, progress: o.Progress, files: map[cas.Digest]Node{}}
	w := treeWalk{rc: rc, seen: map[cas.Digest]bool{}, file: p.need, dir: p.tree}
	if err := w.walk(ctx, rc.Root(), 0); err != nil {
		return nil, err
	}
	if p.in, err = s.NewIntake(); err != nil {
		return nil, err
	}
	defer p.in.Close()
	for round := 0; ; round++ {
		if err := p.fetch(); err != nil {
			return nil, err
		}
		added, missing, err := p.in.Publish(ctx, p.trees)
		if err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			added.Files = rc.Files()
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

	total, done           int64 // bytes
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
		p.doneFiles++
		p.tell(0)
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

func (p *puller) tell(n int) {
	p.done += int64(n)
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
		p.tell(len(b))
		return small.add(n.Digest, b)
	}
	return p.in.Reader(p.ctx, n.Digest, n.Size, &countedReader{r, p.tell})
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
