//go:build linux

package fusefs_test

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

func TestPosixOnWork(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	openPlace(t, s, m, testKey, nil)
	for name, fn := range posixtest.All {
		switch name {
		case "FcntlFlockLocksFile": // wrong about Linux; go-fuse does not run it either
			continue
		case "Tmpfile", "XAttrLarge": // skip themselves: no O_TMPFILE by design, ext4's limit
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := m.path("at", testKey[:16], "work", "a", name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			fn(t, dir)
		})
	}
}
