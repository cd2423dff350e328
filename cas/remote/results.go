package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/curi-store/curi/cas"
)

// stageRoom has one ref for each stage key: the first result that was published.
const stageRoom = "refs/stage/"

// Result is the result of a stage on a remote, by the text of its key;
// [cas.ErrNotFound]. That it belongs to the key is the word of whoever wrote it:
// look at its record.
func (r *Remote) Result(ctx context.Context, key string) (RefInfo, error) {
	if _, err := cas.ParseDigest(key); err != nil {
		return RefInfo{}, fmt.Errorf("key %q: %w", key, cas.ErrInvalid)
	}
	b, err := readSealed(ctx, r.b, stageRoom+key)
	if err != nil {
		return RefInfo{}, err
	}
	return parseRef(stageRoom+key, b)
}

// OpenResult is [Open], and at the same time looks up the result of a key: one
// round trip, not two. result returns what [Remote.Result] would.
func OpenResult(ctx context.Context, b Bucket, o Options, key string) (r *Remote, result func() (RefInfo, error), err error) {
	type found struct {
		info RefInfo
		err  error
	}
	ch := make(chan found, 1)
	go func() {
		info, err := (&Remote{b: b}).Result(ctx, key)
		ch <- found{info, err}
	}()
	r, err = Open(ctx, b, o)
	f := <-ch
	return r, func() (RefInfo, error) { return f.info, f.err }, err
}

// resultRead is how much of the recipe of a result is read at once, in bytes:
// with a thousand files it still has the places of all, and of the record.
const resultRead = 256 << 10

// ResultRecipe is [Remote.Recipe], for the tree of a result: its record is one
// more request away.
func (r *Remote) ResultRecipe(ctx context.Context, root cas.Digest) (*Recipe, error) {
	return openRecipe(ctx, r.b, root, resultRead, nil)
}

// PublishResult makes info.Tree, whose recipe is there, the result of a key.
// The first one that is published stays: then isNew is false, and there is what
// the remote has.
func (r *Remote) PublishResult(ctx context.Context, key string, info RefInfo) (there RefInfo, isNew bool, err error) {
	if _, err := cas.ParseDigest(key); err != nil {
		return RefInfo{}, false, fmt.Errorf("key %q: %w", key, cas.ErrInvalid)
	}
	info.Token = newToken()
	info.Time = time.Now().UTC().Truncate(time.Millisecond)
	line, err := json.Marshal(info)
	if err != nil {
		return RefInfo{}, false, err
	}
	err = createOwn(ctx, r.b, stageRoom+key, line)
	if !errors.Is(err, cas.ErrExists) {
		return info, true, err
	}
	there, err = r.Result(ctx, key)
	return there, false, err
}
