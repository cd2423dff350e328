package remote

import (
	"os"

	"golang.org/x/sys/unix"
)

// seals keep the size of shared memory as it is: to touch what was cut off
// would end the process.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// sharedFile makes memory that can be given to another process.
func sharedFile(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("curi-bucket", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "shared memory")
	if err = f.Truncate(size); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sealed reports whether a descriptor is such memory.
func sealed(fd int, size int64) bool {
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	var st unix.Stat_t
	return err == nil && have == seals && unix.Fstat(fd, &st) == nil && st.Size == size
}

func punch(f *os.File, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, n)
}
