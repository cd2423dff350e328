package cas

import (
	"bytes"
	"sync"
	"testing"
)

// TestProgressOfAStream checks that a stream, whose length nobody knows, is
// not said to be as long as what came so far.
func TestProgressOfAStream(t *testing.T) {
	s := addStore(t)
	var mu sync.Mutex
	told := 0
	added, err := s.AddReader(t.Context(), bytes.NewReader(make([]byte, 3*meterBytes)), "zeros", AddOptions{
		Progress: func(done, total, _, _ int64) {
			mu.Lock()
			defer mu.Unlock()
			told++
			if total != 0 {
				t.Errorf("%d bytes of %d", done, total)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	if told == 0 {
		t.Error("nothing was told")
	}
}
