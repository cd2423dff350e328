package cas

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/curi-store/curi/internal/fault"
)

// The small mutable files of the store (refs, versions, tags, places, pins,
// mounts) are one JSON object each, on one line.

// putFile replaces a small file of the store durably: readers see the old
// bytes or the new ones.
func (s *Store) putFile(path string, b []byte) error {
	return s.writeFileDurable(path, b, s.smallFileMode())
}

// createFile makes a small file of the store durably; of several processes
// that try at once exactly one succeeds, the others get [ErrExists].
func (s *Store) createFile(path string, b []byte) error {
	return s.linkFileDurable(path, b, s.smallFileMode())
}

// makeDirs makes a directory of the store and its parents.
func (s *Store) makeDirs(dir string) error {
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		return nil
	}
	return s.mkdir(dir)
}

// readJSON reads one small file into v. What is not one JSON object wraps
// [ErrCorrupt], a missing file os.ErrNotExist.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := parseJSON(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func parseJSON(b []byte, v any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) {
		return fmt.Errorf("%w: not a JSON object", ErrCorrupt)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return nil
}

// encodeJSON is the one form in which small files are written.
func encodeJSON(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// now is the time as small files keep it: UTC, whole milliseconds.
func now() time.Time { return fault.Now().UTC().Truncate(time.Millisecond) }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
