package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// faultProxy stands before the S3 server and does to requests what networks
// and overloaded servers do.
type faultProxy struct {
	server string // HOST:PORT

	mu     sync.Mutex
	random *rand.Rand
	rate   float64           // how many of the requests are hurt
	only   string            // of those, whose path has this in it
	faults []string          // which of the faults
	did    map[string]int    // how often each
	lists  map[string][]byte // old answers to listings
}

// The faults that end by themselves, each done to one request.
var allFaults = []string{
	"latency", "drop before", "drop after", "cut", "flip answer", "flip request", "500", "503", "stale list",
}

func newFaultProxy(t *testing.T, server string, seed uint64) (*faultProxy, string) {
	t.Helper()
	p := &faultProxy{server: server, random: rand.New(rand.NewPCG(seed, 1)), did: map[string]int{}, lists: map[string][]byte{}}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return p, strings.TrimPrefix(s.URL, "http://")
}

// hurt sets what happens from now on.
func (p *faultProxy) hurt(rate float64, faults ...string) { p.hurtOnly("", rate, faults...) }

// hurtOnly sets it for requests whose path has only in it.
func (p *faultProxy) hurtOnly(only string, rate float64, faults ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.only, p.rate, p.faults = only, rate, faults
}

// pick chooses what happens to one request.
func (p *faultProxy) pick(path string) (fault string, at float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.faults) == 0 || !strings.Contains(path, p.only) || p.random.Float64() >= p.rate {
		return "", 0
	}
	return p.faults[p.random.IntN(len(p.faults))], p.random.Float64()
}

func (p *faultProxy) happened(fault string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.did[fault]++
}

// count is how often a fault happened.
func (p *faultProxy) count(fault string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.did[fault]
}

func drop(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

func flip(b []byte, at float64) bool {
	if len(b) == 0 {
		return false
	}
	i := int(at * float64(len(b)))
	b[i] ^= 1 << (i % 8)
	return true
}

func (p *faultProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	fault, at := p.pick(r.URL.Path)
	listing := r.Method == http.MethodGet && r.URL.Query().Has("list-type")
	switch fault {
	case "latency":
		p.happened(fault)
		time.Sleep(time.Duration(at * float64(100*time.Millisecond)))
	case "hang":
		p.happened(fault)
		<-r.Context().Done()
		return
	case "drop before":
		p.happened(fault)
		drop(w)
		return
	case "500", "503":
		p.happened(fault)
		status, code := http.StatusInternalServerError, "InternalError"
		if fault == "503" {
			status, code = http.StatusServiceUnavailable, "SlowDown"
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>made by a test</Message></Error>`, code)
		return
	case "flip request":
		if flip(body, at) {
			p.happened(fault)
		}
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", p.server, ""
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	res, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		drop(w)
		return
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		drop(w)
		return
	}
	if listing && res.StatusCode == http.StatusOK {
		p.mu.Lock()
		key := r.URL.RawQuery
		if old, ok := p.lists[key]; ok && fault == "stale list" && !bytes.Equal(old, answer) {
			p.did[fault]++
			answer = old
		} else if !ok {
			p.lists[key] = answer
		}
		p.mu.Unlock()
	}
	switch fault {
	case "drop after":
		p.happened(fault)
		drop(w)
		return
	case "flip answer":
		if r.Method == http.MethodGet && res.StatusCode < 300 && !listing && flip(answer, at) {
			p.happened(fault)
		}
	}
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
	if r.Method == http.MethodHead {
		w.Header()["Content-Length"] = res.Header["Content-Length"]
	}
	w.WriteHeader(res.StatusCode)
	if (fault == "cut" || fault == "stall") && r.Method == http.MethodGet && len(answer) > 0 {
		p.happened(fault)
		_, _ = w.Write(answer[:int(at*float64(len(answer)))])
		w.(http.Flusher).Flush()
		if fault == "stall" {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(answer)
}

// TestFaults pushes and pulls while everything goes wrong that a network and a
// server can do. It ends in the right bytes, or in an error; never in wrong ones.
func TestFaults(t *testing.T) {
	t.Parallel()
	proxy, addr := newFaultProxy(t, s3Server(t), 7)
	b := openS3(t, addr, Patience{Wait: time.Millisecond, Tries: 20})
	r := newRemote(t, b)
	a := newStore(t)
	files := map[string][]byte{"empty": nil, "large": randomBytes(1, 9<<20), "floats": normals(600_000)}
	for i := range 120 {
		files[fmt.Sprintf("d%d/f%d", i%7, i)] = randomBytes(uint64(1000+i), 10+i*57)
	}
	tree := addFiles(t, a, files)
	files["large"] = append(files["large"], "more"...)
	second := addFiles(t, a, files)
	proxy.hurt(0.5, allFaults...)
	for n, tree := range []cas.Digest{tree, second, tree} {
		p, err := r.Push(t.Context(), a, tree, PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		v, _, err := r.Publish(t.Context(), "model", RefInfo{Tree: tree, Bytes: p.Bytes, Files: p.Files})
		if err != nil || v.N != n+1 {
			t.Fatalf("version %d: %v", v.N, err)
		}
	}
	for range 4 {
		s := newStore(t)
		for _, tree := range []cas.Digest{tree, second} {
			added, err := r.Pull(t.Context(), s, tree, PullOptions{})
			if err != nil {
				t.Fatal(err)
			}
			added.Release()
		}
		sameTree(t, tree, a, s)
		sameTree(t, second, a, s)
	}
	// What was damaged on its way there did not become part of the remote.
	proxy.hurt(0)
	for n := 1; n <= 3; n++ {
		v, err := r.Version(t.Context(), "model", n)
		if want := []cas.Digest{tree, second, tree}[n-1]; err != nil || v.Tree != want {
			t.Errorf("version %d: %v %v", n, v.Tree, err)
		}
	}
	for _, f := range allFaults {
		t.Log(f, proxy.count(f))
	}
	for _, f := range allFaults {
		if f != "stale list" && proxy.count(f) == 0 {
			t.Errorf("fault %q never happened", f)
		}
	}
}

// TestStaleList publishes while the listing never changes.
func TestStaleList(t *testing.T) {
	t.Parallel()
	proxy, addr := newFaultProxy(t, s3Server(t), 7)
	r := newRemote(t, openS3(t, addr, Patience{}))
	s := newStore(t)
	proxy.hurt(1, "stale list")
	for n := 1; n <= 4; n++ {
		// The third is the first again: the list has that as the newest.
		tree := addFiles(t, s, map[string][]byte{"f": {"abac"[n-1]}})
		if _, err := r.Push(t.Context(), s, tree, PushOptions{}); err != nil {
			t.Fatal(err)
		}
		v, _, err := r.Publish(t.Context(), "model", RefInfo{Tree: tree, Bytes: 1, Files: 1})
		if err != nil || v.N != n {
			t.Fatalf("version %d instead of %d: %v", v.N, n, err)
		}
	}
	for _, version := range []int{1, 2, 1, 1} {
		if err := r.SetTag(t.Context(), "model", "best", version, "ada"); err != nil {
			t.Fatal(err)
		}
	}
	if proxy.count("stale list") == 0 {
		t.Error("no listing was stale")
	}
	proxy.hurt(0)
	if tags, err := r.Tags(t.Context(), nil); err != nil || len(tags) != 1 || tags[0].Version != 1 || tags[0].n != 3 {
		t.Errorf("tags: %+v %v", tags, err)
	}
}

// TestAway asks a server that never answers well: the first contact is one
// request, what follows a success is tried as often as was said and no more.
func TestAway(t *testing.T) {
	proxy, addr := newFaultProxy(t, s3Server(t), 7)
	b := openS3(t, addr, Patience{Wait: time.Millisecond, Tries: 4})
	proxy.hurt(1, "503")
	for i := 1; i <= 2; i++ {
		if _, err := Open(t.Context(), b, Options{}); !errors.Is(err, ErrAway) {
			t.Fatalf("an error that says that it is away is wanted: %v", err)
		}
		if proxy.count("503") != i {
			t.Errorf("%d requests after %d calls", proxy.count("503"), i)
		}
	}
	proxy.hurt(0)
	if _, err := Open(t.Context(), b, Options{Create: true}); err != nil {
		t.Fatal(err)
	}
	proxy.hurt(1, "503")
	before := proxy.count("503")
	if _, err := b.Stat(t.Context(), "x"); !errors.Is(err, ErrAway) {
		t.Errorf("%v", err)
	}
	if n := proxy.count("503") - before; n != 4 {
		t.Errorf("tried %d times", n)
	}
}

// TestLostAnswer lets a number be taken whose answer is lost: the caller knows
// its own object again, and takes no second number.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	proxy, addr := newFaultProxy(t, s3Server(t), 7)
	b := openS3(t, addr, Patience{Wait: time.Millisecond, Tries: 30})
	newRemote(t, b)
	s := series{b, "refs/artifact/x"}
	for n := 1; n <= 10; n++ {
		proxy.hurt(0.8, "drop after")
		if err := s.create(t.Context(), n, []byte(newToken())); err != nil {
			t.Fatalf("number %d: %v", n, err)
		}
	}
	proxy.hurt(0)
	if err := s.create(t.Context(), 3, []byte(newToken())); !errors.Is(err, cas.ErrExists) {
		t.Errorf("another's number: %v", err)
	}
	if proxy.count("drop after") == 0 {
		t.Error("no answer was lost")
	}
}
