package remote

import (
	"context"
	"log/slog"
	"net/url"
)

// BucketOptions of [OpenURL].
type BucketOptions struct {
	// Helper is the program that speaks to object stores: a path, or a name
	// that is looked for in PATH.
	Helper   string
	Patience Patience
	Logger   *slog.Logger // nil: discard
}

// OpenURL opens the bucket at a URL ([CheckURL]). That of an object store
// starts the helper, which ends with the Close of the bucket or with this
// process; its requests are tried again as Patience says.
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
	b, err := openHelper(ctx, o.Helper, text)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return newPatient(b, o.Patience, o.Logger), nil
}
