package remote

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/curi-store/curi/cas"
)

// stager stages small files from several goroutines: making a file costs more
// than its bytes.
type stager struct {
	in   *cas.Intake
	work chan stagerFile
	wg   sync.WaitGroup // of files

	mu  sync.Mutex
	err error
}

type stagerFile struct {
	d cas.Digest
	b []byte
}

// newStager begins one. Its goroutines live from the first add to the next wait.
func newStager(in *cas.Intake) *stager { return &stager{in: in} }

// add stages a file some time.
func (s *stager) add(d cas.Digest, b []byte) error {
	if s.work == nil {
		s.work = make(chan stagerFile, 64)
		for range max(2, min(8, runtime.GOMAXPROCS(0))) {
			s.wg.Go(func() { s.run(s.work) })
		}
	}
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.work <- stagerFile{d, b}
	return nil
}

func (s *stager) run(work <-chan stagerFile) {
	for f := range work {
		s.mu.Lock()
		failed := s.err != nil
		s.mu.Unlock()
		if failed {
			continue
		}
		if err := s.in.Bytes(f.d, f.b); err != nil {
			s.mu.Lock()
			s.err = fmt.Errorf("fetch file %s: %w", f.d, err)
			s.mu.Unlock()
		}
	}
}

// wait waits until all that was added is staged.
func (s *stager) wait() error {
	if s.work != nil {
		close(s.work)
		s.wg.Wait()
		s.work = nil
	}
	return s.err
}
