//go:build linux

package fusefs_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// scrape gets the metrics of m and parses them strictly.
func scrape(t *testing.T, m *mounted) map[string]float64 {
	t.Helper()
	client := http.Client{Timeout: time.Minute}
	resp, err := client.Get("http://" + m.info.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("%s, %q: %s", resp.Status, ct, body)
	}
	values, err := parseMetrics(string(body))
	if err != nil {
		t.Fatalf("%v in\n%s", err, body)
	}
	return values
}

var (
	metricHelp   = regexp.MustCompile(`^# HELP ([a-z_]+) (\S.*)$`)
	metricType   = regexp.MustCompile(`^# TYPE ([a-z_]+) (counter|gauge)$`)
	metricSample = regexp.MustCompile(`^([a-z_]+)(\{[a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*\})? ([-+0-9.eE]+)$`)
)

// parseMetrics reads what Prometheus would, and refuses what its linter does:
// every family once, with HELP and TYPE before its samples, counters named
// _total and gauges not, no sample twice, no negative counter, a newline at the end.
func parseMetrics(text string) (map[string]float64, error) {
	text, ok := strings.CutSuffix(text, "\n")
	if !ok {
		return nil, fmt.Errorf("no newline at the end")
	}
	values := map[string]float64{}
	families := map[string]bool{}
	var family, kind string
	for line := range strings.SplitSeq(text, "\n") {
		if h := metricHelp.FindStringSubmatch(line); h != nil {
			if families[h[1]] {
				return nil, fmt.Errorf("family %s comes twice", h[1])
			}
			family, kind = h[1], ""
			families[family] = true
			continue
		}
		if y := metricType.FindStringSubmatch(line); y != nil {
			if y[1] != family || kind != "" {
				return nil, fmt.Errorf("out of place: %s", line)
			}
			kind = y[2]
			if strings.HasSuffix(family, "_total") != (kind == "counter") {
				return nil, fmt.Errorf("%s is a %s", family, kind)
			}
			continue
		}
		s := metricSample.FindStringSubmatch(line)
		if s == nil || s[1] != family || kind == "" {
			return nil, fmt.Errorf("out of place: %s", line)
		}
		v, err := strconv.ParseFloat(s[3], 64)
		if err != nil || kind == "counter" && v < 0 {
			return nil, fmt.Errorf("no value: %s", line)
		}
		if _, twice := values[s[1]+s[2]]; twice {
			return nil, fmt.Errorf("twice: %s", line)
		}
		values[s[1]+s[2]] = v
	}
	return values, nil
}

func TestMetricsFollowTheMount(t *testing.T) {
	s := newStore(t)
	v := publish(t, s, "data", map[string]string{"big": strings.Repeat("b", 300000), "small": "small"})
	m := mount(t, s, "-o", "metrics=0")
	if !m.info.Passthrough {
		skip(t, "no passthrough: "+m.info.Reason)
	}
	if host, _, err := net.SplitHostPort(m.info.Metrics); err != nil || host != "127.0.0.1" {
		t.Fatalf("a bare port is served at %q", m.info.Metrics)
	}
	live, _, err := s.Mounts(t.Context())
	if err != nil || len(live) != 1 || live[0].Metrics != m.info.Metrics {
		t.Errorf("registered as %+v, %v; it said %s", live, err, m.info.Metrics)
	}
	openPlace(t, s, m, testKey, map[string]cas.Digest{"set": v.Tree})
	if got := scrape(t, m); got[`curi_mount_opens_total{by="server"}`] != 0 || got["curi_mount_refreshes_total"] < 1 {
		t.Fatalf("before anything was opened: %v", got)
	}
	at := m.path("at", testKey[:16])
	release := holdOpen(t, []string{python(t), "-c", useFiles, at + "/in/set/big", at + "/in/set/small", at + "/out/a/o", at})
	eventually(t, func() bool { return m.stats(t)["open_files"] == 1 })
	got := scrape(t, m)
	want := map[string]float64{
		`curi_mount_opens_total{by="passthrough"}`: 3, `curi_mount_opens_total{by="server"}`: 3,
		"curi_mount_open_files": 1, "curi_mount_open_directories": 1,
		"curi_mount_read_requests_total": 1, "curi_mount_read_bytes_total": 5,
		"curi_mount_write_requests_total": 0, "curi_mount_written_bytes_total": 0,
		"curi_mount_cache_hits_total": 1, "curi_mount_cache_misses_total": 1,
		`curi_mount_errors_total{class="refused"}`: 3, `curi_mount_errors_total{class="io"}`: 0,
	}
	for name, n := range want {
		if v, ok := got[name]; !ok || v != n {
			t.Errorf("%s is %v, want %v", name, v, n)
		}
	}
	if got[`curi_mount_errors_total{class="absent"}`] < 2 || got["curi_mount_uptime_seconds"] <= 0 || got["curi_mount_lookups_total"] == 0 {
		t.Errorf("have %v", got)
	}
	release()
}

func TestMetricsTellNothingElse(t *testing.T) {
	s := newStore(t)
	publish(t, s, "confidential", map[string]string{"f": "1"})
	m := mount(t, s, "-o", "metrics=127.0.0.1:0")
	if _, err := os.ReadFile(m.path("artifacts/confidential/f")); err != nil {
		t.Fatal(err)
	}
	for _, ask := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/metrics", "", 200},
		{"GET", "/metrics?x=1", "", 200},
		{"HEAD", "/metrics", "", 405},
		{"POST", "/metrics", "x", 405},
		{"PUT", "/metrics", "x", 405},
		{"DELETE", "/metrics", "", 405},
		{"GET", "/", "", 404},
		{"POST", "/", "x", 404},
		{"GET", "/metrics/", "", 404},
		{"GET", "/debug/pprof/", "", 404},
		{"GET", "/debug/vars", "", 404},
		{"GET", "/..%2f..%2fetc/passwd", "", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), ask.method, "http://"+m.info.Metrics+ask.path, strings.NewReader(ask.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Errorf("%s %s: %v", ask.method, ask.path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != ask.status {
			t.Errorf("%s %s: %s, %v; want %d", ask.method, ask.path, resp.Status, err, ask.status)
		}
		for _, secret := range []string{s.Dir(), m.dir, "confidential", s.ID(), m.info.ID, "goroutine"} {
			if strings.Contains(string(body), secret) {
				t.Errorf("%s %s tells %q: %s", ask.method, ask.path, secret, body)
			}
		}
	}
}

// Those who connect and say nothing, or too much, neither keep others out nor
// stay.
func TestMetricsOutlastIdleAndEndlessRequests(t *testing.T) {
	s := newStore(t)
	m := mount(t, s, "-o", "metrics=0")
	idle := make([]net.Conn, 20)
	for i := range idle {
		c, err := net.Dial("tcp", m.info.Metrics)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle[i] = c
		if i%2 == 0 {
			io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n")
		}
	}
	long, err := net.Dial("tcp", m.info.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close()
	go func() {
		line := "X-Long: " + strings.Repeat("x", 1000) + "\r\n"
		io.WriteString(long, "GET /metrics HTTP/1.1\r\nHost: x\r\n")
		for {
			if _, err := io.WriteString(long, line); err != nil {
				return
			}
		}
	}()
	scrape(t, m) // waits for its turn
	for _, c := range append(idle, long) {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
			t.Fatal("a connection that asks for nothing stays open")
		}
	}
	// A mount is not held up by them at its end: see the cleanup.
	for range 20 {
		c, err := net.Dial("tcp", m.info.Metrics)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
}

func TestMetricsAddressInUse(t *testing.T) {
	s := newStore(t)
	m := mount(t, s, "-o", "metrics=0")
	dir := t.TempDir()
	got := curifsFails(t, s.Dir(), dir, "-o", "metrics="+m.info.Metrics)
	if !strings.Contains(got, m.info.Metrics) || !strings.Contains(got, "address already in use") || !strings.Contains(got, "name another address") {
		t.Errorf("have %s", got)
	}
	if isMounted(dir) {
		t.Error("mounted all the same")
	}
	bin, err := curifs()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, s.Dir(), dir, "-o", "metrics=nowhere.invalid:9100")
	if out, err := cmd.CombinedOutput(); err == nil || strings.Count(string(out), "\n") != 1 {
		t.Errorf("an address that is none: %v: %s", err, out)
	}
}
