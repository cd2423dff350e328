package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/curi-store/curi/cas"
)

// TestShared reads more at once than the memory that a real helper shares has
// slots.
func TestShared(t *testing.T) {
	t.Parallel()
	b := openS3(t, s3Server(t), Patience{})
	data := randomBytes(3, 3<<20)
	if err := b.Put(t.Context(), "packs/x", data); err != nil {
		t.Fatal(err)
	}
	mem := b.(*patient).Bucket.(*helperBucket).mem
	if mem == nil {
		t.Fatal("the helper shares no memory")
	}
	var loans []loan
	for i := range slots + 3 {
		off, n := int64(i*4321), 2<<20
		l, err := lend(t.Context(), b, "packs/x", off, n)
		if err != nil || !bytes.Equal(l.b, data[off:off+int64(n)]) {
			t.Fatalf("loan %d: %d bytes, %v", i, len(l.b), err)
		}
		if within(mem, l.b) != (i < slots) {
			t.Errorf("loan %d lies in the memory: %v", i, within(mem, l.b))
		}
		loans = append(loans, l)
	}
	for i, l := range loans[:slots+2] {
		if off := i * 4321; !bytes.Equal(l.b, data[off:off+2<<20]) {
			t.Errorf("loan %d changed", i)
		}
		l.back()
	}
	// The end of an object, and none.
	l, err := lend(t.Context(), b, "packs/x", 2<<20, 2<<20)
	if !errors.Is(err, io.EOF) || !bytes.Equal(l.b, data[2<<20:]) || !within(mem, l.b) {
		t.Errorf("at the end: %d bytes, %v", len(l.b), err)
	}
	if _, err := lend(t.Context(), b, "packs/y", 0, 2<<20); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	// What is lent stays when the helper is gone.
	b.Close()
	if !bytes.Equal(l.b, data[2<<20:]) {
		t.Error("it changed when the helper ended")
	}
	l.back()
	if mem.mem != nil {
		t.Error("the memory stays")
	}
}

// TestSharedLate: the slot of a request that was called off is taken again only
// after the helper answered, as it may write into it until then.
func TestSharedLate(t *testing.T) {
	askR, askW := io.Pipe()
	sayR, sayW := io.Pipe()
	c := newHelperConn(askW)
	mem, err := newShared()
	if err != nil {
		t.Fatal(err)
	}
	c.share(mem)
	ended := make(chan struct{})
	go func() { defer close(ended); c.broken(c.read(sayR)) }()
	ctx, cancel := context.WithCancel(t.Context())
	gave := make(chan error)
	go func() { _, err := c.lend(ctx, "k", 0, slotLeast); gave <- err }()
	in := bufio.NewReader(askR)
	f, err := readFrame(in)
	if err != nil || f.kind != askInto {
		t.Fatalf("asked %d, %v", f.kind, err)
	}
	cancel()
	if off, err := readFrame(in); err != nil || off.kind != askCancel || off.id != f.id {
		t.Fatalf("asked %d, %v", off.kind, err)
	}
	if err := <-gave; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := writeFrame(sayW, f.id, saidMore, appendNums(nil, 5)); err != nil { // that is not the answer
		t.Fatal(err)
	}
	settle := func() { // what was said before is read
		t.Helper()
		go func() {
			if f, err := readFrame(in); err == nil {
				_ = writeFrame(sayW, f.id, saidOK)
			}
		}()
		if _, err := c.ask(t.Context(), askDelete, nil); err != nil {
			t.Fatal(err)
		}
	}
	settle()
	if n := freeSlots(mem); n != slots-1 {
		t.Errorf("%d slots are free while the helper may write into one", n)
	}
	if err := writeFrame(sayW, f.id, saidOK, appendNums(nil, slotLeast)); err != nil {
		t.Fatal(err)
	}
	settle()
	if n := freeSlots(mem); n != slots {
		t.Errorf("%d slots are free after its answer", n)
	}
	sayW.Close()
	<-ended
	if mem.mem != nil {
		t.Error("the memory stays when the helper is gone")
	}
	if _, ok := mem.take(slotLeast); ok {
		t.Error("a slot without memory was given")
	}
	askR.Close()
}
