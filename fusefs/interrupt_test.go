//go:build linux

package fusefs

import (
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// On a disk no signal ends an open, a look-up or a read, and programs in C do
// not expect it. The kernel passes a signal on by an interrupt of the request,
// which is here from the start.
func TestSignalsInterruptNothing(t *testing.T) {
	s, err := cas.Open(t.Context(), filepath.Join(t.TempDir(), "store"), cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	added, err := s.AddReader(t.Context(), strings.NewReader("hello"), "f", cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	if _, _, err := s.Publish(t.Context(), "data", added.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	f, err := newFilesystem(s, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	raw := f.watch(fs.NewNodeFS(f.newRoot(), &fs.Options{RootStableAttr: &fs.StableAttr{Ino: fuse.FUSE_ROOT_ID}}))
	interrupt := make(chan struct{})
	close(interrupt)

	node := uint64(fuse.FUSE_ROOT_ID)
	for _, name := range []string{"artifacts", "data", "f"} {
		var out fuse.EntryOut
		if st := raw.Lookup(interrupt, &fuse.InHeader{NodeId: node}, name, &out); !st.Ok() {
			t.Fatalf("look-up of %s: %v", name, st)
		}
		node = out.NodeId
	}
	var out fuse.OpenOut
	in := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}, Flags: syscall.O_RDONLY}
	if st := raw.Open(interrupt, in, &out); !st.Ok() {
		t.Fatalf("open: %v", st)
	}
	r, st := raw.Read(interrupt, &fuse.ReadIn{InHeader: in.InHeader, Fh: out.Fh, Size: 4096}, make([]byte, 4096))
	if !st.Ok() || r.Size() != 5 {
		t.Errorf("read: %v", st)
	}
	raw.Release(interrupt, &fuse.ReleaseIn{InHeader: in.InHeader, Fh: out.Fh})
}
