package stages

import (
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/curi-store/curi/cas"
)

// sources remembers what was seen of the project's files while stages are
// bound: many stages look at the same ones. It is safe for concurrent use.
type sources struct {
	mu    sync.Mutex
	infos map[string]fs.FileInfo // by path, links followed; nil where nothing is there
	files map[string]source
	globs map[string][]string // the files that a pattern matched
	sniff map[string]bool     // whether the first line names Python
}

// source is what is keyed of a file.
type source struct {
	digest  cas.Digest
	imports []pyImport // of a Python file
	err     error
}

func newSources() *sources {
	return &sources{infos: map[string]fs.FileInfo{}, files: map[string]source{}, globs: map[string][]string{}, sniff: map[string]bool{}}
}

// stat is os.Stat; nil where there is nothing to be seen.
func (s *sources) stat(path string) fs.FileInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, known := s.infos[path]
	if !known {
		var err error
		if info, err = os.Stat(path); err != nil {
			info = nil
		}
		s.infos[path] = info
	}
	return info
}

// read returns what is keyed of a file.
func (s *sources) read(file string, python bool) source {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := file
	if python {
		key += "\x00python"
	}
	got, known := s.files[key]
	if known {
		return got
	}
	if python {
		var text []byte
		if text, got.err = os.ReadFile(file); got.err == nil {
			got.digest = cas.Sum(text)
			if strings.HasSuffix(file, ".ipynb") {
				text = notebookSource(text)
			}
			got.imports = parseImports(text)
		}
	} else {
		got.digest, got.err = fileDigest(file)
	}
	s.files[key] = got
	return got
}

// python reports whether a file is Python source by its first line.
func (s *sources) python(file string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	is, known := s.sniff[file]
	if !known {
		is = pythonScript(file)
		s.sniff[file] = is
	}
	return is
}

// glob returns what find finds for a pattern, looking once.
func (s *sources) glob(pattern string, find func() ([]string, error)) ([]string, error) {
	s.mu.Lock()
	files, known := s.globs[pattern]
	s.mu.Unlock()
	if known {
		return files, nil
	}
	files, err := find()
	if err == nil {
		s.mu.Lock()
		s.globs[pattern] = files
		s.mu.Unlock()
	}
	return files, err
}
