//go:build linux

package fusefs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// Options of [Serve].
type Options struct {
	AllowOther bool            // let other users in; the kernel then checks permissions
	NoExec     bool            // let nobody execute files of the mount
	Auto       bool            // leave when no run uses the mount any more
	Debug      bool            // log every request
	Stats      *Stats          // where to count; nil: nobody asks but through the mount
	Metrics    string          // HOST:PORT where the caller tells them, for the registration; "" if nowhere
	Logger     *slog.Logger    // nil: discard
	Ready      func(cas.Mount) // called once, when the mount serves
}

// Serve mounts the store at dir, an empty directory, and serves until ctx
// ends, the mount is unmounted by anyone, or (Auto) its last user left; then
// it returns nil and nothing is mounted. Options.Ready is called once, when
// the mount serves and is registered in the store. Serve never touches dir
// once mounted, nor may the caller's process. Handlers for signals must be set
// before it is called, so that none ends the process with the mount in place.
func Serve(ctx context.Context, s *cas.Store, dir string, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := checkMountPoint(dir)
	if err != nil {
		return err
	}
	f, err := newFilesystem(s, o)
	if err != nil {
		return err
	}
	defer f.close()
	// Before the kernel shows it, so that a server that dies in the midst leaves
	// nothing that nobody knows of.
	reg, err := s.RegisterMount(ctx, cas.Mount{
		ID: f.id, Dir: dir, PID: os.Getpid(), UID: os.Geteuid(), Auto: o.Auto, AllowOther: o.AllowOther,
		Metrics: o.Metrics, Pending: true,
	})
	if err != nil {
		return fmt.Errorf("register the mount %s: %w", dir, err)
	}
	defer reg.Close()
	c, err := connect(f, dir)
	if err != nil {
		return err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.server.Serve()
	}()
	err = f.serve(ctx, c, reg, served)
	if uerr := c.shutdown(served); err == nil {
		err = uerr
	}
	return err
}

// serve adds the connection for trees of small files, where this process may
// mount it, and waits for the reason to end.
func (f *filesystem) serve(ctx context.Context, c *connection, reg *cas.Registration, served <-chan struct{}) error {
	if !c.root {
		return f.run(ctx, c, reg, "", served)
	}
	small, err := f.connectSmall()
	if err != nil {
		f.log.Warn("inputs of many small files will be read slowly", "err", err)
		return f.run(ctx, c, reg, "", served)
	}
	defer small.close()
	return f.run(ctx, c, reg, small.path(), served)
}

// run tells that the mount serves and waits for the reason to end it; trees is
// the namespace with the trees of small files.
func (f *filesystem) run(ctx context.Context, c *connection, reg *cas.Registration, trees string, served <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if ctx.Err() != nil {
		return nil
	}
	fault.At(fault.MountAttached)
	f.setReadAhead(c.mount.Device)
	if err := reg.Serve(cas.Mount{Device: c.mount.Device, Passthrough: f.passthrough, Reason: c.reason, Trees: trees}); err != nil {
		return err
	}
	// First, so that nobody begins to use what is being unmounted.
	defer func() {
		if err := reg.Leave(); err != nil {
			f.log.Warn("others may try to use the mount while it goes", "err", err)
		}
	}()
	defer func() {
		f.closing.Store(true)
		f.stop()
	}()
	stop, err := f.follow()
	if err != nil {
		f.log.Warn("changes made from other mount namespaces will show late", "err", err)
	} else {
		defer stop()
	}
	unused := make(chan error, 1)
	if f.opts.Auto {
		go func() { unused <- reg.Unused(ctx) }()
	}
	f.stats.started.Store(time.Now().UnixNano())
	fault.At(fault.MountRegistered)
	if f.opts.Ready != nil {
		f.opts.Ready(reg.Mount())
	}
	select {
	case <-ctx.Done():
		return nil
	case <-served:
		return nil
	case err := <-unused:
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait for the last user of the mount %s: %w", c.dir, err)
		}
		return nil
	}
}

// absolute resolves dir without following a mount's own links later.
func absolute(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("mount point %s: %w", dir, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return abs, nil
}
