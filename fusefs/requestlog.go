//go:build linux

package fusefs

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// requestLog logs requests by the paths that they are about. The kernel calls
// files by numbers, so it keeps what it told the kernel of their names.
type requestLog struct {
	log *slog.Logger

	mu    sync.Mutex
	names map[uint64]nodeName
}

// nodeName is a name by which the kernel found a node.
type nodeName struct {
	dir  uint64 // the directory's node
	name string
}

func newRequestLog(l *slog.Logger) *requestLog {
	return &requestLog{log: l, names: map[uint64]nodeName{}}
}

// request is one that is being answered. Unless it is logged it holds w alone.
type request struct {
	w       *watched
	op      string // "" where it is not logged
	node    uint64
	name    string
	path    string
	pid     uint32
	start   time.Time
	details []any // of [slog.Attr]
}

func (l *requestLog) begin(w *watched, op string, h *fuse.InHeader, name string) request {
	return request{w: w, op: op, node: h.NodeId, name: name, path: l.path(h.NodeId, name), pid: h.Pid, start: time.Now()}
}

func (r *request) logged() bool { return r.op != "" }

// note adds to the line of a request that is logged.
func (r *request) note(a slog.Attr) { r.details = append(r.details, a) }

// attr notes the extended attribute that a request is about.
func (r *request) attr(name string) {
	if r.logged() {
		r.note(slog.String("attr", name))
	}
}

// moved notes how many bytes were read or written.
func (r *request) moved(n int, offset uint64) {
	if r.logged() {
		r.note(slog.Int("bytes", n))
		r.note(slog.Uint64("offset", offset))
	}
}

// write writes the line.
func (r *request) write(errno syscall.Errno) {
	answer := "ok"
	if errno != 0 {
		if answer = unix.ErrnoName(errno); answer == "" {
			answer = errno.Error()
		}
	}
	took := time.Since(r.start).Round(time.Microsecond)
	r.w.log.log.Debug(r.op+" "+r.path, append(r.details, "answer", answer, "took", took, "pid", r.pid)...)
}

// learn notes by which name of a directory a node was found.
func (l *requestLog) learn(node, dir uint64, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[node] = nodeName{dir, name}
}

func (l *requestLog) forget(node uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.names, node)
}

func (l *requestLog) renamed(oldDir uint64, oldName string, newDir uint64, newName string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for node, at := range l.names {
		if at == (nodeName{oldDir, oldName}) {
			l.names[node] = nodeName{newDir, newName}
		}
	}
}

// path is that of a node, or of a name in it, below the mount's root.
func (l *requestLog) path(node uint64, name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var elems []string
	if name != "" {
		elems = append(elems, name)
	}
	// Nodes that were renamed while they were learned could make a ring.
	for range 256 {
		if node == fuse.FUSE_ROOT_ID {
			break
		}
		at, ok := l.names[node]
		if !ok {
			elems = append(elems, fmt.Sprintf("#%d", node)) // found before by a name that is gone
			break
		}
		elems = append(elems, at.name)
		node = at.dir
	}
	var b strings.Builder
	for i := len(elems) - 1; i >= 0; i-- {
		b.WriteString("/" + elems[i])
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// openFlags words the flags of open(2) that matter here.
func openFlags(flags uint32) string {
	words := []string{[]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[flags&syscall.O_ACCMODE]}
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{syscall.O_CREAT, "O_CREAT"}, {syscall.O_EXCL, "O_EXCL"}, {syscall.O_TRUNC, "O_TRUNC"},
		{syscall.O_APPEND, "O_APPEND"}, {syscall.O_DIRECT, "O_DIRECT"}, {syscall.O_DSYNC, "O_DSYNC"},
	} {
		if flags&f.bit != 0 {
			words = append(words, f.name)
		}
	}
	return strings.Join(words, "|")
}
