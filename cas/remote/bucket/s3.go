package bucket

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"gocloud.dev/blob/s3blob"

	"github.com/curi-store/curi/cas"
)

const (
	// connectTimeout is how long an attempt to connect may take: a store that
	// is away is told soon.
	connectTimeout = 5 * time.Second
	// socketBuffer is how much is read of and written to a connection at once.
	socketBuffer = 128 << 10
	// probeAfter is how long a connection may say nothing before it is asked
	// whether it is still one.
	probeAfter = 5 * time.Second
	// connections that are kept open; more are made when they are needed.
	connections = 64
)

func (b *bucket) openS3(ctx context.Context, u *url.URL) error {
	q := u.Query()
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) {
			d.Timeout = connectTimeout
			// A server that forgot a connection while the line was cut says so to
			// the first probe; one that says nothing is given up.
			d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeAfter, Count: 4}
		}).
		WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConns, t.MaxIdleConnsPerHost = connections, connections
			t.ReadBufferSize, t.WriteBufferSize = socketBuffer, socketBuffer
		})
	o := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		// Who uses the bucket tries again, within a budget of his own.
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		// What it would log may hold parts of requests.
		config.WithLogger(logging.Nop{}),
	}
	if r := q.Get("region"); r != "" {
		o = append(o, config.WithRegion(r))
	}
	if p := q.Get("profile"); p != "" {
		o = append(o, config.WithSharedConfigProfile(p))
	}
	cfg, err := config.LoadDefaultConfig(ctx, o...)
	if err != nil {
		return fmt.Errorf("%s: configuration: %s: %w", b.name, brief(err), cas.ErrInvalid)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1" // servers other than Amazon's do not mind
	}
	if cfg.Credentials == nil {
		return noCredentials(b.name, s3Chain, nil)
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return noCredentials(b.name, s3Chain, err)
	}
	s := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.DisableLogOutputChecksumValidationSkipped = true
		// What is read is compared with its digest by who asks for it.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if e := q.Get("endpoint"); e != "" {
			o.BaseEndpoint = &e
		}
		// Names of buckets are no host names there.
		o.UsePathStyle = o.BaseEndpoint != nil
	})
	if b.blob, err = s3blob.OpenBucket(ctx, s, u.Host, nil); err != nil {
		return err
	}
	b.put = func(ctx context.Context, key string, data []byte, isNew bool) error {
		// One request, whatever the size: of several servers only that makes
		// If-None-Match hold for large objects.
		in := &s3.PutObjectInput{Bucket: &u.Host, Key: &key, Body: bytes.NewReader(data), ContentType: aws.String(contentType)}
		if isNew {
			in.IfNoneMatch = aws.String("*")
		}
		_, err := s.PutObject(ctx, in)
		return err
	}
	b.after = func(key string) func(func(any) bool) error {
		return func(as func(any) bool) error {
			var in *s3.ListObjectsV2Input
			if as(&in) {
				in.StartAfter = &key
			}
			return nil
		}
	}
	return nil
}
