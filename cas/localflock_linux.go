package cas

import (
	"bufio"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
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
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	best, options := -1, ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 36 35 0:52 /root /point options… - type source superoptions
		head, tail, ok := strings.Cut(sc.Text(), " - ")
		l, r := strings.Fields(head), strings.Fields(tail)
		if !ok || len(l) < 6 || len(r) < 3 {
			continue
		}
		point := unescapeMount.Replace(l[4])
		if (point == "/" || dir == point || strings.HasPrefix(dir, point+"/")) && len(point) >= best {
			best, options = len(point), l[5]+","+r[2]
		}
	}
	return strings.Split(options, ",")
}
