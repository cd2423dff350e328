package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"
)

// ModTime is the modification time that read-only views give everything.
// Trees hold no times: content decides what is equal.
var ModTime = time.Date(1980, time.January, 1, 0, 0, 0, 0, time.UTC)

// FS returns the tree as a file system whose files are io.ReaderAt and
// io.Seeker; it implements fs.ReadDirFS, fs.ReadFileFS, fs.StatFS and
// fs.ReadLinkFS. Links are followed within the tree only: one that leads out
// of it is not found when it is opened. [fs.FileInfo.Sys] is the [Entry]. The
// file system may be used by several goroutines at once; ctx ends its work.
func (s *Store) FS(ctx context.Context, tree Digest) (fs.FS, error) {
	t, err := s.Tree(ctx, tree)
	if err != nil {
		return nil, err
	}
	root := Entry{Name: ".", Kind: KindDir, Size: t.Bytes(), Digest: tree, Attrs: t.Attrs}
	return &treeFS{ctx: ctx, s: s, root: root}, nil
}

type treeFS struct {
	ctx  context.Context
	s    *Store
	root Entry

	mu      sync.Mutex
	trees   map[Digest]*Tree // read lately
	entries int              // in trees
}

// maxCached is how many entries the trees that an FS remembers have together,
// unless one alone has more. Without them each open would read and verify every
// directory above the file again.
const maxCached = 100_000

func (f *treeFS) tree(d Digest) (*Tree, error) {
	f.mu.Lock()
	t := f.trees[d]
	f.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := f.s.Tree(f.ctx, d)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.entries+len(t.Entries) > maxCached || f.trees == nil {
		f.trees, f.entries = map[Digest]*Tree{}, 0
	}
	if f.trees[d] == nil {
		f.trees[d] = t
		f.entries += len(t.Entries) + 1
	}
	return t, nil
}

// maxFollowed is how many links one name may lead over.
const maxFollowed = 40

// find returns the entry at name. With follow, a link at its end is followed;
// links before it always are.
func (f *treeFS) find(op, name string, follow bool) (Entry, error) {
	fail := func(err error) (Entry, error) {
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("%w (%w)", fs.ErrNotExist, err)
		}
		return Entry{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at := []Entry{f.root} // the way down from the root
	rest, links := name, 0
	for rest != "" {
		var elem string
		elem, rest, _ = strings.Cut(rest, "/")
		if elem == "" || elem == "." {
			continue
		}
		if elem == ".." { // only from a link's target
			if len(at) == 1 {
				return fail(fs.ErrNotExist)
			}
			at = at[:len(at)-1]
			continue
		}
		dir := at[len(at)-1]
		if dir.Kind != KindDir {
			return fail(fs.ErrNotExist)
		}
		t, err := f.tree(dir.Digest)
		if err != nil {
			return fail(err)
		}
		e, ok := t.Lookup(elem)
		if !ok {
			return fail(fs.ErrNotExist)
		}
		if e.Kind == KindSymlink && (follow || rest != "") {
			if links++; links > maxFollowed {
				return fail(errors.New("too many levels of symbolic links"))
			}
			if path.IsAbs(e.Target) {
				return fail(fs.ErrNotExist)
			}
			// Not joined and cleaned: "link/.." is where the link leads, and up.
			rest = e.Target + "/" + rest
			continue
		}
		at = append(at, e)
	}
	e := at[len(at)-1]
	e.Name = path.Base(name)
	return e, nil
}

func (f *treeFS) Open(name string) (fs.File, error) {
	e, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	if e.Kind == KindDir {
		entries, err := f.list(name, e)
		if err != nil {
			return nil, err
		}
		return &openDir{entryInfo{e}, name, entries}, nil
	}
	b, err := f.open(name, e)
	if err != nil {
		return nil, err
	}
	return &openFile{SectionReader: io.NewSectionReader(b, 0, b.Size()), blob: b, info: entryInfo{e}}, nil
}

// open opens the blob of the regular file e.
func (f *treeFS) open(name string, e Entry) (*Blob, error) {
	b, err := f.s.openEntry(f.ctx, e)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return b, nil
}

func (f *treeFS) list(name string, dir Entry) ([]fs.DirEntry, error) {
	t, err := f.tree(dir.Digest)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	list := make([]fs.DirEntry, len(t.Entries))
	for i, e := range t.Entries {
		list[i] = fs.FileInfoToDirEntry(entryInfo{e})
	}
	return list, nil
}

func (f *treeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if e.Kind != KindDir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return f.list(name, e)
}

func (f *treeFS) ReadFile(name string) ([]byte, error) {
	e, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	if e.Kind == KindDir {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	b, err := f.open(name, e)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	p := make([]byte, e.Size)
	_, err = io.ReadFull(b, p)
	if cerr := b.Check(); cerr != nil { // says more than that it became shorter
		err = cerr
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return p, nil
}

func (f *treeFS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.find("stat", name, true)
	if err != nil {
		return nil, err
	}
	return entryInfo{e}, nil
}

func (f *treeFS) Lstat(name string) (fs.FileInfo, error) {
	e, err := f.find("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return entryInfo{e}, nil
}

func (f *treeFS) ReadLink(name string) (string, error) {
	e, err := f.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	if e.Kind != KindSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return e.Target, nil
}

// entryInfo is an entry as fs.FileInfo.
type entryInfo struct{ e Entry }

func (i entryInfo) Name() string       { return i.e.Name }
func (i entryInfo) ModTime() time.Time { return ModTime }
func (i entryInfo) IsDir() bool        { return i.e.Kind == KindDir }
func (i entryInfo) Sys() any           { return i.e }
func (i entryInfo) String() string     { return fs.FormatFileInfo(i) }

func (i entryInfo) Size() int64 {
	if i.e.Kind == KindSymlink {
		return int64(len(i.e.Target))
	}
	return i.e.Size
}

func (i entryInfo) Mode() fs.FileMode {
	switch i.e.Kind {
	case KindDir:
		return fs.ModeDir | 0o555
	case KindSymlink:
		return fs.ModeSymlink | 0o777
	case KindExecutable:
		return 0o555
	}
	return 0o444
}

// openFile is an open regular file: it reads, seeks and reads at offsets.
type openFile struct {
	*io.SectionReader
	blob *Blob
	info entryInfo
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }

// Close fails with [ErrChanged] if a referenced file changed while it was open:
// what was read may be neither the old bytes nor the new ones.
func (f *openFile) Close() error {
	err := f.blob.Check()
	if cerr := f.blob.Close(); cerr != nil {
		return cerr
	}
	return err
}

// openDir is an open directory.
type openDir struct {
	info entryInfo
	name string
	rest []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		list := d.rest
		d.rest = nil
		return list, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	list := d.rest[:min(n, len(d.rest))]
	d.rest = d.rest[len(list):]
	return list, nil
}
