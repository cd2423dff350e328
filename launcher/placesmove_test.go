package launcher

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A process may die at any step of a move: the next one finds all that the
// place held, wherever it wants it, and leaves nothing beside it.
func TestMoveThatWasCutOff(t *testing.T) {
	const held = "work/w/checkpoint"
	for name, steps := range map[string]func(dir, far string) error{
		"nothing began": func(dir, far string) error { return os.Rename(filepath.Join(far, "made"), dir) },
		"half a copy there": func(dir, far string) error {
			if err := os.MkdirAll(filepath.Join(far, "place.new", "work"), 0o755); err != nil {
				return err
			}
			return os.Rename(filepath.Join(far, "made"), dir)
		},
		"a copy there, and no link": func(dir, far string) error {
			if err := os.CopyFS(filepath.Join(far, "place"), os.DirFS(filepath.Join(far, "made"))); err != nil {
				return err
			}
			return os.Rename(filepath.Join(far, "made"), aside(dir))
		},
		"a link, and what it replaced": func(dir, far string) error {
			if err := os.CopyFS(filepath.Join(far, "place"), os.DirFS(filepath.Join(far, "made"))); err != nil {
				return err
			}
			if err := os.Rename(filepath.Join(far, "made"), aside(dir)); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(far, "place"), dir)
		},
		"back, and the link not gone": func(dir, far string) error {
			if err := os.Rename(filepath.Join(far, "made"), aside(dir)); err != nil {
				return err
			}
			return os.Symlink(filepath.Join(far, "place"), dir)
		},
		"back, and the link gone": func(dir, far string) error { return os.Rename(filepath.Join(far, "made"), aside(dir)) },
		"a link of its own, not in place": func(dir, far string) error {
			if err := os.Symlink(filepath.Join(far, "place"), aside(dir)); err != nil {
				return err
			}
			return os.Rename(filepath.Join(far, "made"), dir)
		},
	} {
		for _, back := range []bool{false, true} {
			at, far := t.TempDir(), t.TempDir()
			dir := filepath.Join(at, "0123456789abcdef")
			made := filepath.Join(far, "made", filepath.FromSlash(held))
			if err := os.MkdirAll(filepath.Dir(made), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(made, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := steps(dir, far); err != nil {
				t.Fatal(err)
			}
			want := filepath.Join(far, "place")
			if back {
				want = dir
			}
			o := Options{}
			o.setDefaults()
			r := &run{execution: &execution{o: &o}}
			if err := r.move(context.Background(), dir, want); err != nil {
				t.Errorf("%s, back %v: %v", name, back, err)
				continue
			}
			if is, err := liesAt(dir); is != want || err != nil {
				t.Errorf("%s, back %v: it lies at %s (%v)", name, back, is, err)
			}
			if _, err := os.Stat(filepath.Join(dir, held)); err != nil {
				t.Errorf("%s, back %v: %v", name, back, err)
			}
			if left, _ := os.ReadDir(at); len(left) != 1 {
				t.Errorf("%s, back %v: left %v", name, back, left)
			}
		}
	}
}
