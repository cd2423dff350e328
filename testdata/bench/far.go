package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

// roundTrip is how far away the server seems to be behind a far.
const roundTrip = 20 * time.Millisecond

// far stands before the S3 server as if that were a round trip away: a
// connection costs one, and each request one more. It tells how many requests
// depend on each other: each is one round later than the latest that had been
// answered when it came.
type far struct {
	server *http.Server
	addr   string
	to     http.Handler

	mu       sync.Mutex
	answered int
	bytes    int64 // of answers
}

func newFar(to string) (*far, error) {
	f := &far{to: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		// The name that was asked for is part of the signature.
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", to, r.In.Host
	}, ErrorLog: log.New(io.Discard, "", 0)}} // requests that are called off
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.addr = l.Addr().String()
	f.server = &http.Server{Handler: f}
	go func() {
		if err := f.server.Serve(farListener{l}); !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}()
	return f, nil
}

func (f *far) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = f.server.Shutdown(ctx)
	_ = f.server.Close()
}

func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	round := f.answered + 1
	f.mu.Unlock()
	time.Sleep(roundTrip)
	f.to.ServeHTTP(&farAnswer{w, f}, r)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answered = max(f.answered, round)
}

// take returns what was asked since the last call.
func (f *far) take() (rounds int, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rounds, bytes = f.answered, f.bytes
	f.answered, f.bytes = 0, 0
	return rounds, bytes
}

// farAnswer counts the bytes of an answer.
type farAnswer struct {
	http.ResponseWriter
	f *far
}

func (a *farAnswer) Write(p []byte) (int, error) {
	n, err := a.ResponseWriter.Write(p)
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	a.f.bytes += int64(n)
	return n, err
}

func (a *farAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// farListener hands out connections whose first byte comes a round trip late.
type farListener struct{ net.Listener }

func (l farListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &farConn{Conn: c}, nil
}

type farConn struct {
	net.Conn
	made sync.Once
}

func (c *farConn) Read(p []byte) (int, error) {
	c.made.Do(func() { time.Sleep(roundTrip) })
	return c.Conn.Read(p)
}

// farRow is one piece of work with a server that is far away.
type farRow struct {
	what   string
	took   samples
	rounds int   // of requests that depend on each other
	bytes  int64 // that the server sent
	below  int   // rounds that are too many
	most   int64 // bytes that are allowed; 0 for any number
}

func (r farRow) met() bool { return r.rounds < r.below && (r.most == 0 || r.bytes <= r.most) }

func (r farRow) String() string {
	verdict := "met"
	if !r.met() {
		verdict = "**missed**"
	}
	wanted := fmt.Sprintf("< %d requests", r.below)
	if r.most > 0 {
		wanted += fmt.Sprintf(", ≤ %d KiB", r.most>>10)
	}
	return fmt.Sprintf("| %s | %s | %d | %d KiB | %s | %s | %d |\n", r.what, duration(r.took.median()), r.rounds, (r.bytes+1023)>>10, wanted, verdict, len(r.took))
}

// farTable is the table of these rows.
func farTable(rows []farRow) string {
	var b strings.Builder
	b.WriteString("| work | Curi | dependent requests | bytes | wanted | | rounds |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		b.WriteString(r.String())
	}
	return b.String()
}

// fromFar measures work with a server that is far away; run gets the address
// that the server seems to have, prepares a round and does the work in it by
// calling timed. The most of what any round asked for counts.
func (b *bench) fromFar(r farRow, run func(addr string, timed func(argv []string) error) error) error {
	to, err := b.s3()
	if err != nil {
		return err
	}
	f, err := newFar(to)
	if err != nil {
		return err
	}
	defer f.close()
	for range b.times(5) {
		err := run(f.addr, func(argv []string) error {
			f.take()
			seconds, err := b.timed(argv)
			r.took = append(r.took, seconds)
			rounds, bytes := f.take()
			r.rounds, r.bytes = max(r.rounds, rounds), max(r.bytes, bytes)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", r.what, err)
		}
	}
	b.farRows = append(b.farRows, r)
	return nil
}
