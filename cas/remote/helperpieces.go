package remote

import (
	"context"
	"fmt"

	"github.com/curi-store/curi/cas"
)

// Pieces come through a ring at the beginning of a slot.
const (
	ringPieces = 4
	ringSize   = ringPieces * pieceSize
)

// readPieces hands out pieces in the memory that the helper fills.
func (c *helperConn) readPieces(ctx context.Context, key string, off, n int64, got func([]byte) error) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	slot, ok := 0, false
	if n >= slotLeast && n <= maxPack {
		slot, ok = c.mem.take(ringSize)
	}
	if !ok {
		return readSegments(ctx, c, key, off, n, got)
	}
	k, err := c.beginMany(ctx, ringPieces+1, askPieces, appendNums(appendText(appendNums(nil, int64(slot*slotSize)), key), off, n))
	if err != nil {
		c.mem.give(slot) // the helper was not asked
		return err
	}
	defer k.end()
	err = c.pieces(ctx, k, slot, key, n, got)
	if !k.done {
		k.late(slot)
	} else {
		c.mem.give(slot)
	}
	return err
}

// pieces hands out what a call brings.
func (c *helperConn) pieces(ctx context.Context, k *call, slot int, key string, n int64, got func([]byte) error) error {
	for i := 0; ; i++ {
		f, err := k.wait(ctx)
		if err != nil {
			return err
		}
		if k.done && n == 0 {
			return nil
		}
		d := &decoder{b: f.body}
		have := d.num(pieceSize)
		if err := d.end(); err != nil || k.done || have != min(n, pieceSize) {
			return fmt.Errorf("read %s: a piece of %d bytes came, %d lack: %w", key, have, n, cas.ErrCorrupt)
		}
		n -= have
		if err := got(c.mem.bytes(slot, ringSize)[i%ringPieces*pieceSize:][:have]); err != nil {
			return err
		}
		if n > 0 {
			if err := c.send(ctx, k.id, askMore); err != nil {
				return err
			}
		}
	}
}
