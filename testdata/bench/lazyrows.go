package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// lazySize is how much is read lazily at most, in bytes.
const lazySize = 400 << 20

// remoteLazy compares a program that reads a file of a remote through a mount,
// of which nothing is here, with curl that gets the same bytes from the same
// server into a file.
func (b *bench) remoteLazy() error {
	addr, err := b.s3()
	if err != nil {
		return err
	}
	size := min(b.size, lazySize)
	path := b.path(dataDir, "lazy")
	defer os.Remove(path)
	if err := writeRandom(path, size); err != nil {
		return err
	}
	tool, err := b.sharer(b.path("lazy-from"), "lazy")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.path("lazy-from"))
	if err := b.putThere(tool, path, "lazy"); err != nil {
		return err
	}
	url := "http://" + addr + "/" + benchBucket + "/lazy.raw"
	curl := []string{"curl", "--silent", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", benchKey + ":" + benchSecret,
		"--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"}
	if _, err := b.output(curl[0], append(curl[1:], "--upload-file", path, url)...); err != nil {
		return err
	}
	got := b.path("curled")
	r, err := row{
		what: "sequential read of a file that is only on the server: " + mebibytes(size), amount: amount{bytes: size}, want: target{share: 0.9},
		native: side{"`curl -o FILE`", func() (float64, error) {
			defer os.Remove(got)
			return b.timedAtRest(append(curl, "--output", got, url))
		}},
		ours: side{"`dd` through the mount", func() (seconds float64, err error) {
			return seconds, b.coldMount(addr, "lazy", func(tool []string, dir string) error {
				if _, err := b.output(tool[0], append(tool[1:], "pull")...); err != nil {
					return err
				}
				seconds, err = b.timedAtRest([]string{"dd", "if=" + filepath.Join(dir, "remotes/team/lazy/lazy"), "of=/dev/null", "bs=1M", "status=none"})
				return err
			})
		}},
	}.measure(b.times(5))
	if err != nil {
		return err
	}
	b.lazyRows = append(b.lazyRows, r)
	return nil
}

func writeRandom(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, size)
	return errors.Join(err, f.Close())
}

// putThere stores a path under a name, and pushes it.
func (b *bench) putThere(tool []string, path, name string) error {
	for _, args := range [][]string{{"add", path, "--name", name}, {"push", name}} {
		if _, err := b.output(tool[0], append(append(tool[1:], "--quiet"), args...)...); err != nil {
			return err
		}
	}
	return nil
}

// coldMount calls fn with a fresh store that knows a remote at a prefix of the
// bucket, and a mount of it.
func (b *bench) coldMount(addr, prefix string, fn func(tool []string, dir string) error) (err error) {
	store := b.path("cold")
	tool, err := b.sharerAt(addr, store, prefix)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "curi-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir), os.RemoveAll(store)) }()
	if _, err := b.output(tool[0], append(tool[1:], "--quiet", "mount", dir)...); err != nil {
		return err
	}
	defer func() {
		_, uerr := b.output(tool[0], append(tool[1:], "umount", dir)...)
		err = errors.Join(err, uerr)
	}()
	return fn(tool, dir)
}

// remoteFirst gets the first byte of one file of many.
func (b *bench) remoteFirst() error {
	n := b.many(50_000)
	dir, err := b.tree(n, openedSize)
	if err != nil {
		return err
	}
	tool, err := b.sharer(b.path("first-from"), "first")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.path("first-from"))
	if err := b.putThere(tool, dir, "first"); err != nil {
		return err
	}
	one := fmt.Sprintf("remotes/team/first/%03d/%06d.bin", n/2/100, n/2)
	return b.fromFar(farRow{what: fmt.Sprintf("first byte of one file of an artifact of %d", n), below: 5, most: 256 << 10},
		func(addr string, timed func([]string) error) error {
			return b.coldMount(addr, "first", func(tool []string, dir string) error {
				if _, err := b.output(tool[0], append(tool[1:], "pull")...); err != nil {
					return err
				}
				return timed([]string{"head", "-c", "1", filepath.Join(dir, one)})
			})
		})
}

// remoteHit takes the result of a stage from the server.
func (b *bench) remoteHit() error {
	files, size := b.many(1000), int64(10_000_000)
	if b.percent < 100 {
		size = size * int64(b.percent+1) / 100
	}
	// They differ, and have holes: to make them is not what is measured.
	script := fmt.Sprintf(`import sys
for i in range(%d):
    with open(sys.argv[1] + "/shard-%%d.safetensors" %% i, "wb") as f:
        f.write(b"%%d" %% i)
        f.truncate(%d)
`, files, size)
	stage := []string{"stage", "exec", "--name", "hit", "--out", "data=data/", "--", b.python, "-c", script, "{out.data}"}
	made, err := b.sharer(b.path("hit-from"), "hit")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.path("hit-from"))
	if _, err := b.output(made[0], append(append(made[1:], "--quiet"), stage...)...); err != nil {
		return err
	}
	what := fmt.Sprintf("a stage hit from the server: a result of %d files, %.1f GB", files, float64(files)*float64(size)/1e9)
	return b.fromFar(farRow{what: what, below: 4}, func(addr string, timed func([]string) error) error {
		return b.coldMount(addr, "hit", func(tool []string, _ string) error {
			return timed(append(append(tool, "--quiet"), stage...))
		})
	})
}
