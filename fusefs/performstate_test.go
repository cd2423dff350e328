//go:build linux

package fusefs_test

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What is looked at as a whole.
func init() {
	performances["state"] = (*performer).state
	performances["walk"] = (*performer).walk
}

// aFile is what a program can find out about a file, all but its contents
// where it may not read them.
type aFile struct {
	Path  string // or the slot of one that is open
	Shown string // the same in both directories
	Mtime int64  // ns since 1970
}

// state shows everything below the performer's directory, and what it has
// open. Data is what must be the same; more is left to the caller.
func (p *performer) state(op operation) (outcome, error) {
	var files []aFile
	inodes := map[uint64]string{}
	if err := p.tree(&files, inodes, "."); err != nil {
		return outcome{}, err
	}
	for slot, fd := range p.open {
		if fd != nothing {
			files = append(files, p.openState(slot, fd))
		}
	}
	return outcome{Data: encodeFiles(files)}, nil
}

func encodeFiles(files []aFile) string {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "%q %s\x00%d\n", f.Path, f.Shown, f.Mtime)
	}
	return b.String()
}

func (p *performer) tree(files *[]aFile, inodes map[uint64]string, dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		*files = append(*files, aFile{Path: dir, Shown: "not listed: " + errnoName(err)})
		return nil
	}
	defer unix.Close(fd)
	entries, err := list(fd, 1<<14, -1)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b dirEntry) int { return strings.Compare(a.name, b.name) })
	for _, e := range entries {
		if e.name == "." || e.name == ".." {
			continue
		}
		name := path.Join(dir, e.name)
		var st unix.Stat_t
		if err := unix.Fstatat(unix.AT_FDCWD, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			*files = append(*files, aFile{Path: name, Shown: errnoName(err)})
			continue
		}
		text := attributes(&st)
		if uint32(e.typ)<<12 != st.Mode&unix.S_IFMT {
			text += fmt.Sprintf(" listed as type %o", e.typ)
		}
		if e.ino != st.Ino {
			text += " listed with another inode"
		}
		first := inodes[st.Ino]
		if first == "" {
			inodes[st.Ino] = name
		} else {
			text += fmt.Sprintf(" is %q", first)
		}
		text += namedAttrs(name)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if first == "" {
				text += content(name)
			}
		case unix.S_IFLNK:
			b := make([]byte, unix.PathMax)
			n, _ := unix.Readlink(name, b)
			text += fmt.Sprintf(" to %q", b[:max(n, 0)])
		}
		*files = append(*files, aFile{Path: name, Shown: text, Mtime: mtime(&st)})
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := p.tree(files, inodes, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// mtime is a file's. What goes through a FIFO or a socket is no business of a
// filesystem, its time even less.
func mtime(st *unix.Stat_t) int64 {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFSOCK:
		return 0
	}
	return st.Mtim.Nano()
}

// namedAttrs shows the extended attributes of a name.
func namedAttrs(name string) string {
	b := make([]byte, 1<<14)
	n, err := unix.Llistxattr(name, b)
	if err != nil {
		return " attributes " + errnoName(err)
	}
	if n == 0 {
		return ""
	}
	names := strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00")
	slices.Sort(names)
	text := " with"
	for _, attr := range names {
		n, err := unix.Lgetxattr(name, attr, b)
		if err != nil {
			text += " " + attr + " " + errnoName(err)
			continue
		}
		text += fmt.Sprintf(" %s=%s", attr, shownBytes(b[:n]))
	}
	return text
}

// content shows what a file holds.
func content(name string) string {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return " not read: " + errnoName(err)
	}
	defer unix.Close(fd)
	return contentOf(fd)
}

func contentOf(fd int) string {
	var all []byte
	b := make([]byte, 1<<17)
	for {
		n, err := unix.Pread(fd, b, int64(len(all)))
		if err != nil {
			return fmt.Sprintf(" after %d bytes: %s", len(all), errnoName(err))
		}
		if n == 0 {
			return " " + shownBytes(all)
		}
		all = append(all, b[:n]...)
	}
}

// openState shows an open file: it may have no name any more.
func (p *performer) openState(slot, fd int) aFile {
	f := aFile{Path: fmt.Sprintf("slot %d", slot)}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Shown = errnoName(err)
		return f
	}
	f.Mtime = mtime(&st)
	f.Shown = attributes(&st)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_PATH == 0 && st.Mode&unix.S_IFMT == unix.S_IFREG {
		pos, err := unix.Seek(fd, 0, unix.SEEK_CUR)
		f.Shown += fmt.Sprintf(" at %d", pos)
		if err != nil {
			f.Shown += " " + errnoName(err)
		}
		if flags&unix.O_ACCMODE != unix.O_WRONLY && flags&unix.O_DIRECT == 0 {
			f.Shown += contentOf(fd)
		}
	}
	return f
}

type dirEntry struct {
	name string
	ino  uint64
	next int64 // where to seek to for what follows
	typ  byte
}

// list reads entries of an open directory, a buffer of size bytes at a time,
// until there are most (all if below 0).
func list(fd, size, most int) ([]dirEntry, error) {
	var entries []dirEntry
	b := make([]byte, size)
	for most < 0 || len(entries) < most {
		n, err := unix.Getdents(fd, b)
		if err != nil || n == 0 {
			return entries, err
		}
		for r := b[:n]; len(r) > 0; {
			length := binary.NativeEndian.Uint16(r[16:])
			name, _, _ := strings.Cut(string(r[19:length]), "\x00")
			entries = append(entries, dirEntry{name, binary.NativeEndian.Uint64(r), int64(binary.NativeEndian.Uint64(r[8:])), r[18]})
			r = r[length:]
		}
	}
	return entries, nil
}

// walk lists a directory in small steps while names come and go, seeks back to
// where it was and to the beginning, and shows which names it saw that were
// there all the time, or what was wrong.
func (p *performer) walk(op operation) (outcome, error) {
	fd, err := unix.Openat(p.dir(op.Dir), op.A, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return outcome{}, err
	}
	defer unix.Close(fd)
	const many = 12
	touch := func(name string) error {
		f, err := unix.Openat(fd, name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err == nil {
			err = unix.Close(f)
		}
		return err
	}
	for i := range many {
		if err := touch(fmt.Sprintf("walk%d", i)); err != nil {
			return outcome{}, err
		}
	}
	defer func() {
		for i := range 2 * many {
			_ = unix.Unlinkat(fd, fmt.Sprintf("walk%d", i), 0)
		}
	}()
	size := 64 + int(op.Length%512)
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return outcome{}, err
	}
	first, err := list(fd, max(size, 300), int(op.Offset%many))
	if err != nil {
		return outcome{}, err
	}
	gone, come := fmt.Sprintf("walk%d", op.Seed%many), fmt.Sprintf("walk%d", many+int(op.Seed%many))
	if err := unix.Unlinkat(fd, gone, 0); err != nil {
		return outcome{}, err
	}
	if err := touch(come); err != nil {
		return outcome{}, err
	}
	rest, err := list(fd, max(size, 300), -1)
	if err != nil {
		return outcome{}, err
	}
	stable := func(parts ...[]dirEntry) string {
		var names []string
		for _, part := range parts {
			for _, e := range part {
				if e.name != gone && e.name != come {
					names = append(names, e.name)
				}
			}
		}
		slices.Sort(names)
		return fmt.Sprintf("%q", names)
	}
	seen := stable(first, rest)
	if len(first) > 0 {
		if _, err := unix.Seek(fd, first[len(first)-1].next, unix.SEEK_SET); err != nil {
			return outcome{}, err
		}
		again, err := list(fd, 4096, -1)
		if err != nil || stable(again) != stable(rest) {
			return outcome{Data: "after seeking back: " + stable(again) + " instead of " + stable(rest)}, err
		}
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return outcome{}, err
	}
	all, err := list(fd, 4096, -1)
	if err != nil {
		return outcome{}, err
	}
	if stable(all) != seen {
		return outcome{Data: "from the beginning: " + stable(all) + " instead of " + seen}, nil
	}
	has := func(name string) bool {
		return slices.ContainsFunc(all, func(e dirEntry) bool { return e.name == name })
	}
	if has(gone) || !has(come) {
		return outcome{Data: "from the beginning: what is gone is listed, or what has come is not"}, nil
	}
	return outcome{Data: seen}, nil
}
