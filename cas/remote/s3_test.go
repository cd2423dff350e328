package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The server and the helper of all tests of this package, started and built
// when the first needs them.
var (
	s3Once   sync.Once
	s3Addr   string // HOST:PORT
	s3Err    error
	s3Dir    string
	s3Stop   func()
	helper   string
	buckets3 atomic.Int64
)

const s3Key, s3Secret = "curitest", "curitestsecret"

func TestMain(m *testing.M) {
	code := m.Run()
	if s3Stop != nil {
		s3Stop()
	}
	if s3Dir != "" {
		os.RemoveAll(s3Dir)
	}
	os.Exit(code)
}

// s3Server starts a real S3 server on loopback, once for all tests, and builds
// the helper.
func s3Server(t testing.TB) string {
	t.Helper()
	program := os.Getenv("CURI_TEST_S3")
	if program == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI must have an S3 server: CURI_TEST_S3 is not set (make test sets it)")
		}
		t.Skip("needs CURI_TEST_S3, the path of versitygw (testdata/dev/s3server.sh prints it)")
	}
	s3Once.Do(func() { s3Err = startS3(program) })
	if s3Err != nil {
		t.Fatal(s3Err)
	}
	return s3Addr
}

func startS3(program string) error {
	// For all helpers; the server is told otherwise. No test changes them, so
	// that tests may run beside each other.
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": s3Key, "AWS_SECRET_ACCESS_KEY": s3Secret, "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	var err error
	if s3Dir, err = os.MkdirTemp("", "curi-s3-*"); err != nil {
		return err
	}
	helper = filepath.Join(s3Dir, "curi-bucket")
	if out, err := exec.Command("go", "build", "-o", helper, "github.com/curi-store/curi/cmd/curi-bucket").CombinedOutput(); err != nil {
		return fmt.Errorf("build the helper: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s3Addr = l.Addr().String()
	l.Close()
	data := filepath.Join(s3Dir, "data")
	if err := os.Mkdir(data, 0o777); err != nil {
		return err
	}
	cmd := exec.Command(program, "--port", s3Addr, "--access", s3Key, "--secret", s3Secret, "--quiet", "posix", data)
	cmd.Env = append(os.Environ(), "HOME="+s3Dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	s3Stop = func() { cmd.Process.Kill(); <-ended }
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if r, err := http.Get("http://" + s3Addr + "/"); err == nil {
			r.Body.Close()
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("the S3 server ended: %s", said.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("the S3 server does not answer on %s", s3Addr)
}

// s3URL makes a bucket, which this server keeps as a directory, and returns the
// URL of a remote in it, by way of addr.
func s3URL(t testing.TB, addr string) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", buckets3.Add(1))
	if err := os.Mkdir(filepath.Join(s3Dir, "data", name), 0o777); err != nil {
		t.Fatal(err)
	}
	return "s3://" + name + "/some/prefix?region=us-east-1&endpoint=http://" + addr
}

func openS3(t testing.TB, addr string, p Patience) Bucket {
	t.Helper()
	b, err := OpenURL(t.Context(), s3URL(t, addr), BucketOptions{Helper: helper, Patience: p, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// servedBucket is b behind the frames, without a process between.
func servedBucket(t testing.TB, b Bucket) Bucket {
	askR, askW := io.Pipe()
	sayR, sayW := io.Pipe()
	go func() {
		err := Serve(context.Background(), askR, sayW, func(context.Context, string) (Bucket, error) { return b, nil })
		if err != nil {
			t.Errorf("serve: %v", err)
		}
		sayW.Close()
	}()
	c := newHelperConn(askW)
	ended := make(chan struct{})
	go func() { defer close(ended); c.broken(c.read(sayR)) }()
	if _, err := c.ask(t.Context(), askOpen, nil); err != nil {
		t.Fatal(err)
	}
	return &served{c, func() { askW.Close(); <-ended }}
}

type served struct {
	*helperConn
	end func()
}

func (s *served) Close() error { s.end(); return nil }

func TestHelperEnds(t *testing.T) {
	addr := s3Server(t)
	b := openS3(t, addr, Patience{})
	h := b.(*patient).Bucket.(*helperBucket)
	// Killed, it is an error for all that want something of it, not a wait.
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-h.ended
	if _, err := b.Stat(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("of a dead helper: %v", err)
	}
	// Its standard input ends with whoever started it.
	cmd := exec.Command(helper)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the helper ended with %v", err)
	}
	if _, err := OpenURL(t.Context(), "s3://b", BucketOptions{Helper: "curi-no-such-helper"}); err == nil || !strings.Contains(err.Error(), "curi-bucket") {
		t.Errorf("without a helper: %v", err)
	}
}

// A helper that waits for credentials ends with who started it, too.
func TestHelperThatOpensEnds(t *testing.T) {
	t.Parallel()
	s3Server(t)
	dir := t.TempDir()
	config := "[default]\ncredential_process = sh -c 'touch " + dir + "/asked; while [ -d " + dir + " ]; do sleep 0.1; done'\n"
	if err := os.WriteFile(dir+"/config", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(helper)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_CONFIG_FILE=" + dir + "/config", "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(in, 1, askOpen, []byte("s3://bucket/prefix?region=us-east-1")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(dir + "/asked"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody was asked for credentials")
		}
	}
	in.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the helper ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("the helper waits on for credentials that nobody wants")
	}
}
