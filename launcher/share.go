package launcher

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A share says who, beside the user of a run, is to go on with the files of
// its place, whatever umask and modes the command chose: in a store that a
// group shares, the group; where root works in another's store, its owner. The
// next try may be theirs. nil is a place that nobody shares.
type share struct {
	Dir string `json:"dir"` // the place
	// Owner and Group of the store, where it is private and root's guests
	// would be shut out; else Owner is -1, and the group gets its rights.
	Owner int `json:"owner"`
	Group int `json:"group"`
}

// share is that of the run's place.
func (r *run) share() *share {
	if uid, gid, ok := r.s.Owner(); ok {
		return &share{Dir: r.dir(), Owner: uid, Group: gid}
	}
	if r.s.Shared() {
		return &share{Dir: r.dir(), Owner: -1}
	}
	return nil
}

// place shares what Curi itself made of the place: its directories have the
// modes of the store, and need an owner only.
func (s *share) place() {
	if s != nil && s.Owner >= 0 {
		s.tree(s.Dir)
	}
}

// left shares what the command left.
func (s *share) left() {
	if s == nil {
		return
	}
	for _, d := range []string{"work", "out", "logs", "tmp", "in-rw", "leftover"} {
		s.tree(filepath.Join(s.Dir, d))
	}
}

// tree shares what lies below dir, without following links, as others may
// write there. What belongs to others, or has a name elsewhere, stays as it is.
func (s *share) tree(dir string) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer root.Close()
	top, err := root.Lstat(".")
	if err != nil {
		return
	}
	group := ownership(top).group
	linked := map[uint64][]string{} // files with several names, by inode
	_ = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return nil
		}
		if own := ownership(fi); own.links > 1 && !fi.IsDir() {
			linked[own.inode] = append(linked[own.inode], path)
			if len(linked[own.inode]) < own.links {
				return nil
			}
		}
		s.one(root, path, fi, group)
		return nil
	})
}

// one shares one file or directory.
func (s *share) one(root *os.Root, path string, fi fs.FileInfo, group int) {
	if s.Owner >= 0 {
		_ = root.Lchown(path, s.Owner, s.Group)
		return
	}
	mode := fi.Mode()
	if mode&fs.ModeSymlink != 0 {
		return
	}
	if ownership(fi).group != group { // moved in from elsewhere
		_ = root.Lchown(path, -1, group)
	}
	if mode&0o700>>3&^mode != 0 {
		_ = root.Chmod(path, mode.Perm()|mode&0o700>>3|mode&(fs.ModeSetgid|fs.ModeSetuid|fs.ModeSticky))
	}
}

type owned struct {
	group int
	inode uint64
	links int // names of the file
}

func ownership(fi fs.FileInfo) owned {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return owned{int(st.Gid), st.Ino, int(st.Nlink)}
	}
	return owned{-1, 0, 1}
}
