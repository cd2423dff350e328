package cas

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/internal/mounts"
)

// flockIsLocal reports whether other machines may use the filesystem of dir and
// their flock may not be seen here. NFS and Lustre say so in their options; of
// others it is known, or taken for granted.
func flockIsLocal(dir string) bool {
	var st unix.Statfs_t
	if retryEINTR(func() error { return unix.Statfs(dir, &st) }) != nil {
		return false
	}
	switch f := filesystemFacts(&st); {
	case !f.Network:
		return false
	case f.Filesystem == "nfs":
		return !slices.Contains(mountOptions(dir), "local_lock=none")
	case f.Filesystem == "lustre":
		return !slices.Contains(mountOptions(dir), "flock")
	default:
		return !slices.Contains([]string{"ceph", "ocfs2", "gfs2"}, f.Filesystem)
	}
}

// mountOptions are those of the filesystem that is mounted at dir or above.
func mountOptions(dir string) []string {
	m, _ := mounts.Over(dir)
	return m.Options
}
