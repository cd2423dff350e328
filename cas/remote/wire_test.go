package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

// FuzzServe sends a helper whatever it may get: it answers, or ends.
func FuzzServe(f *testing.F) {
	var b bytes.Buffer
	for _, m := range []struct {
		kind byte
		body []byte
	}{{askOpen, []byte("file:///x")}, {askPut, append(appendText(nil, "a/b"), "data"...)}, {askRead, appendNums(appendText(nil, "a/b"), 0, 10)}, {askList, appendText(appendText(nil, "a"), "")}, {askStat, appendText(nil, "a/b")}, {askCancel, nil}, {askDelete, appendText(nil, "a/b")}} {
		if err := writeFrame(&b, uint32(m.kind), m.kind, m.body); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		_ = Serve(context.Background(), bytes.NewReader(b), &out, func(context.Context, string) (Bucket, error) { return OpenDir(dir + "/bucket"), nil })
		for in := bufio.NewReader(&out); ; {
			f, err := readFrame(in)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil || f.kind < saidOK {
				t.Fatalf("an answer that is none: %v %v", f, err)
			}
		}
	})
}

func TestCheckURL(t *testing.T) {
	for url, says := range map[string]string{
		"s3://b/p": "", "gs://b": "", "azblob://c/p?storage_account=a&domain=d": "", "file:///d": "",
		"s3://b?endpoint=http://127.0.0.1:9&region=r&profile=p": "", "s3://b?endpoint=http://localhost:9": "", "s3://b?endpoint=https://h:9": "",
		"s3://b?endpoint=http://h:9&insecure=true": "",
		"s3://b?endpoint=http://h:9":               "not encrypted",
		"s3://b?endpoint=http://10.0.0.1":          "not encrypted",
		"s3://b?endpoint=https://hunter2@h":        "the endpoint is to be",
		"s3://b?endpoint=https://h?sig=hunter2":    "the endpoint is to be",
		"s3://hunter2:hunter2@b":                   "user or password",
		"s3://b?secret=hunter2":                    "no parameter",
		"azblob://c?sig=hunter2":                   "no parameter",
		"gs://b?private_key_path=hunter2":          "no parameter",
		"s3:///p":                                  "bucket is missing",
		"ftp://b":                                  "want one that begins",
		"file://host/d":                            "absolute path",
		"s3://b?%zz":                               "do not parse",
	} {
		err := CheckURL(url)
		if (err == nil) != (says == "") || err != nil && (!errors.Is(err, cas.ErrInvalid) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats a secret: %v", err)
		}
	}
}

// TestShortAnswer: a helper that answers with fewer or more bytes than it says
// to have read is not believed.
func TestShortAnswer(t *testing.T) {
	for _, n := range []int{4, 6} {
		askR, askW := io.Pipe()
		sayR, sayW := io.Pipe()
		c := newHelperConn(askW)
		go func() { c.broken(c.read(sayR)) }()
		go func() {
			if _, err := readFrame(bufio.NewReader(askR)); err == nil { // it was asked
				_ = writeFrame(sayW, 1, saidOK, make([]byte, n))
			}
		}()
		if _, err := c.ReadAt(t.Context(), "k", make([]byte, 5), 0); !errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("%d bytes for 5: %v", n, err)
		}
		askR.Close()
		sayW.Close()
	}
}

// TestBodies: what is got has its length, whatever was given back before, and
// two who have one have different ones.
func TestBodies(t *testing.T) {
	for _, n := range []int{0, 1, 1 << 10, 1 << 17, 1<<18 + 1, 4 << 20, 16 << 20, 16<<20 + 1, maxFrame} {
		a, b := getBody(n), getBody(n)
		if len(a) != n || len(b) != n {
			t.Fatalf("%d bytes: %d and %d", n, len(a), len(b))
		}
		if n > 0 {
			a[0], a[n-1] = 1, 1
			b[0], b[n-1] = 2, 2
			if a[0] != 1 || a[n-1] != 1 {
				t.Errorf("%d bytes: both are one", n)
			}
		}
		putBody(a[:0])
		putBody(b[:n/2])
		putBody(make([]byte, n/3)) // one from elsewhere
		if c := getBody(n / 2); len(c) != n/2 {
			t.Errorf("%d bytes", len(c))
		}
	}
}
