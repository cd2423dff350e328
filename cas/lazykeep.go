package cas

import (
	"context"
	"sync"
	"time"
)

// keeper puts small files of a lazy tree that were read into the store, many
// at a time: making one durable costs as much as making a thousand so. What it
// has not put there yet is found in it. What is lost with the process comes
// again.
type keeper struct {
	t *LazyTree

	mu      sync.Mutex
	waiting map[Digest][]byte
	bytes   int64
	timer   *time.Timer

	flushing sync.Mutex
}

const (
	keepDelay = 300 * time.Millisecond
	keepFiles = 2048
	keepBytes = 16 << 20
)

// add takes over b, the bytes of d. It waits for the disk where that cannot
// follow.
func (k *keeper) add(d Digest, b []byte) {
	if k.put(d, b) > 4*keepBytes {
		k.run()
	}
}

// put is add without a wait, and returns how many bytes are waiting.
func (k *keeper) put(d Digest, b []byte) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.waiting == nil {
		k.waiting = map[Digest][]byte{}
	}
	if _, ok := k.waiting[d]; ok {
		return k.bytes
	}
	k.waiting[d] = b
	k.bytes += int64(len(b))
	switch {
	case len(k.waiting) >= keepFiles || k.bytes >= keepBytes:
		if k.timer != nil {
			k.timer.Stop()
		}
		k.timer = time.AfterFunc(0, k.run)
	case k.timer == nil:
		k.timer = time.AfterFunc(keepDelay, k.run)
	}
	return k.bytes
}

func (k *keeper) find(d Digest) ([]byte, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.waiting[d]
	return b, ok
}

func (k *keeper) run() {
	if err := k.flush(context.Background()); cannotWrite(err) {
		k.t.s.log.Debug("files that came from a remote are not kept", "tree", k.t.root, "err", err)
	} else if err != nil {
		k.t.s.log.Warn("files that came from a remote are not kept", "tree", k.t.root, "err", err)
	}
}

// flush puts what waits into the store, durably.
func (k *keeper) flush(ctx context.Context) error {
	k.flushing.Lock()
	defer k.flushing.Unlock()
	k.mu.Lock()
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
	batch := map[Digest][]byte{}
	for d, b := range k.waiting {
		batch[d] = b
	}
	k.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := k.store(ctx, batch)
	k.mu.Lock()
	defer k.mu.Unlock()
	for d, b := range batch {
		delete(k.waiting, d)
		k.bytes -= int64(len(b))
	}
	return err
}

func (k *keeper) store(ctx context.Context, batch map[Digest][]byte) error {
	ds := make([]Digest, 0, len(batch))
	for d := range batch {
		ds = append(ds, d)
	}
	if err := k.t.pages.NoteCame(ds...); err != nil {
		return err
	}
	in, err := k.t.s.NewIntake()
	if err != nil {
		return err
	}
	defer in.Close()
	for d, b := range batch {
		if err := in.Bytes(d, b); err != nil {
			return err
		}
	}
	return in.Flush(ctx)
}

// close puts what waits into the store, before the process ends.
func (l *lazyTrees) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.open {
		t.keep.run()
	}
}
