package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// row is one comparison: medians in seconds.
type row struct {
	what, native, ours        string
	bytes                     int64 // moved by each; 0: it is about time alone
	nativeSeconds, ourSeconds float64
	rounds                    int
}

// one measures the two sides in turns, so that whatever else the machine does
// hits both.
func one(r row, rounds int, native, ours func() (float64, error)) ([]row, error) {
	// The first round warms caches and is not counted.
	var n, o []float64
	for i := range rounds + 1 {
		a, err := native()
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", r.what, r.native, err)
		}
		b, err := ours()
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", r.what, r.ours, err)
		}
		if i > 0 {
			n, o = append(n, a), append(o, b)
		}
	}
	r.rounds = rounds
	r.nativeSeconds, r.ourSeconds = median(n), median(o)
	return []row{r}, nil
}

func median(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// readFile reads a file from begin to end and returns the seconds it took.
func readFile(path string) (float64, error) {
	buf := make([]byte, 512<<10)
	start := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for {
		_, err := f.Read(buf)
		if errors.Is(err, io.EOF) {
			return time.Since(start).Seconds(), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// writeFile writes a file, makes it durable, and returns the seconds it took.
func writeFile(path string, size int64) (float64, error) {
	buf := make([]byte, 512<<10)
	_, _ = rand.Read(buf)
	start := time.Now()
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for left := size; left > 0; left -= int64(len(buf)) {
		if _, err := f.Write(buf[:min(left, int64(len(buf)))]); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return time.Since(start).Seconds(), nil
}

// randomFile makes a file that cannot be compressed or stored as holes.
func randomFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		return err
	}
	return f.Sync()
}
