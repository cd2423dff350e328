package cas

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// spareSize is how much of the disk a store keeps for the time when it is
// full, in bytes: on every filesystem enough for the few small files that the
// removal of a name or the end of a run takes, quota for metadata included.
const spareSize = 1 << 20

func (s *Store) sparePath() string { return filepath.Join(s.dir, "index", "spare") }

// keepSpare makes the spare space where it lacks. A store without it is whole:
// what goes wrong here shows when it is missed.
func (s *Store) keepSpare() {
	if _, err := os.Lstat(s.sparePath()); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	b := make([]byte, spareSize)
	rand.Read(b) // or a filesystem that compresses would keep nothing
	tmp, err := s.stageBytes(b, s.smallFileMode(), false)
	if err == nil {
		defer tmp.Close()
		if err = s.rename(tmp.Name(), s.sparePath()); err != nil {
			os.Remove(tmp.Name())
		}
	}
	if err != nil {
		s.log.Debug("keep spare space", "err", err)
	}
}

// putAnyway is putFile for what removes something or says how a run ended: on
// a disk that is full it takes the spare space.
func (s *Store) putAnyway(path string, b []byte) error {
	err := s.putFile(path, b)
	if errors.Is(err, ErrNoSpace) && s.spendSpare() {
		err = s.putFile(path, b)
	}
	return err
}

// spendSpare gives the spare space back to the disk and reports whether there
// was any. The next collection keeps some again.
func (s *Store) spendSpare() bool {
	if os.Remove(s.sparePath()) != nil {
		return false
	}
	// Some filesystems free at the next commit only.
	return syncFilesystem(s.dir) == nil
}
