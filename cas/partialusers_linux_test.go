package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

func init() { childRoles["reader of a remote"] = readerOfARemote }

const partialUsersSize = 3 << 20

// readerOfARemote brings a part of a blob: args are the files of its bytes and
// nodes, and how far the part goes. What is whole it makes a blob, unless it is
// to die on the way.
func readerOfARemote(ctx context.Context, s *Store, args []string) error {
	syscall.Umask(0o077)
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	nodes, err := os.Open(args[1])
	if err != nil {
		return err
	}
	to, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	p, err := s.OpenPartial(ctx, Sum(b), int64(len(b)))
	if err != nil {
		return err
	}
	if lo, hi := p.Missing(0, int64(to)); lo != hi {
		if err := p.Add(b[lo:hi], lo, nodes); err != nil {
			return err
		}
	}
	fmt.Println("has", p.Local())
	switch {
	case args[3] == "dies":
		return p.data.Chmod(blobMode)
	case p.Whole():
		return p.Promote(ctx)
	}
	return nil
}

// What one member of a group began to read, or died over, another goes on with.
func TestTwoUsersReadOneBlob(t *testing.T) {
	exe, top := publicExe(t)
	b, d, nodes := partialBlob(t, partialUsersSize)
	proof, err := io.ReadAll(nodes)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"bytes": b, "nodes": proof} {
		if err := os.WriteFile(filepath.Join(top, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, uids := range map[string][2]uint32{"another": {60001, 60002}, "the same": {60001, 60001}} {
		t.Run(name, func(t *testing.T) {
			const group = 54321
			s, err := Open(t.Context(), filepath.Join(top, "store "+name), Options{Create: true, Group: strconv.Itoa(group)})
			if err != nil {
				t.Fatal(err)
			}
			member := func(uid uint32, to int, then string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), exe, s.Dir(), top+"/bytes", top+"/nodes", strconv.Itoa(to), then)
				cmd.Dir = "/"
				cmd.Env = append(os.Environ(), childRole+"=reader of a remote")
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid + 1000, Groups: []uint32{group}}}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("as user %d: %v: %s", uid, err, out)
				}
			}
			member(uids[0], 1<<20, "ends")
			if uids[0] == uids[1] {
				member(uids[0], partialUsersSize, "dies")
			}
			member(uids[1], partialUsersSize, "ends")
			f, err := s.OpenBlob(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if rep, err := s.Verify(t.Context(), VerifyOptions{}); err != nil || len(rep.Bad) > 0 || rep.BlobsChecked != 1 {
				t.Errorf("verify: %+v, %v", rep, err)
			}
			if fi, err := os.Lstat(s.blobPath(d)); err != nil || fi.Mode().Perm() != blobMode {
				t.Errorf("the blob: %v, %v", fi, err)
			}
			for _, suffix := range []string{"", ".map", ".outboard"} {
				if _, err := os.Lstat(s.partialPath(d) + suffix); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("left in partial: %q, %v", suffix, err)
				}
			}
		})
	}
}
