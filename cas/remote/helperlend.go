package remote

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/curi-store/curi/cas"
)

// lend lends the answer.
func (c *helperConn) lend(ctx context.Context, key string, off int64, n int) (loan, error) {
	if err := CheckKey(key); err != nil {
		return loan{}, err
	}
	if slot, ok := c.mem.take(n); ok {
		return c.lendSlot(ctx, slot, key, off, n)
	}
	got, err := c.ask(ctx, askRead, appendNums(appendText(nil, key), off, int64(n)))
	if err != nil && !errors.Is(err, io.EOF) {
		return loan{}, err
	}
	if len(got) > n || len(got) < n && err == nil {
		return loan{}, fmt.Errorf("read %s: %d bytes came for %d: %w", key, len(got), n, cas.ErrCorrupt)
	}
	return loan{got, func() { putBody(got) }}, err
}

// lendSlot lends a slot of the shared memory, which the helper fills.
func (c *helperConn) lendSlot(ctx context.Context, slot int, key string, off int64, n int) (loan, error) {
	give := func() { c.mem.give(slot) }
	body := appendNums(appendText(appendNums(nil, int64(slot*slotSize)), key), off, int64(n))
	k, err := c.begin(ctx, askInto, body)
	if err != nil {
		give() // the helper was not asked
		return loan{}, err
	}
	f, err := k.wait(ctx)
	if !k.done {
		k.late(slot)
		k.end()
		return loan{}, err
	}
	k.end()
	if err != nil && !errors.Is(err, io.EOF) {
		give()
		return loan{}, err
	}
	d := &decoder{b: f.body}
	have := int(d.num(int64(n)))
	if derr := d.end(); derr != nil || have < n && err == nil {
		give()
		return loan{}, fmt.Errorf("read %s: %d bytes came for %d: %w", key, have, n, cas.ErrCorrupt)
	}
	return loan{c.mem.bytes(slot, have), give}, err
}

// late leaves the slot to the answer, which may still come.
func (k *call) late(slot int) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	for len(k.answer) > 0 {
		f := <-k.answer
		k.done = k.done || f.kind != saidMore
	}
	if k.done || k.c.err != nil {
		k.c.mem.give(slot)
		return
	}
	k.c.late[k.id] = slot
}
