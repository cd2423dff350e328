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
