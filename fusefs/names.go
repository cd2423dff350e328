//go:build linux

package fusefs

import (
	"context"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A source says what a directory shows whose names can change. Its methods
// read the store each time.
type source interface {
	// lookup finds a name; an error that wraps [cas.ErrNotFound] if it shows nothing.
	lookup(ctx context.Context, name string) (shown, error)
	// list returns the names and types to list.
	list(ctx context.Context) ([]fuse.DirEntry, error)
}

// shown is what a name shows at one time.
type shown struct {
	ident  string // two with the same are the same thing
	stable fs.StableAttr
	attr   fuse.Attr
	live   bool // the attributes change: the kernel must not keep them
	make   func() fs.InodeEmbedder
}

// names is a directory whose names can change. The kernel keeps every answer
// until a refresh takes it back, so names remembers what it answered.
type names struct {
	readOnly
	src source

	mu    sync.Mutex
	known map[string]*answers
}

// answers is what the kernel may hold, or be about to hold, for one name.
type answers struct {
	asked  int             // look-ups under way
	idents map[string]bool // answers given since the last invalidation
}

func newNames(f *filesystem, ident string, src source) *names {
	return &names{readOnly: readOnly{f: f, ident: ident}, src: src, known: map[string]*answers{}}
}

// shownNames is a names directory as another directory shows it.
func shownNames(f *filesystem, ident string, src source) shown {
	return shown{
		ident:  ident,
		stable: fs.StableAttr{Mode: syscall.S_IFDIR},
		attr:   f.fixed(syscall.S_IFDIR|0o555, 0, 0),
		make:   func() fs.InodeEmbedder { return newNames(f, ident, src) },
	}
}

func (n *names) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = n.f.fixed(syscall.S_IFDIR|0o555, 0, n.StableAttr().Ino)
	out.SetTimeout(forever)
	return 0
}

func (n *names) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	// Noted before the store is read: a refresh that begins after the read
	// must find this look-up. Its notification waits in the kernel until the
	// look-up's answer is in the cache, and then drops it.
	n.mu.Lock()
	a := n.known[name]
	if a == nil {
		a = &answers{idents: map[string]bool{}}
		n.known[name] = a
	}
	a.asked++
	n.mu.Unlock()

	s, err := n.src.lookup(ctx, name)

	n.mu.Lock()
	a.asked--
	if err == nil {
		a.idents[s.ident] = true
	} else if a.asked == 0 && len(a.idents) == 0 {
		delete(n.known, name) // absence is not cached
	}
	n.mu.Unlock()
	if err != nil {
		errno := toErrno(err)
		if errno != syscall.ENOENT {
			n.f.log.Error("cannot look up a name", "name", name, "err", err)
		}
		return nil, errno
	}
	ch := n.child(ctx, name, s)
	out.Attr = s.attr
	out.Attr.Ino = ch.StableAttr().Ino
	out.SetEntryTimeout(forever)
	if !s.live {
		out.SetAttrTimeout(forever)
	}
	return ch, 0
}

// child returns the node for s: the one that name already has, if it shows the
// same, so that a process whose working directory it is stays where it is.
func (n *names) child(ctx context.Context, name string, s shown) *fs.Inode {
	if ch := n.GetChild(name); ch != nil {
		if id, ok := ch.Operations().(interface{ identity() string }); ok && id.identity() == s.ident {
			return ch
		}
	}
	return n.NewInode(ctx, s.make(), s.stable)
}

func (n *names) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	list, err := n.src.list(ctx)
	if err != nil {
		n.f.log.Error("cannot list a directory", "err", err)
		return nil, 0, toErrno(err)
	}
	return plainList(list), 0, 0
}

// listing is an open directory whose entries are listed without their
// attributes, which would cost a look-up for each.
type listing struct {
	seekableList
}

type seekableList interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
}

func plainList(list []fuse.DirEntry) fs.FileHandle {
	return &listing{fs.NewListDirStream(withDots(list)).(seekableList)}
}

// Lookup answers READDIRPLUS: nothing is known about the entry.
func (*listing) Lookup(context.Context, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.ENOENT
}

func withDots(list []fuse.DirEntry) []fuse.DirEntry {
	dots := []fuse.DirEntry{{Name: ".", Mode: syscall.S_IFDIR}, {Name: "..", Mode: syscall.S_IFDIR}}
	return append(dots, list...)
}

// refresh makes the kernel forget the names of n, and of the directories below
// it, that show something else than what was answered.
func (n *names) refresh(ctx context.Context) {
	for _, name := range n.stale(ctx) {
		if n.f.closing.Load() {
			return // notifications and the unmount would wait for each other
		}
		// Blocks while programs look up names in this directory, whose
		// answers other goroutines give; no lock may be held here.
		if errno := n.NotifyEntry(name); errno != 0 && errno != syscall.ENOENT {
			n.f.log.Debug("invalidate a name", "name", name, "err", errno)
		}
	}
	for _, ch := range n.Children() {
		if below, ok := ch.Operations().(*names); ok {
			below.refresh(ctx)
		}
	}
}

// stale returns the names to invalidate and forgets what was answered for them.
func (n *names) stale(ctx context.Context) []string {
	n.mu.Lock()
	ask := make([]string, 0, len(n.known))
	for name := range n.known {
		ask = append(ask, name)
	}
	n.mu.Unlock()
	var stale []string
	for _, name := range ask {
		s, err := n.src.lookup(ctx, name)
		n.mu.Lock()
		if a := n.known[name]; a != nil {
			same := err == nil && a.asked == 0 && (len(a.idents) == 0 || len(a.idents) == 1 && a.idents[s.ident])
			if !same {
				stale = append(stale, name)
				a.idents = map[string]bool{}
			}
		}
		n.mu.Unlock()
	}
	return stale
}
