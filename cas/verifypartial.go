package cas

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// partial checks what the store has of a partial blob: each group that the map
// tells of has to lead to the digest. Those that do not are dropped, so that
// they come anew, and reported: what the disk did to them it may do to others.
// A map that says nothing is none: the next who opens the blob begins it anew.
func (v *verification) partial(ctx context.Context, d Digest) (int64, error) {
	p := &Partial{s: v.s, digest: d}
	defer p.Close()
	path := v.s.partialPath(d)
	writable := true
	for _, f := range []struct {
		to   **os.File
		path string
	}{{&p.bits, path + ".map"}, {&p.data, path}, {&p.nodes, path + ".outboard"}} {
		var err error
		if *f.to, err = os.OpenFile(f.path, os.O_RDWR, 0); errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			writable = false
			*f.to, err = os.Open(f.path)
		}
		if noFile(err) {
			return 0, nil // it became whole, or was collected, or only begun
		}
		if err != nil {
			v.found(d, finding{partial: true, reason: "what came of it cannot be opened: " + err.Error()})
			return 0, nil
		}
	}
	lock := unix.LOCK_EX
	if !writable {
		lock = unix.LOCK_SH
	}
	if err := flock(p.bits, lock); err != nil {
		return 0, err
	}
	defer flock(p.bits, unix.LOCK_UN)
	head := make([]byte, partialHeader)
	if _, err := p.bits.ReadAt(head, 0); err != nil || !bytes.HasPrefix(head, []byte(partialMagic)) || head[8] != partialVersion {
		return 0, nil
	}
	size := binary.LittleEndian.Uint64(head[16:])
	fi, err := p.bits.Stat()
	if err != nil || size <= outboardMin || size > 1<<60 {
		return 0, nil
	}
	p.size = int64(size)
	if fi.Size() != p.mapSize() {
		return 0, nil
	}
	p.present = make([]byte, p.mapSize()-partialHeader)
	if _, err := p.bits.ReadAt(p.present, partialHeader); err != nil {
		v.found(d, finding{partial: true, reason: unreadable(err)})
		return 0, nil
	}
	p.count()
	had := p.Local()
	if err := p.recheck(ctx); err != nil {
		return 0, err
	}
	p.count()
	lost := had - p.Local()
	if lost == 0 {
		return had, nil
	}
	if _, err := os.Lstat(p.bits.Name()); noFile(err) {
		return 0, nil // it became whole meanwhile
	}
	what := "and are dropped, to be fetched again"
	if !writable {
		what = "and stay, as the store can only be read"
	} else if _, err := p.bits.WriteAt(p.present, partialHeader); err != nil {
		return 0, noSpace(storeError(err), v.s.dir)
	}
	v.found(d, finding{partial: true, reason: fmt.Sprintf("of %d bytes that came from a remote, %d do not lead to its digest %s", had, lost, what)})
	return had, nil
}
