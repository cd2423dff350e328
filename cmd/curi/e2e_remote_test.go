package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// s3Server starts a real S3 server on loopback with the bucket "models", and
// returns the URL of a remote in it.
func s3Server(t *testing.T, key, secret string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s3ServerAt(t, addr, key, secret, nil, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
	return "s3://models/curi?endpoint=http://" + addr
}

// s3ServerAt starts it at HOST:PORT, as enter says, and waits until reach can.
func s3ServerAt(t *testing.T, addr, key, secret string, enter []string, reach func() error) {
	t.Helper()
	program := os.Getenv("CURI_TEST_S3")
	need(t, program != "", "an S3 server (make test builds it; or CURI_TEST_S3, the path of versitygw)")
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/models", 0o777); err != nil {
		t.Fatal(err)
	}
	argv := slices.Concat(enter, []string{program, "--port", addr, "--quiet", "posix", dir})
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "ROOT_ACCESS_KEY="+key, "ROOT_SECRET_KEY="+secret) // not for ps
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	for deadline := time.Now().Add(time.Minute); ; {
		err := reach()
		if err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("the S3 server ended: %s", said.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
}

// TestObjectStore shares an artifact by way of an S3 server, and finds the
// secret nowhere afterwards.
func TestObjectStore(t *testing.T) {
	const key, secret = "AKIDTEST", "s3cr3t-of-the-bucket"
	url := s3Server(t, key, secret)
	s := newSite(t, byCopy)
	s.env = append(s.env, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
	none := s.env
	s.ok("curi", "remote", "add", "team", url)

	// Without credentials, and with wrong ones, one line says what is missing.
	s.fails(123, "no credentials found", "curi", "push", "digits")
	s.env = append(none, "AWS_ACCESS_KEY_ID="+key, "AWS_SECRET_ACCESS_KEY=wrong")
	s.fails(123, "check the credentials", "curi", "push", "digits")

	s.env = append(none, "AWS_ACCESS_KEY_ID="+key, "AWS_SECRET_ACCESS_KEY="+secret)
	s.fails(121, "the first push makes one", "curi", "pull")
	if out := s.ok("curi", "push", "digits", "--verbose"); !strings.HasPrefix(out, "team/digits@1 ") {
		t.Errorf("push says %q", out)
	}
	s.ok("curi", "remote", "add", "typo", strings.Replace(url, "//models/", "//model/", 1))
	s.fails(120, "there is no bucket s3://model", "curi", "push", "digits", "--remote", "typo")
	first := s.store
	other := filepath.Join(filepath.Dir(s.store), "other")
	s.env = append(s.env, "CURI_STORE="+other)
	s.ok("curi", "remote", "add", "team", url)
	s.ok("curi", "pull", "--now", "team/digits")
	if out := s.ok("curi", "cat", "team/digits/numbers.txt"); out != "1 2 3 4\n" {
		t.Errorf("the other machine reads %q", out)
	}

	// The mount speaks to the bucket, too.
	s.env = append(s.env, "CURI_STORE="+filepath.Join(filepath.Dir(s.store), "third"))
	s.ok("curi", "remote", "add", "team", url)
	s.ok("curi", "pull")
	mnt := filepath.Join(t.TempDir(), "mnt")
	s.ok("curi", "mount", mnt)
	defer s.ok("curi", "umount", mnt)
	if p := s.ok("curi", "path", "team/digits/numbers.txt"); p != mnt+"/remotes/team/digits@1/numbers.txt\n" {
		t.Errorf("its path is %q", p)
	}
	if out := s.ok("cat", mnt+"/remotes/team/digits/numbers.txt"); out != "1 2 3 4\n" {
		t.Errorf("through the mount it is %q", out)
	}

	for _, dir := range []string{first, other, s.dir} {
		if out := s.run("grep", "-r", "-l", secret, dir); out.status != 1 {
			t.Errorf("the secret lies in %s", out.stdout)
		}
	}
	// A server that is gone is trouble, told at once and in one line.
	s.ok("curi", "remote", "add", "gone", "s3://models/curi?endpoint=http://127.0.0.1:9")
	s.fails(123, "connection refused", "curi", "pull", "--remote", "gone")
	// The helper lies beside curi; without it the error says what to install.
	bin := t.TempDir()
	from, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", from+"/curi", bin+"/curi").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.fails(121, "curi-bucket", "env", "PATH=/usr/bin:/bin", bin+"/curi", "pull", "--remote", "team")
}

// TestNoSecret uses an object store in every way, and finds the credentials
// nowhere: in no file of the stores, the project, the remote; in nothing that
// is said, however much; in no process's arguments.
func TestNoSecret(t *testing.T) {
	t.Parallel()
	const key, secret, token = "AKIDNOSECRET", "hunter2-of-the-bucket", "hunter2-of-the-session"
	url := s3Server(t, key, secret)
	s := newSite(t, byCopy)
	s.env = append(s.env, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID="+key, "AWS_SECRET_ACCESS_KEY="+secret)
	var said strings.Builder
	run := func(argv ...string) outcome {
		t.Helper()
		o := s.run(append([]string{"curi", "--verbose"}, argv...)...)
		fmt.Fprintln(&said, argv, o)
		return o
	}
	works := func(argv ...string) {
		t.Helper()
		if o := run(argv...); o.status != 0 {
			t.Fatalf("%v: %s", argv, o)
		}
	}
	works("remote", "add", "team", url)
	works("push", "digits")
	// A stage, whose record, log and result go to the remote, and what runs
	// beside it.
	works("stage", "exec", "--name", "look", "--no-mount", "--in", "data=digits", "--out", "args=args", "--", "sh", "-c",
		"for i in 1 2 3; do cat /proc/[0-9]*/cmdline; done 2>/dev/null | tr '\\0' '\\n' > {out.args}; ls -l {in.data}")
	works("show", "look@last", "--json")
	works("log", "--json")
	works("push", "--wait")
	works("remote", "ls", "--json")
	works("remote", "fsck", "--read")
	works("remote", "gc", "--json")
	works("pull", "--now", "team/digits")
	works("status", "--json")
	works("config", "--json")
	// What goes wrong says why, and not with what.
	for _, more := range [][]string{{"AWS_SESSION_TOKEN=" + token}, {"AWS_SECRET_ACCESS_KEY=" + secret + "x"}, {"AWS_ACCESS_KEY_ID="}} {
		env := s.env
		s.env = append(slices.Clone(env), more...)
		if o := run("push", "digits"); o.status != 123 {
			t.Errorf("with %v: %s", more, o)
		}
		s.env = env
	}
	for _, bad := range []string{"s3://" + key + ":" + secret + "@models/curi", "s3://models?secret=" + secret, "s3://models?endpoint=https://" + secret + "@host",
		"s3://models?endpoint=https://host?sig=" + secret, "azblob://models?sas=" + secret} {
		if o := run("remote", "add", "bad", bad); o.status != 120 {
			t.Errorf("%s was taken: %s", bad, o)
		}
		// What the person typed is no leak of ours.
	}
	if o := run("remote", "add", "plain", "s3://models?endpoint=http://storage.example.org"); o.status != 120 || !strings.Contains(o.stderr, "not encrypted") {
		t.Errorf("an endpoint in the clear: %s", o)
	}
	outputs := said.String()
	for _, argv := range []string{key + ":" + secret + "@", "?secret=" + secret, "https://" + secret + "@host", "?sig=" + secret, "?sas=" + secret} {
		outputs = strings.Replace(outputs, argv, "", 1) // the arguments that are listed above
	}
	for _, word := range []string{secret, token} {
		if i := strings.Index(outputs, word); i >= 0 {
			t.Errorf("said: …%s…", outputs[max(0, i-200):i+len(word)])
		}
		if o := s.run("grep", "-r", "-l", "-a", word, filepath.Dir(s.store)); o.status != 1 {
			t.Errorf("it lies in %s", o.stdout)
		}
	}
	// The look at the processes was one: this test's command is in it, and what
	// speaks to the server.
	if o := s.run("curi", "cat", "look.args"); !strings.Contains(o.stdout, "stage\nexec") || !strings.Contains(o.stdout, "curi-bucket") {
		t.Errorf("no processes were listed: %.300s", o)
	}
}
