package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
)

func newUmount(a *app) *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use:     "umount DIR | --stale",
		Aliases: []string{"unmount"},
		Short:   "End a mount",
		Long: `End the mount at DIR and return when it is gone. --stale clears away every mount of
this store whose server died without unmounting.`,
		Example: `  curi umount ~/curi
  curi umount --stale`,
		Args:              nargs(0, 1, "one directory, or --stale"),
		ValidArgsFunction: a.completeMounts,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case stale && len(args) > 0:
				return usagef("curi umount: name a directory or give --stale, not both")
			case stale:
				return a.umountStale(c.Context())
			case len(args) == 0:
				return usagef("curi umount wants the directory of a mount (curi status lists them), or --stale")
			}
			return a.umount(c.Context(), args[0])
		},
	}
	c.Flags().BoolVar(&stale, "stale", false, "clear away mounts whose server died")
	return c
}

func (a *app) umount(ctx context.Context, dir string) error {
	if dir == "" {
		return usagef("curi umount: the directory is empty; curi status lists the mounts")
	}
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	live, stale, err := s.Mounts(ctx)
	if err != nil {
		return err
	}
	for _, m := range stale {
		if m.Dir == dir {
			return a.clearStale(ctx, s, []cas.Mount{m})
		}
	}
	var found *cas.Mount
	var dirs []string
	for _, m := range live {
		dirs = append(dirs, m.Dir)
		if m.Dir == dir || sameDir(m.Dir, dir) {
			found = &m
			break
		}
	}
	if found == nil {
		if len(dirs) == 0 {
			return notFoundf("%s is no mount of %s, which has none", dir, s.Dir())
		}
		return notFoundf("%s is no mount of %s; its mounts are %s", dir, s.Dir(), strings.Join(dirs, ", "))
	}
	switch {
	case found.Reachable():
		// A command that has no file open just now would go on without its places.
		if used, err := s.InUse(ctx, *found); err == nil && used {
			return troublef("%s is busy: a stage runs in it (curi status tells which); wait for its end, or end it, and try again", found.Dir)
		}
		if err := detach(found.Dir, false); err != nil {
			return fmt.Errorf("unmounting %s: %w", found.Dir, err)
		}
	case found.SameNamespace(): // it is detached, and only its server stayed
		endServer(found.PID)
	default:
		return troublef("%s was mounted in another mount namespace, by process %d; run curi umount there, or end it with kill %d", found.Dir, found.PID, found.PID)
	}
	if err := awaitGone(ctx, s, *found); err != nil {
		return err
	}
	dropLog(s, found.Dir)
	if a.json {
		return a.printJSON(map[string]any{"unmounted": []string{found.Dir}})
	}
	a.say("unmounted %s", found.Dir)
	return nil
}

func (a *app) umountStale(ctx context.Context) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	_, stale, err := s.Mounts(ctx)
	if err != nil {
		return err
	}
	return a.clearStale(ctx, s, stale)
}

// clearStale unmounts what dead servers left and forgets them.
func (a *app) clearStale(ctx context.Context, s *cas.Store, stale []cas.Mount) error {
	done := []string{}
	var failed []error
	for _, m := range stale {
		if leftMounted(m) {
			if err := detach(m.Dir, true); err != nil {
				failed = append(failed, fmt.Errorf("unmounting %s: %w", m.Dir, err))
				continue
			}
		}
		if err := s.ForgetMount(ctx, m); err != nil {
			failed = append(failed, err)
			continue
		}
		done = append(done, m.Dir)
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	if a.json {
		return a.printJSON(map[string]any{"unmounted": done})
	}
	for _, d := range done {
		a.say("cleared %s", d)
	}
	if len(done) == 0 {
		a.say("no mount of %s is stale", s.Dir())
	}
	return nil
}

// leftMounted reports whether the kernel still shows a mount whose server died.
// At its place another server may serve by now, with the same device number; one
// that died in another mount namespace had its place there.
func leftMounted(m cas.Mount) bool {
	return m.Reachable() && isMountPoint(m.Dir) && launcher.DeadMount(m.Dir)
}

// detach unmounts dir, as root directly, else through fusermount3. lazy lets
// processes that still have files open there go on until they close them.
func detach(dir string, lazy bool) error {
	var err error
	if os.Geteuid() == 0 {
		err = unmount(dir, lazy)
	} else {
		flag := "-u"
		if lazy {
			flag = "-uz"
		}
		var out []byte
		if out, err = exec.Command("fusermount3", flag, "--", dir).CombinedOutput(); err != nil {
			text := oneLine(string(out))
			if text == "" {
				text = err.Error()
			}
			if strings.Contains(text, "busy") {
				return busyMount(dir)
			}
			return troublef("%s", strings.TrimPrefix(text, "fusermount3: "))
		}
	}
	if isBusy(err) {
		return busyMount(dir)
	}
	return err
}

func busyMount(dir string) error {
	return fmt.Errorf("%w: a process has files open or its current directory there; end it (fuser -vm %s lists it) and try again", cas.ErrBusy, dir)
}

// goneWait bounds how long a server may take to leave after its unmount. After
// askWait it is asked to: another mount namespace, made while the mount was
// there, shows the mount too and would keep the server.
const (
	goneWait = 60 * time.Second
	askWait  = 2 * time.Second
)

// awaitGone waits until the server of a mount has left, so that whoever comes
// next finds neither it nor its registration.
func awaitGone(ctx context.Context, s *cas.Store, m cas.Mount) error {
	begun, asked := time.Now(), false
	for time.Since(begun) < goneWait {
		if !s.Serves(m) {
			return s.ForgetMount(ctx, m) // it may have died on its way out
		}
		if !asked && time.Since(begun) > askWait {
			asked = true
			endServer(m.PID)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return troublef("the mount is gone, but its server (curifs, process %d) is still there after %s: another mount namespace, such as a container's, may use it; kill %d ends it", m.PID, goneWait, m.PID)
}

// sameDir reports whether two paths lead to one directory, without touching a
// mount that may hang: only the parents are looked at.
func sameDir(x, y string) bool {
	if filepath.Base(x) != filepath.Base(y) {
		return false
	}
	px, errx := filepath.EvalSymlinks(filepath.Dir(x))
	py, erry := filepath.EvalSymlinks(filepath.Dir(y))
	return errx == nil && erry == nil && px == py
}
