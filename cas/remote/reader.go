package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/curi-store/curi/cas"
)

// Reader reads what the remotes of a store have, for [cas.Store.UseRemotes]. It
// contacts a remote when something of it is read, keeps the connection, and
// after a failure leaves the remote alone for a while. It may be used by
// several goroutines at once. Close it after the store.
type Reader struct {
	s    *cas.Store
	o    BucketOptions
	open func(ctx context.Context, url string, o BucketOptions) (Bucket, error) // OpenURL

	mu    sync.Mutex
	links map[string]*link
	seen  map[string]seenAt
}

// seenAt is a list of names as it was read.
type seenAt struct {
	Seen
	mtime time.Time
	size  int64
}

// readPatience is that of lazy reads, unless another is asked for: a program
// waits.
var readPatience = Patience{Tries: 3, Timeout: 10 * time.Second}

// NewReader makes one.
func NewReader(s *cas.Store, o BucketOptions) *Reader {
	if o.Patience == (Patience{}) {
		o.Patience = readPatience
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reader{s: s, o: o, open: OpenURL, links: map[string]*link{}, seen: map[string]seenAt{}}
}

// Offline makes it ask no remote: only what was read before can be read. Call it
// before the Reader is used.
func (r *Reader) Offline() {
	r.open = func(context.Context, string, BucketOptions) (Bucket, error) { return nil, errOffline{} }
}

// errOffline is an [ErrAway] by wish.
type errOffline struct{}

func (errOffline) Error() string { return "no remote is to be asked" }

func (errOffline) Is(target error) bool { return target == ErrAway }

// Close ends the connections.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		l.close()
	}
	clear(r.links)
	return nil
}

// Names lists the remotes, or the artifacts of one.
func (r *Reader) Names(ctx context.Context, remote string) ([]string, error) {
	var names []string
	if remote == "" {
		configs, err := Configs(ctx, r.s)
		for _, c := range configs {
			names = append(names, c.Name)
		}
		return names, err
	}
	seen, err := r.names(ctx, remote)
	if err != nil {
		return nil, err
	}
	for _, v := range seen.Newest("") {
		names = append(names, v.Name)
	}
	return names, nil
}

// Find finds NAME, NAME@NUMBER or NAME@TAG.
func (r *Reader) Find(ctx context.Context, remote, name string) (cas.Digest, error) {
	seen, err := r.names(ctx, remote)
	if err != nil {
		return cas.Digest{}, err
	}
	name, selector, has := strings.Cut(name, "@")
	var v Version
	if n, nerr := strconv.Atoi(selector); !has {
		v, err = seen.Find(name, 0)
	} else if nerr == nil && n > 0 && strconv.Itoa(n) == selector {
		v, err = seen.Find(name, n)
	} else {
		v, err = seen.FindTag(name, selector)
	}
	return v.Tree, err
}

// FindTree finds a remote that had a version with that tree at the last pull.
func (r *Reader) FindTree(ctx context.Context, tree cas.Digest) (string, error) {
	configs, err := Configs(ctx, r.s)
	if err != nil {
		return "", err
	}
	for _, c := range configs {
		seen, err := r.names(ctx, c.Name)
		if err != nil {
			return "", err
		}
		if slices.ContainsFunc(seen.Versions, func(v Version) bool { return v.Tree == tree }) {
			return c.Name, nil
		}
	}
	return "", fmt.Errorf("tree %s: on no remote, as of the last pull: %w", tree, cas.ErrNotFound)
}

// names reads the names of a remote where they changed since.
func (r *Reader) names(ctx context.Context, remote string) (Seen, error) {
	if _, err := FindConfig(ctx, r.s, remote); err != nil {
		return Seen{}, err
	}
	fi, err := os.Stat(r.s.RemoteFile(remote, seenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Seen{}, nil // before the first pull
	}
	if err != nil {
		return Seen{}, fmt.Errorf("read the names of remote %s: %w", remote, err)
	}
	r.mu.Lock()
	at, ok := r.seen[remote]
	r.mu.Unlock()
	if ok && at.mtime.Equal(fi.ModTime()) && at.size == fi.Size() {
		return at.Seen, nil
	}
	seen, err := LoadSeen(ctx, r.s, remote)
	if err != nil {
		return Seen{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[remote] = seenAt{seen, fi.ModTime(), fi.Size()}
	return seen, nil
}

// Open opens the recipe of a tree, from what was kept of it if it is there.
func (r *Reader) Open(ctx context.Context, remote string, root cas.Digest, pages *cas.Pages) (cas.RemoteTree, error) {
	l, err := r.link(ctx, remote)
	if err != nil {
		return nil, err
	}
	rc, err := openRecipe(ctx, l, root, firstRead, pages)
	if errors.Is(err, ErrGone) {
		err = fmt.Errorf("tree %s: %w: %w", root.Short(), cas.ErrNotFound, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", remote, err)
	}
	return &lazyTree{s: r.s, b: l, root: root, pages: pages, now: &openTree{rc: rc}}, nil
}

// link finds the connection to a remote, which is made when it is used.
func (r *Reader) link(ctx context.Context, remote string) (*link, error) {
	c, err := FindConfig(ctx, r.s, remote)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.links[remote]
	if l != nil && l.url != c.URL {
		l.close() // it was given another address
		l = nil
	}
	if l == nil {
		l = newLink(remote, c.URL, r.o)
		l.open = r.open
		r.links[remote] = l
	}
	return l, nil
}

// link is a connection to a remote that is made when it is needed. While the
// remote is away it refuses at once, but for one request every now and then.
type link struct {
	Bucket // nil: to read recipes and packs takes ReadAt alone
	name   string
	url    string
	o      BucketOptions
	open   func(context.Context, string, BucketOptions) (Bucket, error)
	pace   pace

	opening chan struct{} // holds a value unless somebody opens b

	mu     sync.Mutex
	b      Bucket
	closed bool
	away   away
}

func newLink(name, url string, o BucketOptions) *link {
	l := &link{name: name, url: url, o: o, opening: make(chan struct{}, 1)}
	l.opening <- struct{}{}
	return l
}

// away remembers that a remote is not there.
type away struct {
	until time.Time
	wait  time.Duration
	err   error
	// While somebody finds out whether it still is; closed when he knows.
	asked chan struct{}
}

// How long a remote that is away is left alone, at first and at most.
const (
	awayFirst = time.Second
	awayMost  = 30 * time.Second
)

// begin reports whether a request may be made now; probe: it is the one that
// finds out. Others wait for that: a range is fetched by several requests at
// once, of which one that fails ends the others.
func (l *link) begin(ctx context.Context) (probe bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &l.away
	for a.err != nil && a.asked != nil {
		asked := a.asked
		l.mu.Unlock()
		select {
		case <-asked:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	if a.err == nil {
		return false, nil
	}
	if time.Now().Before(a.until) {
		return false, fmt.Errorf("remote %s was away %s ago and is asked again later: %w", l.name, time.Since(a.until.Add(-a.wait)).Round(time.Second), a.err)
	}
	a.asked = make(chan struct{})
	return true, nil
}

// end notes how a request ended.
func (l *link) end(ctx context.Context, probe bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &l.away
	if probe {
		close(a.asked)
		a.asked = nil
	}
	switch {
	case errors.Is(err, errOffline{}): // nothing to find out
	case errors.Is(err, ErrAway):
		if a.err != nil && !probe {
			return // one of several that failed together
		}
		a.wait = min(max(2*a.wait, awayFirst), awayMost)
		a.until, a.err = time.Now().Add(a.wait), err
		l.o.Logger.Warn("a remote is away; what only it has cannot be read for now", "remote", l.name, "again_in", a.wait, "err", err)
	case err != nil && ctx.Err() != nil: // it was not told
	default:
		*a = away{asked: a.asked}
	}
}

// bucket makes the connection.
func (l *link) bucket(ctx context.Context) (Bucket, error) {
	select {
	case <-l.opening:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { l.opening <- struct{}{} }()
	l.mu.Lock()
	b, closed := l.b, l.closed
	l.mu.Unlock()
	if b != nil || closed {
		if closed {
			return nil, errors.New("closed")
		}
		return b, nil
	}
	o := l.o
	one, cancel := context.WithTimeout(ctx, o.Patience.filled().Timeout)
	defer cancel()
	b, err := l.open(one, l.url, o)
	if err != nil && ctx.Err() == nil {
		// A helper that is missing, too: whoever opens 10,000 files is not to
		// look for it as often.
		if !errors.Is(err, ErrAway) {
			err = fmt.Errorf("%w: %w", err, ErrAway)
		}
		err = fmt.Errorf("remote %s: %w", l.name, err)
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		b.Close()
		return nil, errors.New("closed")
	}
	l.b = b
	return b, nil
}

// lost gives up a connection whose helper ended.
func (l *link) lost(b Bucket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b == b {
		l.b = nil
		go b.Close()
	}
}

func (l *link) ReadAt(ctx context.Context, key string, p []byte, off int64) (n int, err error) {
	err = l.read(ctx, key, func(b Bucket, _ func()) error {
		n, err = b.ReadAt(ctx, key, p, off)
		return err
	})
	return n, err
}

func (l *link) lend(ctx context.Context, key string, off int64, n int) (got loan, err error) {
	err = l.read(ctx, key, func(b Bucket, _ func()) error {
		got, err = lend(ctx, b, key, off, n)
		return err
	})
	return got, err
}

func (l *link) readPieces(ctx context.Context, key string, off, n int64, got func([]byte) error) error {
	rest := restOf{off, n, got}
	began := time.Now()
	pieces := false
	err := l.read(ctx, key, func(b Bucket, there func()) error {
		_, pieces = b.(pieceReader)
		return readPieces(ctx, b, key, rest.off, rest.n, func(p []byte) error {
			there()
			return rest.take(p)
		})
	})
	if err == nil && pieces {
		l.pace.note(n, time.Since(began))
	}
	return err
}

// read makes a request by fn, a second time where the helper ended meanwhile.
// fn may say that the remote is there before all of the answer is.
func (l *link) read(ctx context.Context, key string, fn func(b Bucket, there func()) error) error {
	probe, err := l.begin(ctx)
	if err != nil {
		return err
	}
	err = l.readNow(ctx, key, func(b Bucket) error {
		return fn(b, func() {
			if probe {
				l.end(ctx, probe, nil)
				probe = false
			}
		})
	})
	l.end(ctx, probe, err)
	return err
}

func (l *link) readNow(ctx context.Context, key string, fn func(Bucket) error) error {
	for try := 0; ; try++ {
		b, err := l.bucket(ctx)
		if err != nil {
			return err
		}
		err = fn(b)
		var ended *helperEnded
		if errors.As(err, &ended) {
			l.lost(b)
			if try > 0 {
				return fmt.Errorf("%w: %w", err, ErrAway)
			}
			continue
		}
		if errors.Is(err, cas.ErrNotFound) {
			err = l.gone(ctx, b, key)
		}
		return err
	}
}

// ErrGone means that an object which a recipe names is not there. It is no
// [cas.ErrNotFound]: a program must not take it for a name that is missing in a
// directory.
var ErrGone = errors.New("not on the remote; it may have been collected: curi remote fsck tells")

// gone words that an object is missing. Where the whole remote is, as that of a
// directory which is not mounted, it is away.
func (l *link) gone(ctx context.Context, b Bucket, key string) error {
	_, err := b.ReadAt(ctx, headerKey, make([]byte, 1), 0)
	if errors.Is(err, cas.ErrNotFound) {
		return fmt.Errorf("no remote at %s: %w", l.url, ErrAway)
	}
	return fmt.Errorf("%s: %w", key, ErrGone)
}

// Close is for who closes a [Remote]; the connection stays.
func (l *link) Close() error { return nil }

func (l *link) close() {
	l.mu.Lock()
	b := l.b
	l.b, l.closed = nil, true
	l.mu.Unlock()
	if b != nil {
		b.Close()
	}
}
