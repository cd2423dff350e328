package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// roundBucket tells how many reads depend on each other: each is one round
// later than the latest that had ended when it began.
type roundBucket struct {
	Bucket
	mu    sync.Mutex
	ended int // the latest round of which a read has ended
	reads int
	bytes int
}

func (b *roundBucket) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	b.mu.Lock()
	round := b.ended + 1
	b.mu.Unlock()
	time.Sleep(50 * time.Millisecond) // the way, so that reads at once are at once
	n, err := b.Bucket.ReadAt(ctx, key, p, off)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = max(b.ended, round)
	b.reads++
	b.bytes += n
	return n, err
}

// resultOf10GB puts the result of a key into a bucket: a thousand files of 10
// MB, of which only the recipe says anything, and a record. It returns the tree.
func resultOf10GB(t *testing.T, b Bucket, key string, record []byte) cas.Digest {
	t.Helper()
	const files, size = 1000, 10_000_000
	newRemote(t, b)
	tree := func(entries ...cas.Entry) *recipeTree {
		tr := &cas.Tree{Entries: entries}
		enc, err := tr.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return &recipeTree{digest: cas.Sum(enc), enc: enc, tree: tr, places: make([]place, len(entries))}
	}
	var list []cas.Entry
	for i := range files {
		list = append(list, cas.Entry{Kind: cas.KindFile, Name: fmt.Sprintf("shard-%05d-of-01000.safetensors", i), Size: size, Digest: cas.Sum(fmt.Append(nil, i))})
	}
	data := append([]byte("log\n"), record...)
	model := tree(list...)
	out := tree(cas.Entry{Kind: cas.KindDir, Name: "model", Size: files * size, Digest: model.digest})
	root := tree(cas.Entry{Kind: cas.KindFile, Name: "log.txt", Size: 4, Digest: cas.Sum(data[:4])},
		cas.Entry{Kind: cas.KindDir, Name: "out", Size: files * size, Digest: out.digest},
		cas.Entry{Kind: cas.KindFile, Name: "record.json", Size: int64(len(record)), Digest: cas.Sum(record)})
	root.places[1] = place{int64(len(root.enc)), int64(len(out.enc))}
	root.places[2] = place{at: 4}
	out.places[0] = place{int64(len(root.enc) + len(out.enc)), int64(len(model.enc))}

	// One chunk is there, the others are only said to be.
	pack := cas.Sum([]byte("pack"))
	if err := b.Put(t.Context(), packKey(pack), append(make([]byte, 16), data...)); err != nil {
		t.Fatal(err)
	}
	rows := []row{{raw: len(data), digest: cas.Sum(data), spot: spot{pack: pack, off: 16, stored: len(data)}}}
	at := int64(len(data))
	for i := range model.places {
		model.places[i].at = at
		end := at + size + nodesLen(size)
		for ; at < end; at = rows[len(rows)-1].end() {
			n := int(min(64<<10, end-at))
			rows = append(rows, row{start: at, raw: n, digest: cas.Sum(fmt.Append(nil, at)),
				spot: spot{pack: cas.Sum(fmt.Append(nil, at>>26)), off: 16 + at%(32<<20), stored: n}})
		}
	}
	w := recipeWriter{rows: rows, trees: []*recipeTree{root, out, model}}
	w.head.files, w.head.bytes = files+2, files*size+int64(len(data))
	recipe, err := w.encode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(RefInfo{Tree: root.digest, Files: files + 2, Run: "train-1", Token: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for key, data := range map[string][]byte{recipeKey(root.digest): recipe, stageRoom + key: seal(line)} {
		if err := b.Put(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	return root.digest
}

// TestResultInThreeRounds: to take a result needs three reads that depend on
// each other, however large it is, and what it says of its files is known then
// without the remote.
func TestResultInThreeRounds(t *testing.T) {
	dir := t.TempDir()
	record := randomBytes(5, 60_000)
	tree := resultOf10GB(t, OpenDir(dir), leaseKey, record)
	b := &roundBucket{Bucket: OpenDir(dir)}
	r, result, err := OpenResult(t.Context(), b, Options{}, leaseKey)
	if err != nil {
		t.Fatal(err)
	}
	info, err := result()
	if err != nil || info.Tree != tree || info.Run != "train-1" {
		t.Fatalf("%+v, %v", info, err)
	}
	rc, err := r.ResultRecipe(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	n, err := rc.Lookup(t.Context(), rc.Root(), "record.json")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := rc.ReadSmall(t.Context(), n); err != nil || string(got) != string(record) {
		t.Fatalf("the record: %d bytes, %v", len(got), err)
	}
	if b.ended > 3 || b.reads > 4 || b.bytes > 400<<10 {
		t.Errorf("%d rounds, %d reads, %d bytes", b.ended, b.reads, b.bytes)
	}

	s := newStore(t)
	if err := rc.Keep(t.Context(), s, "team"); err != nil {
		t.Fatal(err)
	}
	if err := (Config{Name: "team", URL: "file://" + dir, Policy: ByHand}).Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	reader := NewReader(s, BucketOptions{})
	reader.Offline()
	defer reader.Close()
	s.UseRemotes(reader)
	added, err := s.Adopt(t.Context(), "team", tree)
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	var files, size int64
	err = s.Walk(t.Context(), tree, func(_ string, e cas.Entry) error {
		if e.IsRegular() {
			files, size = files+1, size+e.Size
		}
		return nil
	})
	if err != nil || files != 1002 || size != 10_000_000_000+4+int64(len(record)) {
		t.Errorf("%d files of %d bytes are known: %v", files, size, err)
	}
	if _, err := s.OpenBlob(t.Context(), cas.Sum([]byte("log\n"))); !errors.Is(err, ErrAway) {
		t.Errorf("what was not read, without the remote: %v", err)
	}

	// A key that has no result costs one round.
	b.ended = 0
	_, result, err = OpenResult(t.Context(), b, Options{}, leaseKey[:63]+"b")
	if _, rerr := result(); err != nil || !errors.Is(rerr, cas.ErrNotFound) || b.ended != 1 {
		t.Errorf("a miss: %v, %v, %d rounds", err, rerr, b.ended)
	}
}
