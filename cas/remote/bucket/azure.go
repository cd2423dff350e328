package bucket

import (
	"context"
	"fmt"
	"net/url"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://
)

func (b *bucket) openAzure(ctx context.Context, u *url.URL) error {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, RawQuery: u.RawQuery}
	var err error
	if b.blob, err = blob.OpenBucket(ctx, plain.String()); err != nil {
		return noCredentials(b.name, azureChain, fmt.Errorf("%s", brief(err)))
	}
	b.put = b.upload
	return nil
}
