package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

// addedJSON is what `curi add --json` prints.
type addedJSON struct {
	Name    string     `json:"name"`
	Version int        `json:"version"`
	Digest  cas.Digest `json:"digest"` // the file's own for a single file, else the tree's
	Tree    cas.Digest `json:"tree"`
	Bytes   int64      `json:"bytes"`
	Files   int64      `json:"files"`
	New     bool       `json:"new"` // false: it was the newest version already
}

func newAdd(a *app) *cobra.Command {
	var o struct {
		name, tag, as           string
		meta, exclude           []string
		move, reference, follow bool
	}
	c := &cobra.Command{
		Use:   "add PATH --name NAME",
		Short: "Store a file or a directory as an artifact's next version",
		Long: `Store a file or a directory as the next version of the artifact NAME, and print
name, version and digest. PATH "-" is stdin.

The same bytes and metadata as the newest version make no new one, and a file
whose size, mtime, ctime and inode are as at the last add is not read again (but
on FUSE, FAT and images such as squashfs, where these may be another file's).
Files that --exclude names, or a .curiignore in PATH or below it (both in gitignore
syntax), are left out. A link that leads out of PATH is an error; --follow stores
what it points to.`,
		Example: `  curi add ./digits --name digits
  curi add ./digits --name digits --tag best --meta source=sklearn --exclude '*.tmp'
  tar c logs | curi add - --name logs --as logs.tar
  curi add /data/scans --name scans --reference   # leaves the files where they are
  curi add ./checkpoint --name model --move       # takes the files over`,
		Args:              nargs(1, 1, "one PATH (or - for stdin)"),
		ValidArgsFunction: completeFiles,
		RunE: func(c *cobra.Command, args []string) error {
			if err := exclusive(c, "move", "reference"); err != nil {
				return err
			}
			if o.name == "" {
				return usagef("curi add wants a name for the artifact: curi add %s --name NAME", args[0])
			}
			if err := checkNames(o.name, o.tag); err != nil {
				return err
			}
			meta, err := parseMeta(o.meta)
			if err != nil {
				return err
			}
			opts := cas.AddOptions{Move: o.move, Reference: o.reference, Follow: o.follow, Exclude: o.exclude, As: o.as, Attrs: cas.MetaAttrs(meta)}
			return a.add(c.Context(), args[0], o.name, o.tag, opts)
		},
	}
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "`name` of the artifact")
	f.StringVar(&o.tag, "tag", "", "`tag` the version, moving the tag if it exists")
	f.StringArrayVar(&o.meta, "meta", nil, "metadata `k=v` of the artifact (repeatable)")
	f.StringVar(&o.as, "as", "", "name of the single `file` inside the artifact (default: its own; for stdin the artifact's name)")
	f.StringArrayVar(&o.exclude, "exclude", nil, "leave out what the gitignore `pattern` matches (repeatable)")
	f.BoolVar(&o.follow, "follow", false, "store what links that lead out of PATH point to")
	f.BoolVar(&o.move, "move", false, "take the files over (rename) instead of copying them")
	f.BoolVar(&o.reference, "reference", false, "record and verify the files where they are, without copying")
	_ = c.RegisterFlagCompletionFunc("name", a.completeArtifacts)
	_ = c.RegisterFlagCompletionFunc("meta", cobra.NoFileCompletions)
	_ = c.RegisterFlagCompletionFunc("tag", cobra.NoFileCompletions)
	_ = c.RegisterFlagCompletionFunc("exclude", cobra.NoFileCompletions)
	return c
}

func (a *app) add(ctx context.Context, path, name, tag string, o cas.AddOptions) error {
	if path == "-" && (o.Move || o.Reference || o.Follow || len(o.Exclude) > 0) {
		return usagef("curi add -: stdin cannot be combined with --move, --reference, --follow or --exclude")
	}
	if path != "-" {
		err := checkSource(path, o.As)
		if err != nil && o.Move {
			err = a.putBack(ctx, path, o.As, err)
		}
		if err != nil {
			return err
		}
	}
	s, err := a.store(ctx)
	if err != nil {
		return err
	}
	if _, err := remote.FindConfig(ctx, s, name); err == nil {
		return usagef("%s is a remote of this store: %s/NAME already means what is there; choose another name for the artifact", name, name)
	}
	progress, clear := a.progress("adding " + path)
	defer clear()
	o.Progress = progress
	var added *cas.Added
	if path == "-" {
		file := o.As
		if file == "" {
			file = name
		}
		added, err = s.AddReader(ctx, a.stdin(ctx), file, o)
	} else {
		if o.Reference {
			if path, err = filepath.Abs(path); err != nil { // a reference outlives the current directory
				return err
			}
		}
		added, err = s.AddPath(ctx, path, o)
	}
	if err != nil {
		return err
	}
	v, isNew, err := s.Publish(ctx, name, added.Tree, cas.PublishOptions{Tag: tag})
	if err != nil {
		return errors.Join(err, added.Undo(ctx))
	}
	added.Release()
	clear()
	if a.json {
		return a.printJSON(addedJSON{name, v.N, added.Digest, added.Tree, added.Bytes, added.Files, isNew})
	}
	if !isNew {
		a.say("%s has these bytes and this metadata already: no new version", versionName(v))
	}
	if a.quiet {
		return a.printf("%s\n", versionName(v))
	}
	return a.printf("%s  %s  %s\n", versionName(v), added.Digest, contents(added.Bytes, added.Files))
}

// putBack looks for a path again that is wrong: a move of it may have been cut
// off when the files were in the store and had no name there.
func (a *app) putBack(ctx context.Context, path, as string, wrong error) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return wrong
	}
	if err := s.PutBack(ctx, path); err != nil {
		return err
	}
	return checkSource(path, as)
}

// checkSource finds what is wrong with a path before a store is made for it.
func checkSource(path, as string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, lerr := os.Lstat(path); lerr == nil {
			return notFoundf("adding %s: it is a link to something that does not exist", path)
		}
		return notFoundf("adding %s: there is no such file or directory", path)
	}
	if err != nil {
		return fmt.Errorf("adding %s: %w", path, err)
	}
	if as != "" && st.IsDir() {
		return usagef("curi add %s: --as names a single file, and %s is a directory", path, path)
	}
	return nil
}

// checkNames checks the names of an artifact and, unless empty, of a tag.
func checkNames(name, tag string) error {
	if err := cas.CheckName(name); err != nil {
		return err
	}
	if tag != "" {
		if err := cas.CheckName(tag); err != nil {
			return fmt.Errorf("--tag: %w", err)
		}
	}
	return nil
}

// metaKey is a key of metadata without the prefix that attributes have: both
// ways to write it mean one key.
func metaKey(k string) string { return strings.TrimPrefix(k, cas.MetaPrefix) }

// parseMeta parses the values of --meta k=v.
func parseMeta(texts []string) (map[string]string, error) {
	meta := map[string]string{}
	for _, t := range texts {
		const form = "--meta KEY=VALUE, such as --meta type=DigitsNet"
		k, v, err := parsePair("--meta", t, form)
		if err != nil {
			return nil, err
		}
		if k = metaKey(k); k == "" {
			return nil, usagef("--meta %q: the right form is %s", t, form)
		}
		if _, twice := meta[k]; twice {
			return nil, usagef("--meta %s is given twice", k)
		}
		meta[k] = v
	}
	return meta, nil
}

// versionName is how people and scripts name a version.
func versionName(v cas.Version) string { return fmt.Sprintf("%s@%d", v.Name, v.N) }

// contents words how much there is.
func contents(bytes, n int64) string { return files(n) + ", " + size(bytes) }
