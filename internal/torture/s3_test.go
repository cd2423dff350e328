package torture

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"
)

// s3Env is what programs need to speak to the server of s3Bucket.
var s3Env = []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=testsecret", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true"}

// s3Bucket starts a real S3 server with an empty bucket, for a remote at url,
// and returns the directory in which the server keeps its objects.
func s3Bucket(t *testing.T) (url, objects string) {
	t.Helper()
	program := os.Getenv("CURI_TEST_S3")
	if program == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI must have an S3 server: CURI_TEST_S3 is not set (make test sets it)")
		}
		t.Skip("needs CURI_TEST_S3, the path of versitygw (testdata/dev/s3server.sh prints it)")
	}
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/models", 0o777); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(program, "--port", addr, "--access", "test", "--secret", "testsecret", "--quiet", "posix", dir)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if r, err := http.Get("http://" + addr + "/"); err == nil {
			r.Body.Close()
			return "s3://models/curi?endpoint=http://" + addr, dir + "/models/curi"
		}
		if time.Now().After(end) {
			t.Fatal("the S3 server does not answer")
		}
	}
}
