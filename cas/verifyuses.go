package cas

import (
	"context"
	"errors"
)

// maxUses bounds how many uses of one bad thing are listed.
const maxUses = 100

// usedBy finds who uses what is bad, with the paths in it.
func (v *verification) usedBy(ctx context.Context) error {
	if len(v.bad) == 0 {
		return nil
	}
	roots, _ := v.s.scanNames(ctx)
	u := useFinder{v: v, clean: map[Digest]bool{}}
	for _, r := range roots {
		if _, err := u.look(ctx, r.tree, r.by); err != nil {
			return err
		}
	}
	return nil
}

type useFinder struct {
	v     *verification
	clean map[Digest]bool // trees with nothing bad in or below them
}

// look notes the uses of bad things in a tree that is reached by the path at.
func (u *useFinder) look(ctx context.Context, d Digest, at string) (clean bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if u.clean[d] {
		return true, nil
	}
	clean = true
	if f := u.v.bad[d]; f != nil {
		clean = false
		u.note(f, at)
	}
	t, err := u.v.s.storedTree(ctx, d)
	if errors.Is(err, ErrNotFound) {
		var came []Digest
		u.v.s.lazyCame(d, func(b Digest) { came = append(came, b) })
		for _, b := range came {
			if ok, err := u.look(ctx, b, at); err != nil {
				return false, err
			} else if !ok {
				clean = false
			}
		}
		return clean, nil
	}
	if err != nil {
		return false, ctx.Err() // it is among the bad
	}
	for i := range t.Entries {
		e := &t.Entries[i]
		path := at + "/" + e.Name
		if e.Kind == KindDir {
			ok, err := u.look(ctx, e.Digest, path)
			if err != nil {
				return false, err
			}
			clean = clean && ok
		} else if f := u.v.bad[e.Digest]; f != nil && e.IsRegular() {
			clean = false
			u.note(f, path)
		}
	}
	if clean {
		u.clean[d] = true
	}
	return clean, nil
}

func (u *useFinder) note(f *finding, at string) {
	if len(f.usedBy) < maxUses {
		f.usedBy = append(f.usedBy, at)
	}
}
