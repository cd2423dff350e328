package cas

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sparseSource reads f without reading its holes, of which large files may be
// full: they are zeros without a detour by the disk and the page cache. Each
// byte is hashed all the same, as a chunk of BLAKE3 depends on its place.
func sparseSource(f *os.File, st fileState) io.ReaderAt {
	var fs unix.Statfs_t
	if st.blocks*512 >= st.size || unix.Fstatfs(int(f.Fd()), &fs) != nil {
		return f
	}
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return &sparseFile{File: f, size: st.size}
	}
	return f // others have been seen to call a hole what was just written
}

type sparseFile struct {
	*os.File
	size int64

	mu         sync.Mutex
	start, end int64 // a hole, or nothing
}

func (s *sparseFile) ReadAt(p []byte, off int64) (int, error) {
	if n := int64(len(p)); off+n <= s.size && s.hole(off, n) {
		clear(p)
		return len(p), nil
	}
	return s.File.ReadAt(p, off)
}

// hole reports whether n bytes from off, which lie in the file, are a hole.
func (s *sparseFile) hole(off, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start <= off && off+n <= s.end {
		return true
	}
	// The offset of the descriptor is nobody's: all read by ReadAt.
	data, err := unix.Seek(int(s.File.Fd()), off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		data = s.size // nothing but a hole up to the end
	case err != nil:
		return false
	}
	s.start, s.end = off, data
	return off+n <= data
}
