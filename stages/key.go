package stages

import (
	"encoding/hex"
	"sync"

	"github.com/zeebo/blake3"
)

// keyContext separates stage keys from every other use of BLAKE3. A new
// version of the preimage gets a context of its own.
const keyContext = "curi stage key v1"

// Key is a stage key: BLAKE3 in derive-key mode over the preimage. It is not a
// digest of stored bytes and has a type of its own.
type Key [32]byte

// String returns 64 hex digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// ParseKey parses the 64 lower-case hex digits that String returns.
func ParseKey(s string) (Key, error) {
	var k Key
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(k) || hex.EncodeToString(b) != s {
		return k, usagef("stage key %q: want 64 lower-case hex digits", s)
	}
	copy(k[:], b)
	return k, nil
}

// Key returns the key of the preimage.
func (p Preimage) Key() Key {
	h := keyHashers.Get().(*blake3.Hasher)
	defer keyHashers.Put(h)
	h.Reset()
	_, _ = h.WriteString(string(p)) // never fails
	var k Key
	h.Sum(k[:0])
	return k
}

// keyHashers are used again: one costs more than the text of a key, and a
// project may have thousands.
var keyHashers = sync.Pool{New: func() any { return blake3.NewDeriveKey(keyContext) }}
