//go:build linux

package fusefs

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// directory returns the node's directory, open, which stays good while it is
// renamed. It is closed some time after nobody uses it any more, by the
// garbage collector: a call may still hold it when the kernel forgets the node.
func (n *stageNode) directory() (*os.File, syscall.Errno) {
	n.mu.Lock()
	d := n.dir
	n.mu.Unlock()
	if d != nil {
		return d, 0
	}
	var st stat
	fd, errno := n.openSelf(unix.O_PATH|unix.O_DIRECTORY, false)
	if errno != 0 {
		return nil, errno
	}
	d = os.NewFile(uintptr(fd), "directory")
	if errno := st.of(fd); errno != 0 || st.id() != n.id {
		d.Close()
		return nil, syscall.ESTALE
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dir == nil {
		n.dir = d
	}
	return n.dir, 0
}

func (n *stageNode) OnForget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dir = nil
	if n.removed != nil {
		n.removed.Close() // now: it holds what the file takes up on disk
		n.removed = nil
	}
}

// removing calls remove, which takes the last name of what is in this
// directory away or may do so, and lets the node find what had that name for
// as long as the kernel knows it: a program may have it open in a way of which
// this process is not told (a FIFO, a socket, a directory it is in, O_PATH).
// On NFS that would only rename the file, and keep its directory from being
// removed.
func (n *stageNode) removing(dir int, name string, remove func() error) syscall.Errno {
	var node *stageNode
	if ch := n.GetChild(name); ch != nil {
		node, _ = ch.Operations().(*stageNode)
	}
	if node == nil || n.place.f.network {
		return toErrno(remove())
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return toErrno(remove())
	}
	errno := toErrno(remove())
	var st stat
	if errno != 0 || st.of(fd) != 0 || st.id() != node.id || st.x.Nlink > 0 {
		unix.Close(fd)
		return errno
	}
	node.mu.Lock()
	defer node.mu.Unlock()
	if node.removed != nil {
		node.removed.Close()
	}
	node.removed = os.NewFile(uintptr(fd), "removed")
	return 0
}

// findTries bounds how often a node is looked for. A rename or unlink that
// other threads are carrying out is on disk before it is in the tree of nodes.
const findTries = 50

// openSelf opens the file itself, wherever it is named now, or through another
// handle where it has no name any more. toChange: the descriptor is for
// changing the file, its attributes included.
func (n *stageNode) openSelf(flags int, toChange bool) (int, syscall.Errno) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	if n.top != "" {
		fd, err := unix.Openat(n.place.fd(), n.top, flags, 0)
		return fd, toErrno(err)
	}
	var errno syscall.Errno
	for try := range findTries {
		var fd int
		if fd, errno = n.openNamed(flags); errno != syscall.ENOENT && errno != syscall.ESTALE && errno != syscall.ELOOP && errno != syscall.ENXIO {
			return fd, errno
		}
		if fd, ok := n.openNameless(flags, toChange); ok {
			return fd, 0
		}
		if _, parent := n.Parent(); parent == nil {
			return -1, syscall.ENOENT
		}
		time.Sleep(time.Duration(try) * 20 * time.Microsecond)
	}
	return -1, errno
}

// openNamed opens what the node's newest name names, if it is the node.
func (n *stageNode) openNamed(flags int) (int, syscall.Errno) {
	name, parent := n.Parent()
	if parent == nil {
		return -1, syscall.ENOENT
	}
	up, ok := parent.Operations().(*stageNode)
	if !ok {
		return -1, syscall.ENOENT
	}
	dir, errno := up.directory()
	if errno != 0 {
		return -1, errno
	}
	defer runtime.KeepAlive(dir)
	fd, err := unix.Openat(int(dir.Fd()), name, flags, 0)
	if err != nil {
		return -1, toErrno(err)
	}
	var st stat
	if errno := st.of(fd); errno != 0 || st.id() != n.id {
		unix.Close(fd)
		return -1, syscall.ESTALE
	}
	return fd, 0
}

// openNameless reopens the file through a descriptor of this process. A reader
// may have kept its own while the file was sealed, and the place has been
// opened to another run since: what still has a name, and not the one by which
// it is known here, may be a blob, and is not for changing.
func (n *stageNode) openNameless(flags int, toChange bool) (int, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.removed != nil {
		fd, err := unix.Open(procPath(int(n.removed.Fd())), flags&^unix.O_NOFOLLOW, 0)
		return fd, err == nil
	}
	for h := range n.handles {
		var st stat
		if toChange && (st.of(h.fd()) != 0 || st.x.Nlink > 0) {
			continue
		}
		fd, err := unix.Open(procPath(h.fd()), flags&^unix.O_NOFOLLOW, 0)
		if err == nil {
			return fd, true
		}
	}
	return -1, false
}

// procPath is a path that leads to an open file itself.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// withSelf calls fn with the file opened only as a place in the tree, to read
// what it is.
func (n *stageNode) withSelf(fn func(fd int) syscall.Errno) syscall.Errno {
	return n.asPlace(false, fn)
}

// changeSelf is withSelf for what changes the file; the caller has begun a
// change of the place.
func (n *stageNode) changeSelf(fn func(fd int) syscall.Errno) syscall.Errno {
	return n.asPlace(true, fn)
}

func (n *stageNode) asPlace(toChange bool, fn func(fd int) syscall.Errno) syscall.Errno {
	if n.IsDir() {
		return n.inside(fn)
	}
	fd, errno := n.openSelf(unix.O_PATH, toChange)
	if errno != 0 {
		return errno
	}
	defer unix.Close(fd)
	return fn(fd)
}

// inside calls fn with the node's directory.
func (n *stageNode) inside(fn func(dir int) syscall.Errno) syscall.Errno {
	d, errno := n.directory()
	if errno != 0 {
		return errno
	}
	defer runtime.KeepAlive(d)
	return fn(int(d.Fd()))
}

// change is inside for what changes the place.
func (n *stageNode) change(fn func(dir int) syscall.Errno) syscall.Errno {
	if errno := n.place.begin(); errno != 0 {
		return errno
	}
	defer n.place.end()
	return n.inside(fn)
}
