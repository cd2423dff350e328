package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// peerMount reads through rclone's mount of a directory and through an input
// of a stage, beside the disk, all in one process.
func (b *bench) peerMount() error {
	large, err := b.storeLarge()
	if err != nil {
		return err
	}
	if err := b.storeTrees(); err != nil {
		return err
	}
	opened, err := b.tree(b.many(openedFiles), openedSize)
	if err != nil {
		return err
	}
	walked, err := b.tree(b.many(walkedFiles), walkedSize)
	if err != nil {
		return err
	}
	if err := b.mounted(); err != nil {
		return err
	}
	mnt := ""
	if b.program(rclone) != "" {
		var unmount func() error
		if mnt, unmount, err = b.rcloneMount(); err != nil {
			return err
		}
		defer unmount()
	}
	for _, w := range []struct {
		what, op, input, native, below string
		rounds                         int
		size                           int64
		amount                         amount
	}{
		{"sequential read of that file through a mount, warm", "read", "large", large, "/large", 5, b.size, amount{bytes: b.size}},
		{"random reads of 4 KiB through a mount", "readrandom", "large", large, "/large", 3, b.size, amount{bytes: randomReads * smallIO}},
		{"open, read, close of 10,000 files of 4 KiB through a mount", "openmany", "opened", opened, strings.TrimPrefix(opened, b.path(dataDir)), 3, 0, amount{files: b.many(openedFiles)}},
		{"`find` with sizes over 50,000 files through a mount", "walk", "walked", walked, strings.TrimPrefix(walked, b.path(dataDir)), 3, 0, amount{files: b.many(walkedFiles)}},
	} {
		in := inStage{op: w.op, input: w.input, native: w.native, size: w.size}
		if mnt != "" {
			in.peer = mnt + w.below
		}
		all, err := b.within(b.times(w.rounds), in)
		if err != nil {
			return fmt.Errorf("%s: %w", w.what, err)
		}
		r := peerRow{what: w.what, amount: w.amount}
		r.sides[native], r.sides[curi] = all[0], all[1]
		if mnt != "" {
			r.sides[rclone] = all[2]
		}
		b.peerRows = append(b.peerRows, r)
	}
	return nil
}

// rcloneMount mounts the working directory by rclone with its full cache.
func (b *bench) rcloneMount() (dir string, unmount func() error, err error) {
	dir = b.path("rclone")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	cmd := exec.Command(b.program(rclone), "mount", "--vfs-cache-mode", "full", "--cache-dir", b.path("rclone-cache"), "--read-only",
		"--dir-cache-time", "24h", b.path(dataDir), dir)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for end := time.Now().Add(30 * time.Second); !mountPoint(dir); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-done:
			return "", nil, fmt.Errorf("rclone mount: %v: %s", err, said.String())
		default:
		}
		if time.Now().After(end) {
			return "", nil, errors.Join(errors.New("rclone mount does not come up"), cmd.Process.Kill())
		}
	}
	return dir, func() error {
		if _, err := b.output("fusermount3", "-u", dir); err != nil {
			return err
		}
		return <-done
	}, nil
}

// mountPoint reports whether something is mounted at dir.
func mountPoint(dir string) bool {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	return strings.Contains(string(mounts), " "+dir+" ")
}
