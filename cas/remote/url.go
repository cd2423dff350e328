package remote

import (
	"context"
	"fmt"
	"net/url"

	"github.com/curi-store/curi/cas"
)

// BucketOptions of [OpenURL].
type BucketOptions struct {
	// Helper is the program that speaks to object stores: a path, or a name
	// that is looked for in PATH.
	Helper string
}

// OpenURL opens the bucket at a URL ([CheckURL]).
func OpenURL(ctx context.Context, text string, o BucketOptions) (Bucket, error) {
	if err := CheckURL(text); err != nil {
		return nil, err
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		return OpenDir(u.Path), nil
	}
	return nil, fmt.Errorf("%s:// is not supported yet: %w", u.Scheme, cas.ErrInvalid)
}
