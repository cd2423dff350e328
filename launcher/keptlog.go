package launcher

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// A keptLog is the log of a run on disk: what the command wrote, in the order
// in which it came, with secrets masked. Several goroutines may write.
type keptLog struct {
	mu   sync.Mutex
	f    *os.File
	mask *masker
	err  error // the first that met a write; the run goes on without its log
}

// newKeptLog makes the file at path, replacing what is there.
func newKeptLog(path string, secrets map[string]string) (*keptLog, error) {
	// A new file, not a truncated one: the log of the last try may be open.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	if err := f.Chmod(0o644); err != nil { // whatever the umask: who may look into the store may read it later, too
		f.Close()
		return nil, fmt.Errorf("make the log: %w", err)
	}
	return &keptLog{f: f, mask: newMasker(secrets)}, nil
}

// stream returns a writer for one of the command's streams. A secret that is
// cut by the end of a write is masked too; close writes what was held back
// for that.
func (l *keptLog) stream() io.WriteCloser { return &logStream{log: l} }

type logStream struct {
	log  *keptLog
	held []byte // the end of what was written, if a secret may begin in it
}

func (s *logStream) Write(p []byte) (int, error) {
	masked := p
	if !s.log.mask.empty() {
		masked, s.held = s.log.mask.apply(append(s.held, p...))
	}
	s.log.append(masked)
	return len(p), nil
}

func (s *logStream) Close() error {
	s.log.append(s.log.mask.rest(s.held))
	s.held = nil
	return nil
}

// A maskedWriter masks secrets in what goes to another writer that is kept,
// such as a file. Close writes what was held back.
type maskedWriter struct {
	to   io.Writer
	mask *masker
	held []byte
}

// masked is w with secrets masked.
func (l *keptLog) masked(w io.Writer) *maskedWriter { return &maskedWriter{to: w, mask: l.mask} }

func (w *maskedWriter) Write(p []byte) (int, error) {
	out := p
	if !w.mask.empty() {
		out, w.held = w.mask.apply(append(w.held, p...))
	}
	if _, err := w.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *maskedWriter) Close() error {
	_, err := w.to.Write(w.mask.rest(w.held))
	w.held = nil
	return err
}

func (l *keptLog) append(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && len(p) > 0 {
		_, l.err = l.f.Write(p)
	}
}

// close ends the log and returns the first error that a write met.
func (l *keptLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.f.Close(); l.err == nil {
		l.err = err
	}
	return l.err
}

// A masker replaces the values of secrets by their names.
type masker struct {
	values, names [][]byte // longest value first
}

// newMasker masks name → value. Empty values are not masked.
func newMasker(secrets map[string]string) *masker {
	var names []string
	for n, v := range secrets {
		if v != "" {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return len(secrets[b]) - len(secrets[a]) })
	m := new(masker)
	for _, n := range names {
		m.values = append(m.values, []byte(secrets[n]))
		m.names = append(m.names, []byte("{secret."+n+"}"))
	}
	return m
}

func (m *masker) empty() bool { return len(m.values) == 0 }

// apply masks b and returns what can be written and what must be held back,
// because a secret, or a longer one, may begin there.
func (m *masker) apply(b []byte) (out, held []byte) {
	for i := 0; i < len(b); {
		if m.mayBegin(b[i:]) {
			return out, slices.Clone(b[i:])
		}
		if n, name := m.at(b[i:]); n > 0 {
			out = append(out, name...)
			i += n
			continue
		}
		out = append(out, b[i])
		i++
	}
	return out, nil
}

// rest masks what was held back, when nothing follows it.
func (m *masker) rest(held []byte) (out []byte) {
	for i := 0; i < len(held); {
		if n, name := m.at(held[i:]); n > 0 {
			out = append(out, name...)
			i += n
			continue
		}
		out = append(out, held[i])
		i++
	}
	return out
}

// at returns the length and the name of the secret at the beginning of b.
func (m *masker) at(b []byte) (int, []byte) {
	for i, v := range m.values {
		if bytes.HasPrefix(b, v) {
			return len(v), m.names[i]
		}
	}
	return 0, nil
}

// mayBegin reports whether b is the beginning of a secret.
func (m *masker) mayBegin(b []byte) bool {
	for _, v := range m.values {
		if len(b) < len(v) && bytes.HasPrefix(v, b) {
			return true
		}
	}
	return false
}

// maskFile masks a whole file, such as the log of a rank.
func (m *masker) maskFile(path string) error {
	if m.empty() {
		return nil
	}
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	// Under a name that the command cannot have made a link to anywhere.
	dst, err := os.CreateTemp(filepath.Dir(path), ".masked-*")
	if err != nil {
		return err
	}
	defer dst.Close()
	tmp := dst.Name()
	if err := dst.Chmod(0o644); err != nil {
		os.Remove(tmp)
		return err
	}
	var held []byte
	buf := make([]byte, 64<<10)
	for {
		n, rerr := src.Read(buf)
		var out []byte
		out, held = m.apply(append(held, buf[:n]...))
		if rerr != nil {
			out = append(out, m.rest(held)...)
		}
		if _, err := dst.Write(out); err != nil {
			os.Remove(tmp)
			return err
		}
		if rerr == io.EOF {
			return os.Rename(tmp, path)
		}
		if rerr != nil {
			os.Remove(tmp)
			return rerr
		}
	}
}
