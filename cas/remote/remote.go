package remote

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/curi-store/curi/cas"
)

// FormatVersion is the newest format of a bucket that this package reads and
// writes.
const FormatVersion = 1

// headerKey is the object that makes a bucket a remote.
const headerKey = "curi-remote.json"

// maxSmall bounds refs and other small objects, in bytes.
const maxSmall = 1 << 20

// Remote is a bucket with what Curi keeps in it. It may be used by several
// goroutines at once.
type Remote struct {
	b   Bucket
	id  string
	log *slog.Logger
}

// Options of [Open].
type Options struct {
	Create bool         // make a remote of an empty bucket
	Logger *slog.Logger // nil: discard
}

type header struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

// Open looks whether b is a remote. It fails with [cas.ErrNotFound] where it is
// none and Create is false, with [cas.ErrFormat] where another version made it.
// Closing the Remote closes b.
func Open(ctx context.Context, b Bucket, o Options) (*Remote, error) {
	r := &Remote{b: b, log: o.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	data, err := readSealed(ctx, b, headerKey)
	if errors.Is(err, cas.ErrNotFound) && o.Create {
		var id [8]byte
		rand.Read(id[:])
		fresh, _ := json.Marshal(header{FormatVersion, hex.EncodeToString(id[:]), time.Now().UTC().Truncate(time.Second)})
		if err := b.PutNew(ctx, headerKey, seal(fresh)); err != nil && !errors.Is(err, cas.ErrExists) {
			return nil, err
		}
		// Of several that do this at once, one decides the identity.
		data, err = readSealed(ctx, b, headerKey)
	}
	if errors.Is(err, cas.ErrNotFound) {
		return nil, fmt.Errorf("no remote there (%s is missing); the first push makes one: %w", headerKey, cas.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var h header
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", headerKey, err, cas.ErrCorrupt)
	}
	if h.Format != FormatVersion {
		return nil, fmt.Errorf("it has format %d, this Curi reads format %d; use a newer Curi: %w", h.Format, FormatVersion, cas.ErrFormat)
	}
	if id, err := hex.DecodeString(h.ID); err != nil || len(id) != 8 {
		return nil, fmt.Errorf("%s: id %q is not 16 hex digits: %w", headerKey, h.ID, cas.ErrCorrupt)
	}
	r.id = h.ID
	return r, nil
}

// ID is the remote's random identity, 16 hex digits.
func (r *Remote) ID() string { return r.id }

// Close ends the connections.
func (r *Remote) Close() error { return r.b.Close() }

func packKey(d cas.Digest) string   { return digestKey("packs", d) }
func recipeKey(d cas.Digest) string { return digestKey("recipes", d) }

func digestKey(room string, d cas.Digest) string {
	h := d.String()
	return room + "/" + h[:2] + "/" + h
}
