//go:build !linux

package cas

import "golang.org/x/sys/unix"

func filesystemFacts(st *unix.Statfs_t) Facts {
	name := unix.ByteSliceToString(st.Fstypename[:])
	f := Facts{Filesystem: name}
	switch name {
	case "nfs", "smbfs", "afpfs", "webdav", "macfuse", "osxfuse":
		f.Network = true
	}
	return f
}

// lastingInodes reports whether device, inode number, size, mtime and ctime
// of the file at path are those of no other file, ever.
func lastingInodes(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return false
	}
	switch unix.ByteSliceToString(st.Fstypename[:]) {
	case "apfs", "hfs", "nfs", "tmpfs", "ufs", "zfs":
		return true
	}
	return false
}
