package stages

import (
	"bufio"
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

// trainerDir is what the Hugging Face trainer calls its checkpoints.
var trainerDir = regexp.MustCompile(`^checkpoint-[0-9]+$`)

// isDistributed reports whether a directory is a checkpoint, or half of one, of
// torch.distributed.checkpoint.
func isDistributed(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, ".metadata")); err == nil {
		return true
	}
	// Without .metadata it is one that is not finished: its parts are no
	// checkpoints of their own.
	return hasFile(dir, "*.distcp")
}

// eachRanksOwn reports whether every rank wrote its own metadata, without a word
// to the others (use_collectives=False): from how many is nowhere to be read.
func eachRanksOwn(dir string) bool {
	_, one := os.Lstat(filepath.Join(dir, "__0.metadata"))
	_, all := os.Lstat(filepath.Join(dir, ".metadata"))
	return one == nil && all != nil
}

// savedOver is how much younger than .metadata, which is written last, a file
// may be, for the sake of machines whose clocks differ: one that is younger
// still is of a save over this one that did not come to its end, and has the
// same name and length.
const savedOver = time.Second

// distributedComplete looks for the files that .metadata names, each as long as
// what it is to hold at least, and not younger. Other files beside them
// (Lightning's meta.pt) must be whole.
func distributedComplete(dir string) bool {
	meta, err := os.Open(filepath.Join(dir, ".metadata"))
	if err != nil {
		return false
	}
	defer meta.Close()
	last, err := meta.Stat()
	if err != nil {
		return false
	}
	long, err := storedFiles(meta)
	if errors.Is(err, errLargePickle) {
		long, err = namedFiles(meta)
	}
	if err != nil || len(long) == 0 {
		return false
	}
	for name, n := range long {
		if !filepath.IsLocal(name) {
			return false
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 || info.Size() < n {
			return false
		}
		if info.ModTime().Sub(last.ModTime()) > savedOver {
			return false
		}
	}
	return wholeBeside(dir)
}

// wholeBeside reports whether the files of a directory that have one of the
// known forms are whole.
func wholeBeside(dir string) bool {
	list, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, d := range list {
		if d.Type().IsRegular() && checkpointFile(d.Name()) && !fileComplete(filepath.Join(dir, d.Name())) {
			return false
		}
	}
	return true
}

// isAccelerate reports whether a directory is what Accelerator.save_state
// writes, or half of it: a model, then optimizer.bin, and last the state of the
// random numbers of each rank.
func isAccelerate(dir string) bool {
	return hasFile(dir, "random_states_*.pkl") ||
		hasFile(dir, "optimizer.bin") && (hasFile(dir, "model*.safetensors") || hasFile(dir, "pytorch_model*.bin"))
}

func accelerateComplete(dir string) bool {
	list, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	ranks := 0
	for _, d := range list {
		if ok, _ := filepath.Match("random_states_*.pkl", d.Name()); ok {
			ranks++
		}
		switch filepath.Ext(d.Name()) {
		case ".bin", ".pkl": // torch.save's
			if d.Type().IsRegular() && !fileComplete(filepath.Join(dir, d.Name())) {
				return false
			}
		}
	}
	for n := range ranks {
		if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("random_states_%d.pkl", n))); err != nil {
			return false
		}
	}
	return ranks > 0 && wholeBelow(dir)
}

// The files of DeepSpeed, of which each rank writes its own.
const deepspeedParts = "*_model_states.pt"

// isDeepspeed reports whether a directory is one that DeepSpeed saves to: the
// file "latest" names the directory in it that was last written whole.
func isDeepspeed(dir string) bool { return deepspeedTag(dir) != "" }

// deepspeedTag is the directory that "latest" names; "" if there is none.
func deepspeedTag(dir string) string {
	b, err := readLimited(filepath.Join(dir, "latest"), 4096)
	tag := strings.TrimSpace(string(b))
	if err != nil || tag == "" || !filepath.IsLocal(tag) || !hasFile(filepath.Join(dir, tag), deepspeedParts) {
		return ""
	}
	return filepath.Join(dir, tag)
}

func deepspeedComplete(dir string) bool {
	tag := deepspeedTag(dir)
	return tag != "" && wholeBeside(tag)
}

func hasFile(dir, pattern string) bool {
	found, err := filepath.Glob(filepath.Join(escapeGlob(dir), pattern))
	return err == nil && len(found) > 0
}

// storedFiles reads the pickled metadata: the files of a checkpoint, each with
// the end of the last thing in it, in bytes.
func storedFiles(r io.ReadSeeker) (map[string]int64, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	files := map[string]int64{}
	var broken error
	p := newPickle(bufio.NewReaderSize(r, 64<<10))
	p.built = func(class string, attributes map[string]any) {
		if !strings.HasSuffix(class, "._StorageInfo") {
			return
		}
		name, isName := attributes["relative_path"].(string)
		offset, isOffset := attributes["offset"].(int64)
		length, isLength := attributes["length"].(int64)
		if !isName || !isOffset || !isLength || offset < 0 || length < 0 || offset+length < 0 {
			broken = errPickle
			return
		}
		files[name] = max(files[name], offset+length)
	}
	if _, err := p.load(); err != nil {
		return nil, err
	}
	if len(files) == 0 && broken == nil {
		// Another writer of storage: its classes are not known, its files are
		// where they are called as they are by custom.
		return namedFiles(r)
	}
	return files, broken
}

// distributedFile is how the files of a checkpoint are called by custom.
var distributedFile = regexp.MustCompile(`__[0-9]+_[0-9]+\.distcp`)

// maxNamedFiles bounds how many files are looked for.
const maxNamedFiles = 1 << 20

// namedFiles finds the names of files as plain text, for metadata too large to
// be read otherwise. How long the files are to be is not known then.
func namedFiles(r io.ReadSeeker) (map[string]int64, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	files := map[string]int64{}
	buf := make([]byte, 1<<20)
	kept := 0 // of the buffer before
	var last byte
	for {
		n, err := io.ReadFull(r, buf[kept:])
		b := buf[:kept+n]
		if n > 0 {
			last = b[len(b)-1]
		}
		for _, name := range distributedFile.FindAll(b, -1) {
			files[string(name)] = 0
		}
		if len(files) > maxNamedFiles {
			return nil, errLargePickle
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return nil, err
		}
		kept = copy(buf, b[max(0, len(b)-64):]) // a name may be cut there
	}
	if last != '.' { // the end of a pickle
		return nil, errPickle
	}
	return files, nil
}

// maxTrainerJSON bounds what is read of the trainer's state and indexes.
const maxTrainerJSON = 256 << 20

// trainerComplete wants the state, which the trainer writes last, and that all
// files beside it are whole, and there.
func trainerComplete(dir string) bool {
	return readJSON(filepath.Join(dir, "trainer_state.json"), new(json.RawMessage)) == nil && wholeBelow(dir)
}

// isSharded reports whether a directory is a model in several files, which an
// index names; it is written last.
func isSharded(dir string) bool {
	return hasFile(dir, "*.safetensors.index.json") || hasFile(dir, "*.bin.index.json")
}

func shardIndex(name string) bool {
	return strings.HasSuffix(name, ".safetensors.index.json") || strings.HasSuffix(name, ".bin.index.json")
}

// wholeBelow reports whether all files in a directory and below that have one
// of the known forms are whole, and those that an index names are there.
func wholeBelow(dir string) bool {
	whole := true
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && isDistributed(path):
			whole = whole && distributedComplete(path)
			return fs.SkipDir
		case !d.Type().IsRegular():
		case checkpointFile(d.Name()):
			whole = whole && fileComplete(path)
		case shardIndex(d.Name()):
			whole = whole && shardsThere(path)
		}
		if !whole {
			return fs.SkipAll
		}
		return nil
	})
	return err == nil && whole
}

// shardsThere looks for the files that the index of a sharded model names.
func shardsThere(index string) bool {
	var of struct {
		Files map[string]string `json:"weight_map"`
	}
	if readJSON(index, &of) != nil || len(of.Files) == 0 {
		return false
	}
	seen := map[string]bool{}
	for _, name := range of.Files {
		if seen[name] {
			continue
		}
		seen[name] = true
		if !filepath.IsLocal(name) || !fileComplete(filepath.Join(filepath.Dir(index), name)) {
			return false
		}
	}
	return true
}

func readJSON(path string, to any) error {
	b, err := readLimited(path, maxTrainerJSON)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

// readLimited reads a file, or its first n bytes.
func readLimited(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}
