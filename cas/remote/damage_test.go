package remote

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// TestDamageIsReported damages every answer, or every request: no number of
// tries helps, and what is said names the object and what is wrong with it.
// Nothing of it enters a store or becomes part of the remote.
func TestDamageIsReported(t *testing.T) {
	t.Parallel()
	proxy, addr := newFaultProxy(t, s3Server(t), 7)
	b := openS3(t, addr, Patience{Wait: time.Millisecond, Tries: 4})
	r := newRemote(t, b)
	a := newStore(t)
	tree := addFiles(t, a, map[string][]byte{"large": randomBytes(1, 9<<20), "small": []byte("x")})
	other := addFiles(t, a, map[string][]byte{"other": randomBytes(2, 1<<20)})
	publish(t, r, a, "m", tree)
	rc, err := r.Recipe(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := rc.rows(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fault string
		hit   string // the room that is hurt
		is    error
		says  string
	}{
		{"flip answer", "packs/", cas.ErrCorrupt, packKey(rows[0].pack)},
		{"flip answer", "recipes/", cas.ErrCorrupt, tree.Short()},
		{"flip answer", "refs/", cas.ErrCorrupt, "refs/artifact/m/0000000001"},
		{"cut", "packs/", ErrAway, packKey(rows[0].pack)},
		{"500", "packs/", ErrAway, packKey(rows[0].pack)},
		{"drop after", "packs/", ErrAway, packKey(rows[0].pack)},
	} {
		s := newStore(t)
		proxy.hurtOnly(c.hit, 1, c.fault)
		_, err := r.Version(t.Context(), "m", 1)
		if c.hit != "refs/" {
			_, err = r.Pull(t.Context(), s, tree, PullOptions{})
		}
		proxy.hurt(0)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s of %s: %v", c.fault, c.hit, err)
		}
		if s.HasTree(tree) || proxy.count(c.fault) == 0 {
			t.Errorf("%s of %s: the tree is there, or nothing was hurt", c.fault, c.hit)
		}
	}
	proxy.hurtOnly("packs/", 1, "flip request")
	_, err = r.Push(t.Context(), a, other, PushOptions{})
	proxy.hurt(0)
	if !errors.Is(err, ErrAway) || proxy.count("flip request") == 0 {
		t.Errorf("a damaged request: %v", err)
	}
	if _, err := r.Recipe(t.Context(), other); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("what never arrived is there: %v", err)
	}
	wantWhole(t, r, a, tree)
}

// TestHang asks a server that takes requests and never answers: one try ends
// in time, and the next gets an answer.
func TestHang(t *testing.T) {
	t.Parallel()
	proxy, addr := newFaultProxy(t, s3Server(t), 7)
	b := openS3(t, addr, Patience{Wait: time.Millisecond, Tries: 3})
	newRemote(t, b)
	p := b.(*patient)
	proper := p.p.Timeout
	p.p.Timeout = 300 * time.Millisecond
	proxy.hurt(1, "hang")
	if _, err := b.Stat(t.Context(), "x"); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "no answer within 300ms") || !strings.Contains(err.Error(), "tried 3 times") {
		t.Errorf("%v", err)
	}
	proxy.hurt(0)
	p.p.Timeout = proper
	if _, err := b.Stat(t.Context(), "x"); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("afterwards: %v", err)
	}
}

// TestPushOfDamaged: bytes that changed in the store behind its back reach no
// remote under the digest that they had.
func TestPushOfDamaged(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 1000, "large": 3 << 20} {
		a := newStore(t)
		r := newRemote(t, OpenDir(t.TempDir()))
		data := randomBytes(61, size)
		tree := addFiles(t, a, map[string][]byte{"f": data})
		d := cas.Sum(data)
		path := filepath.Join(a.Dir(), "blobs", d.String()[:2], d.String())
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		data[size/2] ^= 1
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Push(t.Context(), a, tree, PushOptions{}); !errors.Is(err, cas.ErrCorrupt) || !strings.Contains(err.Error(), d.String()) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := r.Recipe(t.Context(), tree); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
