package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

// What is owed to remotes is uploaded by a process of its own, which the next
// command of the store starts at its end and does not wait for. It ends when
// nothing is owed any more, or a remote fails: then the command after that
// tries again, not sooner than in a minute.

// startUpload starts that process, if there is something for it to do.
func (a *app) startUpload(ctx context.Context) {
	if a.opened == nil || a.leaveOwed || !owes(ctx, a.opened) {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	c := exec.Command(self, "--store", a.opened.Dir(), "--quiet", "push", "--owed")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is not for it
	if err := c.Start(); err != nil {
		a.logger().Debug("upload what is owed", "error", err)
		return
	}
	_ = c.Process.Release()
}

// owes reports whether something is owed that may be tried now. It is cheap:
// every command asks.
func owes(ctx context.Context, s *cas.Store) bool {
	list, err := remote.Configs(ctx, s)
	if err != nil {
		return false
	}
	for _, c := range list {
		if owesTo(ctx, s, c) {
			return true
		}
	}
	return false
}

func owesTo(ctx context.Context, s *cas.Store, c remote.Config) bool {
	if c.Policy != remote.Publish {
		return false
	}
	if _, now := remote.Failed(s, c.Name); now {
		return false
	}
	if _, away := remote.Away(s, c.Name); away {
		return false
	}
	owed, err := remote.AllOwed(ctx, s, c.Name)
	return err == nil && len(owed) > 0
}

// upload is what that process does. Why it fails is kept for curi status.
func (a *app) upload(ctx context.Context) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	list, err := remote.Configs(ctx, s)
	if err != nil {
		return err
	}
	for _, c := range list {
		// What becomes owed meanwhile goes along.
		for owesTo(ctx, s, c) && ctx.Err() == nil {
			_, err := a.payOwed(ctx, s, c, all, nil)
			if errors.Is(err, cas.ErrBusy) {
				return nil // another one is at it
			}
			if err != nil {
				break
			}
		}
	}
	return nil
}
