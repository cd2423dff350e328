package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/curi-store/curi/cas"
)

// The limits of what a record keeps of a repository, in bytes and files.
const (
	maxUntrackedFile  = 1 << 20
	maxUntracked      = 16 << 20 // together
	maxUntrackedNames = 10_000
	maxDiff           = 16 << 20
	gitTimeout        = 30 * time.Second
)

// Capture notes the state of the git repository that a project lies in: the
// commit, the diff against it and the untracked files that git does not
// ignore. It starts git, so it is for runs, not for cache hits. Files that
// look like secrets (see NeverKept) or that .curiignore names are left out,
// of the diff too, as are the directories skip (the store, mounts).
//
// nil without an error means that there is no repository, no git, or that the
// project says `capture: none`.
func Capture(ctx context.Context, p Project, skip ...string) (*GitState, error) {
	if p.Capture == CaptureNone {
		return nil, nil
	}
	top := findUp(p.Dir, ".git")
	if top == "" {
		return nil, nil
	}
	if _, err := exec.LookPath("git"); err != nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	c := &capture{ctx: ctx, top: top, ignores: cas.NewIgnores(top), skip: skip}
	st := &GitState{Untracked: []Untracked{}}
	if err := c.commit(st); err != nil {
		return nil, err
	}
	if err := c.diff(st); err != nil {
		return nil, err
	}
	if err := c.untracked(st); err != nil {
		return nil, err
	}
	return st, nil
}

// NeverKept reports whether a file, by its path, may hold a secret: such are
// never part of a record.
func NeverKept(file string) bool {
	for part := range strings.SplitSeq(filepath.ToSlash(file), "/") {
		name := strings.ToLower(part)
		for _, pattern := range []string{".env*", "*.pem", "*.key", "id_*", "credentials*"} {
			if ok, _ := path.Match(pattern, name); ok {
				return true
			}
		}
	}
	return false
}

type capture struct {
	ctx     context.Context
	top     string
	ignores *cas.Ignores
	skip    []string
}

// git runs git without taking locks and without the programs that a
// repository's configuration may name. It returns at most limit bytes.
func (c *capture) git(limit int, args ...string) (out []byte, cut bool, err error) {
	safe := []string{"-C", c.top, "-c", "core.fsmonitor=false", "-c", "core.quotePath=false"}
	cmd := exec.CommandContext(c.ctx, "git", append(safe, args...)...)
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	cmd.WaitDelay = time.Second
	stdout := &limitedBuffer{limit: limit}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	if err := cmd.Run(); err != nil {
		if c.ctx.Err() != nil {
			return nil, false, fmt.Errorf("git %s in %s: %w", args[0], c.top, c.ctx.Err())
		}
		line, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return nil, false, fmt.Errorf("git %s in %s: %w: %s", args[0], c.top, err, line)
	}
	return stdout.b.Bytes(), stdout.cut, nil
}

// limitedBuffer keeps the first limit bytes and takes the rest for written.
type limitedBuffer struct {
	b     bytes.Buffer
	limit int
	cut   bool
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if room := l.limit - l.b.Len(); room < len(p) {
		l.cut = true
		l.b.Write(p[:max(room, 0)])
	} else {
		l.b.Write(p)
	}
	return len(p), nil
}

const maxGitNames = 64 << 20 // bytes of a list of names

func (c *capture) commit(st *GitState) error {
	if out, _, err := c.git(256, "rev-parse", "--verify", "--quiet", "HEAD"); err == nil {
		st.Commit = strings.TrimSpace(string(out))
	} else if c.ctx.Err() != nil {
		return err
	}
	if out, _, err := c.git(4096, "symbolic-ref", "--quiet", "--short", "HEAD"); err == nil {
		st.Branch = strings.TrimSpace(string(out))
	}
	st.Remote = remoteName(filepath.Join(c.top, ".git"))
	return nil
}

// diff keeps what differs from the commit, file by file: only those that may
// be kept are named to git.
func (c *capture) diff(st *GitState) error {
	base := st.Commit
	if base == "" { // before the first commit: all that is staged is new
		empty, _, err := c.git(256, "hash-object", "-t", "tree", "--stdin")
		if err != nil {
			return err
		}
		base = strings.TrimSpace(string(empty))
	}
	names, _, err := c.git(maxGitNames, "diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", base, "--")
	if err != nil {
		return err
	}
	var keep, left []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		st.Dirty = true
		kept, err := c.kept(name)
		if err != nil {
			return err
		}
		if kept {
			keep = append(keep, name)
		} else {
			left = append(left, name)
		}
	}
	except := belowAny(left, keep)
	var diff strings.Builder
	const batch = 200 // names in one command line
	cut := false
	for len(keep) > 0 && !cut {
		n := min(batch, len(keep))
		args := []string{"diff", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", base, "--"}
		for _, name := range keep[:n] {
			args = append(args, ":(literal)"+name)
		}
		for _, name := range except {
			args = append(args, ":(exclude,literal)"+name)
		}
		keep = keep[n:]
		out, c, err := c.git(maxDiff-diff.Len(), args...)
		if err != nil {
			return err
		}
		diff.Write(out)
		cut = c
	}
	st.Diff = strings.ToValidUTF8(diff.String(), "\uFFFD")
	var notes []string
	if len(left) > 0 {
		notes = append(notes, fmt.Sprintf("%d changed files left out: they look like secrets or are in .curiignore", len(left)))
	}
	if cut {
		notes = append(notes, fmt.Sprintf("cut after %d bytes", maxDiff))
	}
	st.DiffNote = strings.Join(notes, "; ")
	return nil
}

// belowAny returns the names that lie below one of dirs: git takes a path for
// all that is below it, too, where a file became a directory.
func belowAny(names, dirs []string) []string {
	is := map[string]bool{}
	for _, dir := range dirs {
		is[dir] = true
	}
	var found []string
	for _, name := range names {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if is[dir] {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

// kept reports whether a file, relative to the top, may be part of a record.
func (c *capture) kept(name string) (bool, error) {
	if NeverKept(name) {
		return false, nil
	}
	for _, dir := range c.skip {
		if _, in := below(dir, filepath.Join(c.top, filepath.FromSlash(name))); in {
			return false, nil
		}
	}
	ignored, err := c.ignores.Ignored(name)
	return !ignored, err
}

func (c *capture) untracked(st *GitState) error {
	args := []string{"ls-files", "--others", "--exclude-standard", "-z", "--", "."}
	for _, dir := range c.skip {
		if rel, ok := relativeTo(c.top, dir); ok && rel != "." {
			args = append(args, ":(exclude,literal)"+rel)
		}
	}
	names, cut, err := c.git(maxGitNames, args...)
	if err != nil {
		return err
	}
	total := int64(0)
	list := strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00")
	for _, name := range list {
		if name == "" || strings.HasSuffix(name, "/") { // another repository inside
			continue
		}
		kept, err := c.kept(name)
		if err != nil {
			return err
		}
		if !kept {
			continue
		}
		if len(st.Untracked) == maxUntrackedNames || cut {
			st.Untracked = append(st.Untracked, Untracked{Path: "…", Note: fmt.Sprintf("more than %d untracked files", len(st.Untracked))})
			return nil
		}
		u, err := c.untrackedFile(name, maxUntracked-total)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since it was listed
		}
		if err != nil {
			u = Untracked{Path: name, Note: "not readable"}
		}
		if u.Note == "" {
			total += u.Size
		}
		st.Untracked = append(st.Untracked, u)
	}
	return nil
}

// untrackedFile reads one file, unless it is longer than a limit or what is
// left of the room for all.
func (c *capture) untrackedFile(name string, room int64) (Untracked, error) {
	file := filepath.Join(c.top, filepath.FromSlash(name))
	info, err := os.Lstat(file)
	if err != nil {
		return Untracked{}, err
	}
	u := Untracked{Path: strings.ToValidUTF8(name, "\uFFFD"), Size: info.Size()}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(file)
		u.Note = "symbolic link to " + target
		return u, err
	case !info.Mode().IsRegular():
		u.Note = "no regular file"
		return u, nil
	case info.Size() > maxUntrackedFile:
		u.Note = "longer than 1 MiB"
		return u, nil
	case info.Size() > room:
		u.Note = "beyond 16 MiB together"
		return u, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return u, err
	}
	if u.Size = int64(len(b)); u.Size > maxUntrackedFile {
		u.Note = "longer than 1 MiB"
	} else if utf8.Valid(b) {
		u.Text = string(b)
	} else {
		u.Base64 = b
	}
	return u, nil
}
