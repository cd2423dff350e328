package cas

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// An attribute that a program removes while they are read is no failure.
func TestAttributeThatComesAndGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	ended := make(chan error, 1)
	go func() {
		var err error
		for !stop.Load() && err == nil {
			if err = unix.Setxattr(path, MetaPrefix+"poked", []byte("x"), 0); err == nil {
				err = unix.Removexattr(path, MetaPrefix+"poked")
			}
		}
		ended <- err
	}()
	for with, without := 0, 0; with < 200 || without < 200; {
		a, err := metaXattrs(path)
		if err != nil {
			t.Error(err)
			break
		}
		if len(a) > 0 {
			with++
		} else {
			without++
		}
	}
	stop.Store(true)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
