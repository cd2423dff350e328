package torture

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// narrow stands before an S3 server, at the end of a line of some 25 MB/s, and
// counts what it sends of packs.
type narrow struct {
	httputil.ReverseProxy
	sent atomic.Int64
}

func newNarrow(t *testing.T, to string) (p *narrow, remote string) {
	t.Helper()
	p = &narrow{}
	p.FlushInterval = -1
	p.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == http.MethodGet && strings.Contains(r.Request.URL.Path, "/packs/") {
			r.Body = &narrowBody{r.Body, p}
		}
		return nil
	}
	return p, before(t, to, &p.ReverseProxy)
}

// before lets a proxy stand before the S3 server of a remote's URL, and returns
// the URL that leads through it.
func before(t *testing.T, to string, p *httputil.ReverseProxy) (remote string) {
	t.Helper()
	server, err := url.Parse(to[strings.Index(to, "http://"):])
	if err != nil {
		t.Fatal(err)
	}
	p.Rewrite = func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = server.Scheme, server.Host, r.In.Host
	}
	p.ErrorLog = log.New(io.Discard, "", 0) // requests that are called off
	front := httptest.NewServer(p)
	t.Cleanup(front.Close)
	return strings.Replace(to, server.String(), front.URL, 1)
}

type narrowBody struct {
	io.ReadCloser
	p *narrow
}

func (b *narrowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), 64<<10)])
	b.p.sent.Add(int64(n))
	time.Sleep(2500 * time.Microsecond)
	return n, err
}
