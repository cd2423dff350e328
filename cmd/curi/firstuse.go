package main

import (
	"context"

	"github.com/curi-store/curi/cas"
)

// littleSpace is what a store should find free when it is made.
const littleSpace = 10 << 30

// firstUse tells where the store was made and what will cost there.
func (a *app) firstUse(ctx context.Context, s *cas.Store) {
	a.say("made a store at %s (--store DIR, $CURI_STORE or `store:` in a configuration file name another place)", s.Dir())
	f, err := s.Facts(ctx)
	if err != nil {
		a.logger().Debug("looking at the filesystem of the store", "err", err)
		return // what is not known needs no warning
	}
	if f.Network {
		a.warn("warning: the store is on a network filesystem (%s): it works, but reading and locking are slower; a store on a local disk is faster (--store DIR)", f.Filesystem)
	}
	if f.Free < littleSpace {
		a.warn("warning: only %s are free at %s; curi gc frees what is unused, --reference adds large data without copying it", size(f.Free), s.Dir())
	}
	if !f.Reflinks && !f.Network {
		a.say("its filesystem (%s) has no reflinks: curi add, curi checkout and --no-mount copy bytes; curi add --move or --reference and stages in a mount do not", f.Filesystem)
	}
}
