package launcher

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The pin of a run that lasts gives signs of life, for collections on machines
// that do not see its flock.
func TestPinOfALongRunGivesSignsOfLife(t *testing.T) {
	was := pinBeatEvery
	pinBeatEvery = 20 * time.Millisecond
	t.Cleanup(func() { pinBeatEvery = was })
	c := shell(t, "touch $MARKS/started; while [ ! -e $MARKS/go ]; do sleep 0.05; done; echo x > {out.model}")
	done := make(chan error, 1)
	go func() {
		_, _, err := c.run(t)
		done <- err
	}()
	waitFor(t, "the command to start", func() bool {
		_, err := os.Stat(filepath.Join(c.marks(), "started"))
		return err == nil
	})
	pins, err := filepath.Glob(filepath.Join(c.Store, "pins", "*.json"))
	if err != nil || len(pins) == 0 {
		t.Fatalf("no pin: %v", err)
	}
	long := time.Now().Add(-48 * time.Hour)
	for _, p := range pins {
		if err := os.Chtimes(p, long, long); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "a sign of life", func() bool {
		for _, p := range pins {
			if fi, err := os.Stat(p); err == nil && time.Since(fi.ModTime()) < time.Hour {
				return true
			}
		}
		return false
	})
	c.mark(t, "go")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
