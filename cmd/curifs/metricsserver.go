//go:build linux

package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/curi-store/curi/cas"
)

// metricsAddress completes the value of -o metrics=. Without a host only this
// machine may ask.
func metricsAddress(value string) (string, error) {
	host, port, err := net.SplitHostPort(value)
	if err != nil && !strings.Contains(value, ":") {
		host, port, err = "", value, nil
	}
	if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil {
		return "", fmt.Errorf("-o metrics=%s: want a port, or HOST:PORT such as 127.0.0.1:9100 or [::1]:9100", value)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// Bounds for those who ask. A scrape is one small request.
const (
	metricsConns   = 16
	requestTimeout = 2 * time.Second // to send it
	answerTimeout  = 5 * time.Second // to take the answer
	maxHeader      = 4 << 10         // bytes; net/http allows some more
)

// metricsServer answers GET /metrics and nothing else.
type metricsServer struct {
	http *http.Server
	ln   net.Listener
}

// listenMetrics takes the address and begins to answer with what snapshot
// returns.
func listenMetrics(ctx context.Context, address string, snapshot func() cas.MountStats, logger *slog.Logger) (*metricsServer, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("-o metrics=%s: %w: name another address, or port 0 for any that is free", address, err)
	}
	m := &metricsServer{ln: ln, http: &http.Server{
		Handler:           answerMetrics(snapshot),
		ReadHeaderTimeout: requestTimeout, ReadTimeout: requestTimeout, WriteTimeout: answerTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       log.New(debugLines{logger}, "", 0),
	}}
	// An idle connection would hold one of the few that there are.
	m.http.SetKeepAlivesEnabled(false)
	go func() { _ = m.http.Serve(&limitedListener{ln, make(chan struct{}, metricsConns)}) }()
	return m, nil
}

// address is where it answers: HOST:PORT.
func (m *metricsServer) address() string { return m.ln.Addr().String() }

// Close ends the answers, those under way too.
func (m *metricsServer) Close() error { return m.http.Close() }

func answerMetrics(snapshot func() cas.MountStats) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/metrics":
			http.Error(w, "there is /metrics only", http.StatusNotFound)
		case r.Method != http.MethodGet:
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "there is GET only", http.StatusMethodNotAllowed)
		default:
			w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
			writeMetrics(w, snapshot(), version())
		}
	}
}

// limitedListener has a bounded number of connections open at once: each takes
// a descriptor of the process that needs one for every open file. The others
// wait in the kernel's queue.
type limitedListener struct {
	net.Listener
	open chan struct{} // has an element for each open connection
}

func (l *limitedListener) Accept() (net.Conn, error) {
	l.open <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	return &limitedConn{Conn: c, closed: sync.OnceFunc(func() { <-l.open })}, nil
}

type limitedConn struct {
	net.Conn
	closed func()
}

func (c *limitedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// debugLines takes what net/http says about connections that went wrong.
type debugLines struct{ log *slog.Logger }

func (l debugLines) Write(p []byte) (int, error) {
	l.log.Debug("metrics: " + strings.TrimSpace(string(p)))
	return len(p), nil
}
