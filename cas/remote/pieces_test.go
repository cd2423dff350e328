package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"
	"unsafe"

	"github.com/curi-store/curi/cas"
)

// gathered is what comes in pieces, copied: a piece is lent for the call.
type gathered struct {
	b     []byte
	sizes []int
}

func (g *gathered) take(p []byte) error {
	g.b, g.sizes = append(g.b, p...), append(g.sizes, len(p))
	return nil
}

// within reports whether bytes lie in the memory that a helper shares.
func within(mem *shared, p []byte) bool {
	at, lo := uintptr(unsafe.Pointer(&p[0])), uintptr(unsafe.Pointer(&mem.mem[0]))
	return at >= lo && at < lo+uintptr(len(mem.mem))
}

func freeSlots(mem *shared) int {
	mem.mu.Lock()
	defer mem.mu.Unlock()
	return len(mem.free)
}

// TestPieces reads more in pieces than the ring of a real helper has room for,
// by several at once.
func TestPieces(t *testing.T) {
	t.Parallel()
	b := openS3(t, s3Server(t), Patience{})
	data := randomBytes(3, packSize)
	if err := b.Put(t.Context(), "packs/x", data); err != nil {
		t.Fatal(err)
	}
	mem := b.(*patient).Bucket.(*helperBucket).mem
	// The last one has nearly all of the object, which is asked for whole.
	at := []span{{0, slotLeast}, {5, 5 + 3*pieceSize}, {12345, 12345 + 2*ringSize + 77}, {packHeader, packSize - 4321}}
	// More at once than there are slots, the rest of them without.
	err := each(t.Context(), 3*len(at), 3*len(at), func(ctx context.Context, i int) error {
		s, g := at[i%len(at)], gathered{}
		shared := false
		err := readPieces(ctx, b, "packs/x", s.lo, s.hi-s.lo, func(p []byte) error {
			shared = within(mem, p)
			return g.take(p)
		})
		if err != nil || !bytes.Equal(g.b, data[s.lo:s.hi]) {
			return fmt.Errorf("%v: %d bytes, %w", s, len(g.b), err)
		}
		for k, n := range g.sizes[:len(g.sizes)-1] {
			if n != pieceSize && shared {
				t.Errorf("%v: piece %d has %d bytes", s, k, n)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// An error of who takes them ends it; the slot is not lost.
	enough := errors.New("enough")
	for i := range 2 * slots {
		n := 0
		err := readPieces(t.Context(), b, "packs/x", 0, packSize, func(p []byte) error {
			if n++; n == 1+i%7 {
				return enough
			}
			return nil
		})
		if err != enough {
			t.Fatalf("ended by %v", err)
		}
	}
	for end := time.Now().Add(10 * time.Second); freeSlots(mem) != slots; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d slots are free", freeSlots(mem))
		}
	}
	// The end of the object, and none.
	g := gathered{}
	if err := readPieces(t.Context(), b, "packs/x", packSize-2*pieceSize, 3*pieceSize, g.take); err != io.EOF || !bytes.Equal(g.b, data[packSize-2*pieceSize:]) {
		t.Errorf("at the end: %d bytes, %v", len(g.b), err)
	}
	if err := readPieces(t.Context(), b, "packs/y", 0, pieceSize, g.take); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	if err := packPieces(t.Context(), b, cas.Sum(nil), 0, pieceSize, g.take); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("of no pack: %v", err)
	}
}

// fickleBucket hands out pieces, and now and then breaks off, as it is told.
type fickleBucket struct {
	Bucket
	data []byte
	most int           // pieces at once
	slow time.Duration // before each try
	from []int64       // where it was asked to begin
}

func (b *fickleBucket) readPieces(ctx context.Context, key string, off, n int64, got func([]byte) error) error {
	b.from = append(b.from, off)
	select {
	case <-time.After(b.slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	for i := 0; n > 0; i++ {
		if i == b.most {
			<-ctx.Done() // it hangs
			return ctx.Err()
		}
		k := min(n, pieceSize)
		if err := got(b.data[off : off+k]); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// TestPiecesAgain: a read that breaks off goes on where it was, as often as
// something comes; one of which nothing comes ends. Whoever takes the pieces has
// all the time he wants.
func TestPiecesAgain(t *testing.T) {
	t.Parallel()
	data := randomBytes(1, 7*pieceSize+100)
	for _, overLink := range []bool{false, true} {
		fickle := &fickleBucket{data: data, most: 2}
		var b Bucket = newPatient(fickle, Patience{Tries: 2, Timeout: 50*time.Millisecond - pieceSize/slowBytes*time.Second, Wait: time.Millisecond}, slog.New(slog.DiscardHandler))
		if overLink {
			b = linkTo(b)
		}
		g := gathered{}
		err := readPieces(t.Context(), b, "packs/x", 10, int64(len(data))-10, func(p []byte) error {
			time.Sleep(60 * time.Millisecond) // longer than a piece may take
			return g.take(p)
		})
		if err != nil || !bytes.Equal(g.b, data[10:]) {
			t.Fatalf("%d bytes, %v", len(g.b), err)
		}
		want := []int64{10, 10 + 2*pieceSize, 10 + 4*pieceSize, 10 + 6*pieceSize}
		if fmt.Sprint(fickle.from) != fmt.Sprint(want) {
			t.Errorf("began at %d, want %d", fickle.from, want)
		}
		*fickle = fickleBucket{data: data}
		if err := readPieces(t.Context(), b, "packs/x", 0, pieceSize, g.take); !errors.Is(err, ErrAway) || len(fickle.from) != 2 {
			t.Errorf("of what never comes: %v after %d tries", err, len(fickle.from))
		}
	}
}

// TestLinkBackByPieces: that a remote is back is known with the first piece.
func TestLinkBackByPieces(t *testing.T) {
	t.Parallel()
	l := linkTo(&fickleBucket{data: randomBytes(1, 2*pieceSize), most: 9})
	l.away = away{err: ErrAway, wait: time.Second, until: time.Now()}
	err := readPieces(t.Context(), l, "packs/x", 0, 2*pieceSize, func([]byte) error {
		return readPieces(t.Context(), l, "packs/y", 0, 1, func([]byte) error { return nil })
	})
	if err != nil {
		t.Error(err)
	}
}
