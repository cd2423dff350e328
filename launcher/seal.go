package launcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// sealed is an output in the store, which is pinned or named.
type sealed struct {
	name  string
	added *cas.Added
}

// seal turns what the command wrote into trees of the store. All outputs are
// looked at before the first is taken. What was sealed is returned with an
// error too: the files are in the store then and no more in the place; the
// run's ref names them. One that could not be named is in the place again.
func (r *run) seal(ctx context.Context) (done []sealed, err error) {
	if err := r.checkReferences(ctx); err != nil {
		return nil, err
	}
	if err := r.takeFrom(ctx); err != nil {
		return nil, err
	}
	// The marker first: from now on no open for writing gets through.
	if err := r.place.SetSealing(ctx, true); err != nil {
		return nil, err
	}
	if r.mount != nil {
		what, err := lostWrite(r.mount.Dir, r.id)
		if err != nil {
			return nil, fmt.Errorf("%w: ask the mount at %s whether all is written: %w: nothing is published", ErrMount, r.mount.Dir, err)
		}
		if what != "" {
			return nil, fmt.Errorf("%w: the disk did not take all that the command wrote to %s: nothing is published", ErrMount, what)
		}
	}
	var take []stages.Output
	var missing []string
	for _, out := range r.p.Outputs {
		why, err := r.missing(out)
		switch {
		case err != nil:
			return nil, err
		case why == "":
			take = append(take, out)
		case r.lead != nil: // another node may have written it
		case out.Optional:
			r.say("the optional output %s was not written", out.Name)
		default:
			missing = append(missing, why)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: the command ended with exit status 0, but %s: nothing is published", ErrRefused, strings.Join(missing, "; "))
	}
	if err := r.moveExtras(take); err != nil {
		return nil, err
	}
	meta, err := r.writtenMeta()
	if err != nil {
		return nil, err
	}
	for _, out := range take {
		if err := r.lost(); err != nil {
			return done, err
		}
		free, err := r.reserve()
		if err != nil {
			return done, err
		}
		added, err := r.sealOutput(ctx, out, meta[out.Name])
		free()
		if errors.Is(err, cas.ErrInvalid) { // what the command wrote cannot be stored, whatever is asked of Curi
			return done, fmt.Errorf("%w: output %s: %w: nothing is published", ErrRefused, out.Name, err)
		}
		if err != nil {
			return done, fmt.Errorf("seal output %s: %w", out.Name, err)
		}
		it := sealed{out.Name, added}
		if r.info, err = keepSealed(context.WithoutCancel(ctx), r.s, r.info, append(done, it)); err != nil {
			return done, unnamed(ctx, it, err)
		}
		added.Release()
		done = append(done, it)
		fault.At(fault.RunSealed)
	}
	return done, nil
}

// sealOutput takes over one output.
func (r *run) sealOutput(ctx context.Context, out stages.Output, written map[string]string) (*cas.Added, error) {
	if written == nil { // else it has what was declared too; the program's word counts
		written = out.Meta
	}
	progress, clear := r.o.Progress("storing output " + out.Name)
	defer clear()
	o := cas.SealOptions{Attrs: cas.MetaAttrs(written), Progress: progress}
	if !out.Dir {
		o.As = out.Path
	}
	return r.s.Seal(ctx, r.outPath(out), o)
}

// outPath is where an output lies on disk.
func (r *run) outPath(out stages.Output) string {
	return outPath(filepath.Join(r.dir(), "out"), out)
}

// missing says why an output does not count as written; "" if it does.
func (r *run) missing(out stages.Output) (string, error) {
	p, shown := r.outPath(out), cmp.Or(out.From, out.Path)
	fi, err := os.Lstat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fmt.Sprintf("output %s (%s) was not written", out.Name, shown), nil
	case err != nil:
		return "", fmt.Errorf("look at output %s: %w", out.Name, err)
	case out.Dir:
		if !fi.IsDir() {
			return fmt.Sprintf("output %s is no directory", out.Name), nil
		}
		if err := mendLinks(r.dir(), r.places.Root, p); err != nil {
			return "", fmt.Errorf("output %s: %w", out.Name, err)
		}
		found, err := holdsFiles(p)
		if err != nil {
			return "", fmt.Errorf("look at output %s: %w", out.Name, err)
		}
		if !found {
			return fmt.Sprintf("output %s/ is empty", out.Name), nil
		}
		return "", nil
	case fi.IsDir():
		option := "--out"
		if out.From != "" {
			option = "--out-from"
		}
		return fmt.Sprintf("output %s (%s) is a directory: declare it with a final slash, %s %s=%s/", out.Name, shown, option, out.Name, shown), nil
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		return r.resolveLink(out, p)
	}
	if !fi.Mode().IsRegular() {
		return fmt.Sprintf("output %s (%s) is no regular file", out.Name, shown), nil
	}
	if fi.Size() == 0 {
		return fmt.Sprintf("output %s (%s) has zero bytes", out.Name, shown), nil
	}
	return "", nil
}

// resolveLink replaces a file output that is a link (best.ckpt → a checkpoint
// in a work directory) by a copy of what it points to.
func (r *run) resolveLink(out stages.Output, p string) (string, error) {
	src := p
	fi, err := os.Stat(src)
	if target, lerr := os.Readlink(p); err != nil && lerr == nil && strings.HasPrefix(target, r.places.Root+"/") {
		// Through a mount that is gone: the same file on disk.
		src = filepath.Join(r.dir(), strings.TrimPrefix(target, r.places.Root))
		fi, err = os.Stat(src)
	}
	if err != nil {
		return fmt.Sprintf("output %s (%s) is a symbolic link that leads nowhere", out.Name, out.Path), nil
	}
	return r.copyOver(out, src, fi, p)
}

func (r *run) copyOver(out stages.Output, src string, fi fs.FileInfo, dst string) (string, error) {
	if !fi.Mode().IsRegular() || fi.Size() == 0 {
		return fmt.Sprintf("output %s (%s) is a symbolic link to what is no file or has zero bytes", out.Name, out.Path), nil
	}
	tmp := filepath.Join(r.dir(), "tmp", "curi-copy-"+out.Name)
	if err := copyFile(src, tmp); err != nil {
		return "", fmt.Errorf("copy what output %s links to: %w", out.Name, err)
	}
	if err := os.Rename(tmp, dst); err != nil {
		return "", fmt.Errorf("copy what output %s links to: %w", out.Name, err)
	}
	return "", nil
}

// moveExtras moves what lies beside a file output to leftover/ and names it:
// the output is the file that was declared, and what else was written there is
// not lost.
func (r *run) moveExtras(take []stages.Output) error {
	var moved []string
	for _, out := range r.p.Outputs {
		if out.Dir {
			continue
		}
		taken := slices.ContainsFunc(take, func(o stages.Output) bool { return o.Name == out.Name })
		base := filepath.Join(r.dir(), "out", out.Name)
		var extras []string
		err := filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel := filepath.ToSlash(strings.TrimPrefix(strings.TrimPrefix(p, base), "/"))
			switch {
			case rel == "" || d.IsDir() && strings.HasPrefix(out.Path, rel+"/"), taken && rel == out.Path:
				return nil // on the way to the output, or itself
			}
			if d.IsDir() {
				if found, err := holdsFiles(p); err != nil || !found {
					return cmp.Or(err, fs.SkipDir)
				}
			}
			extras = append(extras, rel)
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look beside output %s: %w", out.Name, err)
		}
		for _, rel := range extras {
			dst := filepath.Join(r.dir(), "leftover", out.Name, filepath.FromSlash(rel))
			if err := makeDir(filepath.Dir(dst)); err != nil {
				return err
			}
			if err := os.Rename(filepath.Join(base, filepath.FromSlash(rel)), dst); err != nil {
				return fmt.Errorf("move what lies beside output %s away: %w", out.Name, err)
			}
			moved = append(moved, path.Join(out.Name, rel))
		}
	}
	if len(moved) > 0 {
		r.warn("not part of any output, moved to %s: %s", filepath.Join(r.dir(), "leftover"), strings.Join(moved, ", "))
	}
	return nil
}

// copyTree copies a file, or a directory with links as they are.
func copyTree(src, dst string) error {
	return filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := dst + strings.TrimPrefix(p, src)
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return os.Symlink(target, to)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is no regular file: %w", p, fs.ErrInvalid)
		}
		return copyFile(p, to)
	})
}

func copyFile(src, dst string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fi.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	_, err = io.Copy(out, in)
	return err
}

// maxMeta is how much of $CURI_META is read, in bytes: far more than all
// outputs can have.
const maxMeta = 16 << 20

// errNoMeta: what stands in the place of $CURI_META is not what Curi put there.
var errNoMeta = errors.New("the command made something else of it")

// readMeta reads $CURI_META, which may be gone by now.
func readMeta(path string) ([]byte, error) {
	// Should it have become a FIFO, do not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO):
		return nil, errNoMeta
	case err != nil:
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxMeta {
		return nil, cmp.Or(err, errNoMeta)
	}
	return io.ReadAll(io.LimitReader(f, maxMeta))
}

// writtenMeta is the metadata of outputs to which the command appended to
// $CURI_META: lines OUT:KEY=VALUE, of which the last for a key counts.
func (r *run) writtenMeta() (map[string]map[string]string, error) {
	b, err := readMeta(filepath.Join(r.dir(), "tmp", filepath.Base(r.attempt.meta)))
	if errors.Is(err, errNoMeta) {
		r.warn("passed over $CURI_META: %s", oneLine(err))
	} else if err != nil {
		return nil, fmt.Errorf("read the metadata that the command gave: %w", err)
	}
	meta := map[string]map[string]string{}
	var passed []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		key, value, ok2 := strings.Cut(rest, "=")
		i := slices.IndexFunc(r.p.Outputs, func(o stages.Output) bool { return o.Name == name })
		if !ok || !ok2 || i < 0 || key == "" || strings.ContainsRune(line, 0) {
			passed = append(passed, fmt.Sprintf("%.60q is not OUT:KEY=VALUE of an output", line))
			continue
		}
		key = strings.TrimPrefix(key, cas.MetaPrefix)
		all := maps.Clone(meta[name])
		if all == nil {
			all = maps.Clone(r.p.Outputs[i].Meta)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[key] = value
		// What cannot be kept must not cost what it describes.
		if err := stages.CheckMeta(all); err != nil {
			passed = append(passed, fmt.Sprintf("%s:%.40s=…: %s", name, key, oneLine(err)))
			continue
		}
		meta[name] = all
	}
	const most = 5
	for i, what := range passed {
		if i == most {
			what = fmt.Sprintf("%d lines more", len(passed)-most)
		}
		r.warn("passed over in $CURI_META: %s", what)
		if i == most {
			break
		}
	}
	return meta, nil
}

// checkReferences sees that inputs that were left where they are did not
// change while the command read them.
func (r *run) checkReferences(ctx context.Context) error {
	for _, in := range r.p.In {
		if err := r.s.CheckReferences(ctx, in.Tree); err != nil {
			return fmt.Errorf("input %s: %w: nothing is published", in.Name, err)
		}
	}
	if r.p.StdinBlob.IsZero() {
		return nil
	}
	b, err := r.s.OpenBlob(ctx, r.p.StdinBlob)
	if err != nil {
		return fmt.Errorf("standard input: %w: nothing is published", err)
	}
	return b.Close()
}
