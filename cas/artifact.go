package cas

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/curi-store/curi/internal/fault"
)

// Version is one version of a named artifact.
type Version struct {
	Name   string    `json:"-"`
	N      int       `json:"-"` // 1 is the first
	Tree   Digest    `json:"tree"`
	Time   time.Time `json:"time"`
	MadeBy string    `json:"made_by,omitempty"` // "RUN.OUTPUT", or ""
	Tags   []string  `json:"-"`                 // sorted
}

const maxArtifactName = 100

// CheckName reports why name cannot name an artifact, a stage, an input, an
// output or a tag: letters, digits, '_', '-' (not as the first, which would be
// an option), at most 100 bytes, never 8 or more hex digits alone, never all
// digits. The error wraps [ErrInvalid].
func CheckName(name string) error {
	bad := func(why string) error { return fmt.Errorf("name %q: %s: %w", name, why, ErrInvalid) }
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > maxArtifactName:
		return bad(fmt.Sprintf("has %d bytes, at most %d are allowed", len(name), maxArtifactName))
	case name[0] == '-':
		return bad("begins with '-', like an option")
	}
	digits, hex := true, true
	for i := range len(name) {
		c := name[i]
		if !isNameByte(c) {
			return bad("may hold only letters, digits, '_' and '-'")
		}
		isDigit := c >= '0' && c <= '9'
		digits = digits && isDigit
		hex = hex && (isDigit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F')
	}
	if digits {
		return bad("is all digits, like a version; put a letter in it")
	}
	if hex && len(name) >= 8 {
		return bad("looks like a digest; put a '_' or another letter in it")
	}
	return nil
}

// PublishOptions of [Store.Publish].
type PublishOptions struct {
	Tag    string // moved to the version; "" is none
	MadeBy string // "RUN.OUTPUT", or ""; kept only where a version is made
}

// versionFile is refs/artifact/<name>/v/<n>. One that was removed stays as a
// mark, so that its number is never given again.
type versionFile struct {
	Version
	Removed bool `json:"removed,omitempty"`
}

// tagFile is refs/artifact/<name>/tags/<tag>.
type tagFile struct {
	N int `json:"version"`
}

func (s *Store) artifactPath(parts ...string) string {
	return filepath.Join(append([]string{s.dir, "refs", "artifact"}, parts...)...)
}

func (s *Store) versionPath(name string, n int) string {
	return s.artifactPath(name, "v", strconv.Itoa(n))
}

// Publish makes tree the newest version of name and tells every mount. If it
// already is the newest, no version is made and isNew is false; the tag moves
// all the same. The tree must be stored ([ErrNotFound]). Processes that publish
// at once get different versions.
func (s *Store) Publish(ctx context.Context, name string, tree Digest, o PublishOptions) (v Version, isNew bool, err error) {
	if err := CheckName(name); err != nil {
		return Version{}, false, err
	}
	if o.Tag != "" {
		if err := CheckName(o.Tag); err != nil {
			return Version{}, false, fmt.Errorf("tag: %w", err)
		}
	}
	v, isNew, err = s.publish(ctx, name, tree, o)
	if err != nil {
		return Version{}, false, fmt.Errorf("publish %s: %w", name, err)
	}
	if v.Tags, err = s.tagsOf(name, v.N); err != nil {
		return Version{}, false, err
	}
	return v, isNew, s.Refresh(ctx)
}

func (s *Store) publish(ctx context.Context, name string, tree Digest, o PublishOptions) (Version, bool, error) {
	release, err := s.shareCommit(ctx)
	if err != nil {
		return Version{}, false, err
	}
	defer release()
	if err := s.needTree(tree); err != nil {
		return Version{}, false, err
	}
	v, isNew, err := s.addVersion(ctx, name, tree, o.MadeBy)
	fault.At(fault.VersionTaken)
	if err == nil && o.Tag != "" {
		err = s.writeTag(ctx, name, v.N, o.Tag)
	}
	return v, isNew, err
}

// addVersion takes the next free number; link(2) decides who gets it.
func (s *Store) addVersion(ctx context.Context, name string, tree Digest, madeBy string) (Version, bool, error) {
	for ctx.Err() == nil {
		ns, err := s.numbers(name)
		if err != nil {
			return Version{}, false, err
		}
		newest, err := s.newestOf(name, ns)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Version{}, false, err
		}
		if err == nil && newest.Tree == tree {
			return newest, false, nil
		}
		next := 1
		if len(ns) > 0 {
			next = ns[len(ns)-1] + 1
		}
		v := Version{Name: name, N: next, Tree: tree, Time: now(), MadeBy: madeBy}
		b, err := encodeJSON(versionFile{Version: v})
		if err != nil {
			return Version{}, false, err
		}
		err = s.createFile(s.versionPath(name, next), b)
		if !errors.Is(err, ErrExists) {
			return v, true, err
		}
	}
	return Version{}, false, ctx.Err()
}

// numbers lists the numbers ever given that still matter, removed ones
// included, ascending.
func (s *Store) numbers(name string) ([]int, error) {
	ents, err := os.ReadDir(s.artifactPath(name, "v"))
	if noFile(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the versions of %s: %w", name, err)
	}
	var ns []int
	for _, e := range ents {
		if n := parseNumber(e.Name()); n > 0 {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns, nil
}

// parseNumber returns a version number in its one form, else 0.
func parseNumber(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || strconv.Itoa(n) != text {
		return 0
	}
	return n
}

// readVersion reads one version without its tags; a removed one is [ErrNotFound].
func (s *Store) readVersion(name string, n int) (Version, error) {
	path := s.versionPath(name, n)
	b, err := os.ReadFile(path)
	if noFile(err) {
		return Version{}, fmt.Errorf("artifact %s@%d: %w", name, n, ErrNotFound)
	}
	if err != nil {
		return Version{}, fmt.Errorf("read artifact %s@%d: %w", name, n, err)
	}
	v, err := parseVersion(b)
	if errors.Is(err, ErrCorrupt) {
		return Version{}, fmt.Errorf("artifact %s@%d: %s: %w", name, n, path, err)
	}
	if err != nil {
		return Version{}, fmt.Errorf("artifact %s@%d: %w", name, n, err)
	}
	v.Name, v.N = name, n
	return v, nil
}

// parseVersion parses a version's file; [ErrNotFound] for the mark of a removed one.
func parseVersion(b []byte) (Version, error) {
	var f versionFile
	if err := parseJSON(b, &f); err != nil {
		return Version{}, err
	}
	if f.Removed {
		return Version{}, fmt.Errorf("was removed: %w", ErrNotFound)
	}
	if f.Tree.IsZero() {
		return Version{}, fmt.Errorf("%w: lacks tree", ErrCorrupt)
	}
	return f.Version, nil
}

// newestOf finds the newest version left among ns, without its tags.
func (s *Store) newestOf(name string, ns []int) (Version, error) {
	for _, n := range slices.Backward(ns) {
		v, err := s.readVersion(name, n)
		if !errors.Is(err, ErrNotFound) {
			return v, err
		}
	}
	return Version{}, fmt.Errorf("artifact %s: %w", name, ErrNotFound)
}

// Artifacts yields the newest version of each artifact whose name begins with
// prefix, in order of names. One that does not parse is yielded as an error,
// with its Name, and the iteration goes on.
func (s *Store) Artifacts(ctx context.Context, prefix string) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		names, err := s.artifactNames()
		if err != nil {
			yield(Version{}, err)
			return
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				yield(Version{}, err)
				return
			}
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			v, err := s.Version(ctx, name, "")
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				v = Version{Name: name}
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

func (s *Store) artifactNames() ([]string, error) {
	ents, err := os.ReadDir(s.artifactPath())
	if noFile(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	var names []string
	for _, e := range ents {
		if CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Versions lists the versions of name, oldest first; [ErrNotFound].
func (s *Store) Versions(ctx context.Context, name string) ([]Version, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	ns, err := s.numbers(name)
	if err != nil {
		return nil, err
	}
	tags, err := s.tags(name)
	if err != nil {
		return nil, err
	}
	var vs []Version
	for _, n := range ns {
		v, err := s.readVersion(name, n)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v.Tags = tags[n]
		vs = append(vs, v)
	}
	if len(vs) == 0 {
		return nil, fmt.Errorf("artifact %s: %w", name, ErrNotFound)
	}
	return vs, nil
}

// Version finds one: selector is "" (newest), a number, or a tag.
// [ErrNotFound]; [ErrInvalid] for what can be neither.
func (s *Store) Version(ctx context.Context, name, selector string) (Version, error) {
	if err := CheckName(name); err != nil {
		return Version{}, err
	}
	n := parseNumber(selector)
	if selector != "" && n == 0 {
		if err := CheckName(selector); err != nil {
			return Version{}, fmt.Errorf("%s@%s: neither a version nor a tag: %w", name, selector, err)
		}
		var err error
		if n, err = s.readTag(name, selector); err != nil {
			return Version{}, err
		}
	}
	var v Version
	var err error
	if n != 0 {
		v, err = s.readVersion(name, n)
	} else {
		var ns []int
		if ns, err = s.numbers(name); err == nil {
			v, err = s.newestOf(name, ns)
		}
	}
	if err != nil {
		return Version{}, err
	}
	v.Tags, err = s.tagsOf(name, v.N)
	return v, err
}

// RemoveVersions removes versions (all of them: the artifact) and their tags,
// and tells every mount. [ErrNotFound] if one of them is not there; then none
// is removed. Numbers are never given again.
func (s *Store) RemoveVersions(ctx context.Context, name string, ns []int) error {
	if err := CheckName(name); err != nil {
		return err
	}
	for _, n := range ns {
		if _, err := s.readVersion(name, n); err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
	}
	if err := s.removeVersions(ctx, name, ns); err != nil {
		return fmt.Errorf("remove versions of %s: %w", name, err)
	}
	return s.Refresh(ctx)
}

func (s *Store) removeVersions(ctx context.Context, name string, ns []int) error {
	release, err := s.shareCommit(ctx)
	if err != nil {
		return err
	}
	defer release()
	tags, err := s.tags(name)
	if err != nil {
		return err
	}
	// The mark keeps the number taken against a publish that listed the
	// versions before and links after. A collection thins the marks out.
	mark, err := encodeJSON(struct {
		Removed bool      `json:"removed"`
		Time    time.Time `json:"time"`
	}{true, now()})
	if err != nil {
		return err
	}
	for _, n := range slices.SortedFunc(slices.Values(ns), func(a, b int) int { return cmp.Compare(b, a) }) {
		for _, tag := range tags[n] {
			if err := s.removeTag(ctx, name, n, tag); err != nil {
				return err
			}
		}
		fault.At(fault.RemoveTag)
		if err := s.putAnyway(s.versionPath(name, n), mark); err != nil {
			return err
		}
	}
	return nil
}
