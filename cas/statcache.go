package cas

import (
	"encoding/binary"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/curi-store/curi/internal/fault"
)

// A statCache remembers the digests of files by what stat says of them, so
// that a file which did not change since the last add is not read again. It is
// derived: STORE/index/files/<0-3f>, one file for every 64th inode, each
//
//	"curistat" version    8 + 1 bytes, version 1
//	record*               80 bytes each: dev, inode, size, mtime, ctime, time of the
//	                      record (ns since 1970), little-endian, then the digest
//	digest                BLAKE3 of all before
//
// What does not parse is as good as not there. Of two processes that write one
// at once, one wins; the loser's files are read again.
//
// A file that was changed less than racyTime before it was read could change
// again without a new time, so it is not remembered. Nor is one on a filesystem
// that makes up inode numbers or times ([lastingInodes]): another file may have
// the same ones tomorrow.
type statCache struct {
	dir    string
	write  func(path string, data []byte) error
	start  int64 // when this add began, ns since 1970
	mu     sync.Mutex
	shards [statShards]*statShard
	lasts  map[uint64]bool // by device: whether its files are remembered
}

const (
	statMagic     = "curistat\x01"
	statRecord    = 6*8 + DigestSize
	statShards    = 64
	statShardSize = 16384 // records kept in one shard; 80 MiB in all

	racyTime = 2 * time.Second
)

type fileID struct{ dev, ino uint64 }

type statShard struct {
	known   map[fileID]statEntry
	changed bool
}

type statEntry struct {
	size, mtime, ctime, seen int64
	digest                   Digest
}

func (s *Store) openStatCache() *statCache {
	return &statCache{
		dir:   filepath.Join(s.dir, "index", "files"),
		start: fault.Now().UnixNano(),
		lasts: map[uint64]bool{},
		write: func(path string, data []byte) error {
			tmp, err := s.stageBytes(data, s.smallFileMode(), false)
			if err != nil {
				return err
			}
			defer tmp.Close()
			if err := s.rename(tmp.Name(), path); err != nil {
				os.Remove(tmp.Name())
				return err
			}
			return nil
		},
	}
}

func shardOf(id fileID) int {
	h := fnv.New64a()
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], id.dev)
	binary.LittleEndian.PutUint64(b[8:], id.ino)
	h.Write(b[:])
	return int(h.Sum64() % statShards)
}

func (c *statCache) path(i int) string { return filepath.Join(c.dir, strconv.FormatInt(int64(i), 16)) }

// shard returns a shard, read at its first use. Called with mu held.
func (c *statCache) shard(i int) *statShard {
	if c.shards[i] == nil {
		b, _ := os.ReadFile(c.path(i))
		c.shards[i] = &statShard{known: parseStatShard(b)}
	}
	return c.shards[i]
}

func parseStatShard(b []byte) map[fileID]statEntry {
	m := map[fileID]statEntry{}
	n := len(b) - len(statMagic) - DigestSize
	if n < 0 || n%statRecord != 0 || n/statRecord > statShardSize || string(b[:len(statMagic)]) != statMagic {
		return m
	}
	if body := len(b) - DigestSize; Sum(b[:body]) != Digest(b[body:]) {
		return m
	}
	for r := b[len(statMagic) : len(b)-DigestSize]; len(r) > 0; r = r[statRecord:] {
		u := func(i int) uint64 { return binary.LittleEndian.Uint64(r[8*i:]) }
		m[fileID{u(0), u(1)}] = statEntry{int64(u(2)), int64(u(3)), int64(u(4)), int64(u(5)), Digest(r[48:statRecord])}
	}
	return m
}

func (sh *statShard) encode() []byte {
	ids := make([]fileID, 0, len(sh.known))
	for id := range sh.known {
		ids = append(ids, id)
	}
	if len(ids) > statShardSize { // those seen last stay
		slices.SortFunc(ids, func(a, b fileID) int { return int(min(max(sh.known[b].seen-sh.known[a].seen, -1), 1)) })
		ids = ids[:statShardSize]
	}
	b := make([]byte, 0, len(statMagic)+len(ids)*statRecord+DigestSize)
	b = append(b, statMagic...)
	for _, id := range ids {
		e := sh.known[id]
		for _, v := range []uint64{id.dev, id.ino, uint64(e.size), uint64(e.mtime), uint64(e.ctime), uint64(e.seen)} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		b = append(b, e.digest[:]...)
	}
	sum := Sum(b)
	return append(b, sum[:]...)
}

// lookup returns the digest of the file n if it is as it was when it was read last.
func (c *statCache) lookup(n *node) (Digest, bool) {
	if c == nil {
		return Digest{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &n.state
	id := fileID{st.dev, st.ino}
	e, ok := c.shard(shardOf(id)).known[id]
	if !ok || e.size != st.size || e.mtime != st.mtime || e.ctime != st.ctime || !c.remembers(n) {
		return Digest{}, false
	}
	return e.digest, true
}

// record remembers what was read of the file n; its state is that before and after.
func (c *statCache) record(n *node, d Digest) {
	if c == nil || max(n.state.mtime, n.state.ctime) > c.start-int64(racyTime) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.remembers(n) {
		return
	}
	st := &n.state
	id := fileID{st.dev, st.ino}
	sh := c.shard(shardOf(id))
	sh.known[id] = statEntry{st.size, st.mtime, st.ctime, c.start, d}
	sh.changed = true
}

// remembers reports whether files of n's filesystem are remembered. Called
// with mu held.
func (c *statCache) remembers(n *node) bool {
	lasts, known := c.lasts[n.state.dev]
	if !known {
		lasts = lastingInodes(n.path())
		c.lasts[n.state.dev] = lasts
	}
	return lasts
}

// forget drops what is known of a file.
func (c *statCache) forget(st fileState) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := fileID{st.dev, st.ino}
	sh := c.shard(shardOf(id))
	delete(sh.known, id)
	sh.changed = true
}

// save writes what changed. A failure costs reading again, so it is none.
func (c *statCache) save() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, sh := range c.shards {
		if sh != nil && sh.changed {
			if c.write(c.path(i), sh.encode()) != nil {
				return
			}
			sh.changed = false
		}
	}
}
