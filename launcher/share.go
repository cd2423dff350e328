package launcher

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// shareTree gives the group, in a store that one shares, what the owner of a
// file below dir may do with it, whatever umask and mode the command chose:
// the next try may be another member's. What belongs to others stays as it is.
func shareTree(dir string) {
	top, err := os.Lstat(dir)
	if err != nil {
		return
	}
	group := gidOf(top)
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return nil
		}
		if gidOf(fi) != group { // moved in from elsewhere
			_ = os.Lchown(path, -1, group)
		}
		if mode := fi.Mode(); mode&0o700>>3&^mode != 0 {
			_ = os.Chmod(path, mode.Perm()|mode&0o700>>3|mode&(fs.ModeSetgid|fs.ModeSetuid|fs.ModeSticky))
		}
		return nil
	})
}

func gidOf(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Gid)
	}
	return -1
}

// sharePlace does so for all that the command wrote below the place at dir.
func sharePlace(dir string) {
	for _, d := range []string{"work", "out", "logs", "tmp", "in-rw", "leftover"} {
		shareTree(filepath.Join(dir, d))
	}
}
