package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// A round of collecting is the objects gc/<n>/list, what may go; gc/<n>/fate,
// what became of it; gc/<n>/done, that it was removed.
const roundRoom = "gc/"

type round struct {
	n      int
	opened time.Time // by the bucket's clock
	fate   string    // "" while it is open
	done   bool
}

func (rd round) open() bool     { return rd.fate == "" && !rd.done }
func (rd round) sweeping() bool { return rd.fate == fateSweep && !rd.done }

// roundList is what may go.
type roundList struct {
	Recipes []cas.Digest `json:"recipes"`
	Packs   []cas.Digest `json:"packs"`
}

func roundKey(n int, part string) string { return fmt.Sprintf("%s%010d/%s", roundRoom, n, part) }

// rounds lists the rounds that are remembered, ascending.
func (r *Remote) rounds(ctx context.Context) ([]round, error) {
	var all []round
	for o, err := range r.b.List(ctx, roundRoom, "") {
		if err != nil {
			return nil, err
		}
		number, part, _ := strings.Cut(strings.TrimPrefix(o.Key, roundRoom), "/")
		n := seriesNumber(number)
		if n == 0 {
			continue
		}
		if k := len(all) - 1; k < 0 || all[k].n != n {
			all = append(all, round{n: n})
		}
		rd := &all[len(all)-1]
		switch part {
		case "list":
			rd.opened = o.ModTime
		case "fate":
			if rd.done { // as keys ascend, that came before
				continue
			}
			if rd.fate, err = r.fate(ctx, n); err != nil {
				return nil, err
			}
		case "done":
			rd.done, rd.fate = true, fateSweep
		}
	}
	return all, nil
}

// fate reads what became of a round; "" if that is open.
func (r *Remote) fate(ctx context.Context, n int) (string, error) {
	b, err := readSealed(ctx, r.b, roundKey(n, "fate"))
	if errors.Is(err, cas.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	f, err := parseFate(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", roundKey(n, "fate"), err)
	}
	return f, nil
}

func parseFate(line []byte) (string, error) {
	// A token follows, so that an own object is known again.
	for _, f := range []string{fateSweep, fateVoid} {
		if strings.HasPrefix(string(line), strings.TrimSuffix(f, "}")) {
			return f, nil
		}
	}
	return "", fmt.Errorf("unknown fate: %w", cas.ErrCorrupt)
}

// decide creates the fate of a round; [cas.ErrExists] if it has one.
func (r *Remote) decide(ctx context.Context, n int, fate string) error {
	line := fmt.Sprintf(`%s,"token":%q}`, strings.TrimSuffix(fate, "}"), newToken())
	return createOwn(ctx, r.b, roundKey(n, "fate"), []byte(line))
}

// createOwn creates a sealed object whose line only the caller writes.
func createOwn(ctx context.Context, b Bucket, key string, line []byte) error {
	err := b.PutNew(ctx, key, seal(line))
	if !errors.Is(err, cas.ErrExists) {
		return err
	}
	there, rerr := readSealed(ctx, b, key)
	switch {
	case rerr == nil && string(there) == string(line):
		return nil
	case rerr == nil, errors.Is(rerr, cas.ErrNotFound), errors.Is(rerr, cas.ErrCorrupt):
		return err
	}
	return fmt.Errorf("whether %s is this call's own is not known: %w", key, rerr)
}

// roundsKept is how many ended rounds are remembered. A push that does not find
// the first that it did not see took longer than so many.
const roundsKept = 8

// openRound begins round n, and forgets old ones.
func (r *Remote) openRound(ctx context.Context, n int, l roundList) error {
	for _, list := range [][]cas.Digest{l.Recipes, l.Packs} {
		slices.SortFunc(list, func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) })
	}
	line, err := json.Marshal(struct {
		roundList
		Token string `json:"token"`
	}{l, newToken()})
	if err != nil {
		return err
	}
	err = createOwn(ctx, r.b, roundKey(n, "list"), line)
	if errors.Is(err, cas.ErrExists) {
		return fmt.Errorf("another collection began at the same time: %w", cas.ErrBusy)
	}
	if err != nil {
		return err
	}
	var old []string
	for o, err := range r.b.List(ctx, roundRoom, "") {
		if err != nil {
			return err
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(o.Key, roundRoom), "/")
		if k := seriesNumber(number); k > 0 && k <= n-roundsKept {
			old = append(old, o.Key)
		}
	}
	for _, key := range old {
		if err := r.b.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// list reads what a round lists.
func (r *Remote) list(ctx context.Context, n int) (roundList, error) {
	key := roundKey(n, "list")
	b, err := readSealed(ctx, r.b, key)
	if err != nil {
		return roundList{}, err
	}
	var l roundList
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("%s: %w: %w", key, err, cas.ErrCorrupt)
	}
	return l, nil
}

// endRound notes that all is removed.
func (r *Remote) endRound(ctx context.Context, n int) error {
	return r.b.Put(ctx, roundKey(n, "done"), seal([]byte(`{}`)))
}

// roundGuard keeps a push and collections apart.
type roundGuard struct {
	r      *Remote
	last   int          // the newest round when the push began
	before map[int]bool // rounds that had ended then
	gone   map[cas.Digest]bool
}

// guard looks at the rounds before anything is built on what the remote has.
func (r *Remote) guard(ctx context.Context) (*roundGuard, error) {
	g := &roundGuard{r: r, before: map[int]bool{}, gone: map[cas.Digest]bool{}}
	rounds, err := r.rounds(ctx)
	if err != nil {
		return nil, err
	}
	for _, rd := range rounds {
		g.last = rd.n
		if rd.done || rd.fate == fateVoid {
			g.before[rd.n] = true
		}
		if !rd.sweeping() {
			continue
		}
		// What it lists is about to go, or did: nothing is built on it.
		l, err := r.list(ctx, rd.n)
		if err != nil {
			return nil, err
		}
		for _, d := range slices.Concat(l.Recipes, l.Packs) {
			g.gone[d] = true
		}
	}
	return g, nil
}

// keep makes sure that no collection takes a recipe and its packs, before the
// recipe is written or named. [cas.ErrBusy] if one is taking some of them.
func (g *roundGuard) keep(ctx context.Context, recipe cas.Digest, packs map[cas.Digest]bool) error {
	rounds, err := g.r.rounds(ctx)
	if err != nil {
		return err
	}
	if len(rounds) > 0 && rounds[0].n > g.last+1 {
		return fmt.Errorf("many collections of the remote began and ended during this push, which may have taken what it needs; push again: %w", cas.ErrBusy)
	}
	for _, rd := range rounds {
		if g.before[rd.n] || rd.fate == fateVoid {
			continue
		}
		l, err := g.r.list(ctx, rd.n)
		if err != nil {
			return err
		}
		hit := slices.Contains(l.Recipes, recipe) || slices.ContainsFunc(l.Packs, func(d cas.Digest) bool { return packs[d] })
		if !hit {
			continue
		}
		if rd.open() {
			err := g.r.decide(ctx, rd.n, fateVoid)
			if err == nil {
				g.r.log.Debug("a collection of the remote would have taken what this push needs; it begins anew", "round", rd.n)
				continue
			}
			if !errors.Is(err, cas.ErrExists) {
				return err
			}
			if f, err := g.r.fate(ctx, rd.n); err != nil || f == fateVoid {
				if err != nil {
					return err
				}
				continue
			}
		}
		return fmt.Errorf("a collection of the remote removes what this push needs; push again when curi remote gc has ended there: %w", cas.ErrBusy)
	}
	return nil
}
