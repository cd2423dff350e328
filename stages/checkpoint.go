package stages

import (
	"archive/zip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// NewestCheckpoint returns the newest complete checkpoint below the
// directories, for {resume}; "" if there is none. Complete means that nobody
// holds it open for writing (beingWritten says; nil is nobody) and:
//
//   - a .ckpt, .pt or .pth file is a zip archive to its last byte (what
//     torch.save writes), a .safetensors file has the length that its header
//     tells;
//   - a directory of torch.distributed.checkpoint has .metadata and the files
//     that it names;
//   - checkpoint-N of the Hugging Face trainer has trainer_state.json, and the
//     files beside it are complete.
//
// Newest is by the time its content was last changed. Hidden files and
// symbolic links are passed over. A directory that does not exist is empty.
func NewestCheckpoint(dirs []string, beingWritten func(path string) bool) (string, error) {
	f := checkpointFinder{beingWritten: beingWritten}
	for _, dir := range dirs {
		if err := f.walk(dir); err != nil {
			return "", fmt.Errorf("look for checkpoints in %s: %w", dir, err)
		}
	}
	return f.best, nil
}

type checkpointFinder struct {
	beingWritten func(string) bool
	best         string
	bestTime     time.Time
}

var (
	trainerDir      = regexp.MustCompile(`^checkpoint-[0-9]+$`)
	distributedFile = regexp.MustCompile(`[A-Za-z0-9_.-]+\.distcp`)
)

func (f *checkpointFinder) walk(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if path != dir && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir() && path != dir && trainerDir.MatchString(d.Name()):
			f.offerDir(path, trainerComplete)
			return fs.SkipDir
		case d.IsDir() && isDistributed(path):
			f.offerDir(path, distributedComplete)
			return fs.SkipDir
		case d.Type().IsRegular() && checkpointFile(d.Name()):
			f.offerFile(path)
		}
		return nil
	})
}

func checkpointFile(name string) bool {
	switch filepath.Ext(name) {
	case ".ckpt", ".pt", ".pth", ".safetensors":
		return true
	}
	return false
}

func (f *checkpointFinder) offerFile(path string) {
	info, err := os.Stat(path)
	if err != nil || !f.newer(path, info.ModTime()) || f.written(path) || !fileComplete(path) {
		return
	}
	// A writer may have come while it was checked.
	if again, err := os.Stat(path); err == nil && again.Size() == info.Size() && again.ModTime().Equal(info.ModTime()) {
		f.best, f.bestTime = path, info.ModTime()
	}
}

// offerDir takes a directory whose files are all at rest and complete.
func (f *checkpointFinder) offerDir(dir string, complete func(string) bool) {
	var newest time.Time
	quiet := true
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		quiet = quiet && !f.written(path)
		return nil
	})
	if err == nil && quiet && f.newer(dir, newest) && complete(dir) {
		f.best, f.bestTime = dir, newest
	}
}

func (f *checkpointFinder) written(path string) bool {
	return f.beingWritten != nil && f.beingWritten(path)
}

// newer prefers the later name of two that are equally old: epoch=1, epoch=2, last.
func (f *checkpointFinder) newer(path string, t time.Time) bool {
	return f.best == "" || t.After(f.bestTime) || t.Equal(f.bestTime) && path > f.best
}

func fileComplete(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false
	}
	if filepath.Ext(path) == ".safetensors" {
		return safetensorsComplete(file, info.Size())
	}
	return zipComplete(file, info.Size())
}

// zipComplete reads the directory at the end of a zip archive and checks that
// every member lies before it. A file that was cut off has no such directory.
func zipComplete(r io.ReaderAt, size int64) bool {
	z, err := zip.NewReader(r, size)
	if err != nil || len(z.File) == 0 {
		return false
	}
	for _, m := range z.File {
		offset, err := m.DataOffset()
		if err != nil || m.CompressedSize64 > uint64(size) || offset+int64(m.CompressedSize64) > size {
			return false
		}
	}
	return true
}

// maxSafetensorsHeader is the format's own limit, in bytes.
const maxSafetensorsHeader = 100_000_000

func safetensorsComplete(r io.ReaderAt, size int64) bool {
	var length [8]byte
	if _, err := r.ReadAt(length[:], 0); err != nil {
		return false
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxSafetensorsHeader || int64(n)+8 > size {
		return false
	}
	header := make([]byte, n)
	if _, err := r.ReadAt(header, 8); err != nil {
		return false
	}
	var tensors map[string]json.RawMessage
	if json.Unmarshal(header, &tensors) != nil {
		return false
	}
	end := int64(0)
	for name, raw := range tensors {
		if name == "__metadata__" {
			continue
		}
		var tensor struct {
			Offsets []int64 `json:"data_offsets"`
		}
		if json.Unmarshal(raw, &tensor) != nil || len(tensor.Offsets) != 2 {
			return false
		}
		end = max(end, tensor.Offsets[1])
	}
	return 8+int64(n)+end == size
}

func isDistributed(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, ".metadata")); err == nil {
		return true
	}
	// Without .metadata it is one that is not finished: its parts are no
	// checkpoints of their own.
	parts, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.distcp"))
	return err == nil && len(parts) > 0
}

// distributedComplete looks for the names of files in the pickled .metadata,
// where they stand as plain text.
func distributedComplete(dir string) bool {
	meta, err := os.ReadFile(filepath.Join(dir, ".metadata"))
	if err != nil || len(meta) == 0 || meta[len(meta)-1] != '.' { // a pickle ends with STOP
		return false
	}
	named := distributedFile.FindAll(meta, -1)
	if len(named) == 0 {
		return false
	}
	for _, name := range named {
		if !distributedFileThere(dir, string(name)) {
			return false
		}
	}
	return true
}

// distributedFileThere also takes a name less its first byte: a pickle puts
// the length of a text right before it, which may look like a letter.
func distributedFileThere(dir, name string) bool {
	for _, n := range []string{name, name[1:]} {
		if info, err := os.Stat(filepath.Join(dir, n)); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			return true
		}
	}
	return false
}

func trainerComplete(dir string) bool {
	state, err := os.ReadFile(filepath.Join(dir, "trainer_state.json"))
	if err != nil || !json.Valid(state) {
		return false
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Type().IsRegular() && checkpointFile(e.Name()) && !fileComplete(filepath.Join(dir, e.Name())) {
			return false
		}
	}
	return true
}
