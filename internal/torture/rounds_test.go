package torture

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// rounds stands before an S3 server, 20 ms away, and tells how many requests
// depend on each other: each is one round later than the latest that had been
// answered when it came.
type rounds struct {
	http.Handler
	mu       sync.Mutex
	answered int
	list     []string
}

func (p *rounds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	round := p.answered + 1
	p.list = append(p.list, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Range"))
	p.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	p.Handler.ServeHTTP(w, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered = max(p.answered, round)
}

// take returns what there was since the last call.
func (p *rounds) take() (n int, list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, list = p.answered, p.list
	p.answered, p.list = 0, nil
	return n, list
}

// TestRemoteHitInThreeRounds takes a result of a thousand files from a bucket
// with a store that knows nothing of it.
func TestRemoteHitInThreeRounds(t *testing.T) {
	t.Parallel()
	to, _ := s3Bucket(t)
	server, err := url.Parse(to[strings.Index(to, "http://"):])
	if err != nil {
		t.Fatal(err)
	}
	p := &rounds{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = server.Scheme, server.Host, r.In.Host
	}, ErrorLog: log.New(io.Discard, "", 0)}} // requests that are called off
	front := httptest.NewServer(p)
	defer front.Close()
	m := twoMachinesAt(t, strings.Replace(to, server.String(), front.URL, 1))
	making := []string{"curi", "stage", "exec", "--json", "--no-mount", "--name", "make", "--out", "d=d/", "--shell", "--",
		"for i in $(seq 1000); do echo $i > {out.d}/shard-$i-of-1000.safetensors; done"}
	m.a.ok(making...)
	m.b.ok("curi", "mount", m.b.mnt)
	p.take()
	var res struct {
		Cached  bool
		Outputs map[string]struct {
			Files int
			Path  string
		}
	}
	out := m.b.ok(making...)
	n, list := p.take()
	if err := json.Unmarshal([]byte(out), &res); err != nil || !res.Cached || res.Outputs["d"].Files != 1000 {
		t.Fatalf("%v: %s", err, out)
	}
	if n > 3 || len(list) > 4 {
		t.Errorf("the hit took %d rounds:\n%s", n, strings.Join(list, "\n"))
	}
	if out := m.b.ok("cat", res.Outputs["d"].Path+"/shard-777-of-1000.safetensors"); out != "777\n" {
		t.Errorf("a file of it reads %q", out)
	}
}
