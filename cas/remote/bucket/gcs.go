package bucket

import (
	"context"
	"net/url"
	"os"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
)

func (b *bucket) openGCS(ctx context.Context, u *url.URL) error {
	var err error
	var client *gcp.HTTPClient
	if os.Getenv("STORAGE_EMULATOR_HOST") != "" {
		// As Google's own library has it: an emulator asks for no credentials.
		client = gcp.NewAnonymousHTTPClient(gcp.DefaultTransport())
	} else {
		creds, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return noCredentials(b.name, gcsChain, err)
		}
		if client, err = gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(creds)); err != nil {
			return err
		}
	}
	if b.blob, err = gcsblob.OpenBucket(ctx, client, u.Host, nil); err != nil {
		return err
	}
	// Who uses the bucket tries again, within a budget of his own.
	var c *storage.Client
	if b.blob.As(&c) {
		c.SetRetry(storage.WithPolicy(storage.RetryNever))
	}
	b.put = b.upload
	b.after = func(key string) func(func(any) bool) error {
		return func(as func(any) bool) error {
			var q *storage.Query
			if as(&q) {
				q.StartOffset = key // itself included, which is left out here
			}
			return nil
		}
	}
	return nil
}
