package launcher

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// attach gives the calling thread, which must be locked and whose children are
// to see it, a mount namespace of its own in which the inputs of many small
// files are mounted over what the mount shows there, which are the same files.
// They go with the last process of the namespace, whatever ends it. The error
// says why some or all are left as they are.
func (t *guardTrees) attach() error {
	found, err := t.take()
	if err != nil {
		return err
	}
	defer func() {
		for _, fd := range found {
			unix.Close(fd)
		}
	}()
	if len(found) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	// What the command mounts elsewhere is seen by others, and theirs by it, as
	// without the namespace. What is mounted here must not get out.
	if err := unix.Mount("", t.Mount, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts below %s private: %w", t.Mount, err)
	}
	var failed error
	for at, fd := range found {
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			failed = errors.Join(failed, fmt.Errorf("mount %s: %w", at, err))
		}
	}
	return failed
}

// take gets the mounts of those inputs that are trees of small files, by place.
// The thread that enters the namespace they come from ends with that.
func (t *guardTrees) take() (map[string]int, error) {
	type taken struct {
		found map[string]int
		err   error
	}
	result := make(chan taken)
	go func() {
		runtime.LockOSThread()
		found, err := t.takeHere()
		result <- taken{found, err}
	}()
	got := <-result
	return got.found, got.err
}

func (t *guardTrees) takeHere() (map[string]int, error) {
	namespace, err := os.Open(t.Namespace)
	if err != nil {
		return nil, fmt.Errorf("open the namespace of small files: %w", err)
	}
	defer namespace.Close()
	// A thread that shares its working directory with others cannot enter.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("enter the namespace of small files: %w", err)
	}
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("enter the namespace of small files: %w", err)
	}
	found := map[string]int{}
	for at, tree := range t.Inputs {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/"+tree.String(), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			found[at] = fd
		} else if err != unix.ENOENT {
			return found, fmt.Errorf("take tree %s: %w", tree, err)
		}
	}
	return found, nil
}
