package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// mendLinks makes links in an output, a directory or the link itself, mean
// something without the places of the run, whose {root} they may name: one to
// what lies in the output becomes relative, one to what lies elsewhere in the
// place (best.ckpt → a checkpoint in a work directory) a copy of it. Any other
// stays, for sealing to judge.
func mendLinks(place, root, output string) error {
	var links []string
	err := filepath.WalkDir(output, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			links = append(links, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, link := range links {
		if err := mendLink(place, root, output, link); err != nil {
			return fmt.Errorf("take what %s links to: %w", link, err)
		}
	}
	return nil
}

func mendLink(place, root, output, link string) error {
	target, err := os.Readlink(link)
	if err != nil {
		return err
	}
	meant := target
	if !filepath.IsAbs(target) {
		meant = filepath.Join(filepath.Dir(link), target)
	} else if rest, ok := strings.CutPrefix(target, root+"/"); ok {
		meant = filepath.Join(place, rest)
	}
	within := func(dir string) bool { return strings.HasPrefix(meant, dir+"/") }
	if within(output) {
		if !filepath.IsAbs(target) {
			return nil
		}
		rel, err := filepath.Rel(filepath.Dir(link), meant)
		if err != nil {
			return err
		}
		return replaceLink(place, link, func(tmp string) error { return os.Symlink(rel, tmp) })
	}
	if !within(place) {
		return nil
	}
	real, err := filepath.EvalSymlinks(meant)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	top, err := filepath.EvalSymlinks(place)
	if err != nil || !strings.HasPrefix(real, top+"/") {
		return err // a link of a link, which leads out
	}
	if real == filepath.Join(top, "tmp") {
		return nil // the copy would be made in itself, and TMPDIR is nobody's output
	}
	return replaceLink(place, link, func(tmp string) error { return copyTree(real, tmp) })
}

// replaceLink puts what fill makes in the place of a link.
func replaceLink(place, link string, fill func(tmp string) error) error {
	tmp := filepath.Join(place, "tmp", "curi-link")
	if err := errors.Join(makeDir(filepath.Dir(tmp)), removeAll(tmp)); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		_ = removeAll(tmp)
		return err
	}
	if err := os.Remove(link); err != nil { // a directory cannot be renamed over it
		return err
	}
	return os.Rename(tmp, link)
}
