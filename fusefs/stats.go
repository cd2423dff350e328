//go:build linux

package fusefs

import (
	"encoding/json"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Stats counts what a mount does. The zero value is ready; each Stats is for
// one [Serve]. Its methods may be called by several goroutines at once.
type Stats struct {
	started atomic.Int64 // when it began to serve, ns since 1970; 0 before

	opens, passthroughs, closes atomic.Int64 // of files
	dirOpens, dirCloses         atomic.Int64
	reads, readBytes            atomic.Int64
	writes, writtenBytes        atomic.Int64
	lookups, refreshes          atomic.Int64
	cacheHits, cacheMisses      atomic.Int64
	errors                      [errorClasses]atomic.Int64
}

// Snapshot is what was counted so far.
func (s *Stats) Snapshot() cas.MountStats {
	// Closes first: nothing is closed that was not opened before.
	closes, dirCloses := s.closes.Load(), s.dirCloses.Load()
	st := cas.MountStats{
		PassthroughOpens: s.passthroughs.Load(), Opens: s.opens.Load(), OpenDirs: s.dirOpens.Load() - dirCloses,
		Reads: s.reads.Load(), ReadBytes: s.readBytes.Load(), Writes: s.writes.Load(), WrittenBytes: s.writtenBytes.Load(),
		Lookups: s.lookups.Load(), Refreshes: s.refreshes.Load(),
		CacheHits: s.cacheHits.Load(), CacheMisses: s.cacheMisses.Load(),
		Errors: cas.MountErrors{
			IO: s.errors[ioError].Load(), Space: s.errors[spaceError].Load(), Refused: s.errors[refusedError].Load(),
			Busy: s.errors[busyError].Load(), Limit: s.errors[limitError].Load(), Absent: s.errors[absentError].Load(),
			Other: s.errors[otherError].Load(),
		},
	}
	st.OpenFiles = st.Opens - closes
	if at := s.started.Load(); at != 0 {
		st.UptimeSeconds = time.Since(time.Unix(0, at)).Seconds()
	}
	return st
}

// json is the value of user.curi.stats.
func (s *Stats) json() []byte {
	b, _ := json.Marshal(s.Snapshot())
	return b
}

// opened counts an open file and how it is served.
func (s *Stats) opened(flags uint32) {
	if flags&fuse.FOPEN_PASSTHROUGH != 0 {
		s.passthroughs.Add(1)
	}
	s.opens.Add(1)
}

// answered counts an answer that is an error. ENOSYS is none: it tells the
// kernel to do without that request.
func (s *Stats) answered(status fuse.Status) {
	if status != fuse.OK && status != fuse.ENOSYS {
		s.errors[classify(syscall.Errno(status))].Add(1)
	}
}

// errorClass is a kind of error, as [cas.MountErrors] tells them apart.
type errorClass int

const (
	ioError errorClass = iota
	spaceError
	refusedError
	busyError
	limitError
	absentError
	otherError
	errorClasses
)

// classify finds the class of an errno. What is not foreseen here counts as
// trouble, so that it is seen.
func classify(errno syscall.Errno) errorClass {
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT:
		return spaceError
	case syscall.EROFS, syscall.EACCES, syscall.EPERM:
		return refusedError
	case syscall.EBUSY, syscall.EAGAIN, syscall.ETXTBSY, syscall.EDEADLK, syscall.EINTR:
		return busyError
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EMLINK, syscall.ENAMETOOLONG, syscall.EFBIG, syscall.ELOOP, syscall.E2BIG:
		return limitError
	case syscall.ENOENT, syscall.ENODATA:
		return absentError
	case syscall.EEXIST, syscall.ENOTEMPTY, syscall.ENOTDIR, syscall.EISDIR, syscall.EINVAL, syscall.EXDEV,
		syscall.EOPNOTSUPP, syscall.ENOTTY, syscall.ERANGE, syscall.ENXIO, syscall.EBADF:
		return otherError
	}
	return ioError
}
