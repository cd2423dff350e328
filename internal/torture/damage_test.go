package torture

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// hurting stands before an S3 server and damages what it answers of one room of
// a remote, while on.
type hurting struct {
	httputil.ReverseProxy
	room, fault string
	on          atomic.Bool
	did         atomic.Int64
}

func (p *hurting) damage(r *http.Response) error {
	if !p.on.Load() || r.Request.Method != http.MethodGet || !strings.Contains(r.Request.URL.Path, p.room) {
		return nil
	}
	b, err := io.ReadAll(r.Body)
	if err != nil || len(b) == 0 {
		return err
	}
	p.did.Add(1)
	body := io.Reader(bytes.NewReader(b))
	switch p.fault {
	case "flip":
		b[len(b)/2] ^= 4
	case "cut":
		body = io.MultiReader(bytes.NewReader(b[:len(b)/2]), cutOff{})
	case "500", "503":
		status, code := http.StatusInternalServerError, "InternalError"
		if p.fault == "503" {
			status, code = http.StatusServiceUnavailable, "SlowDown"
		}
		text := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>made by a test</Message></Error>`, code)
		r.StatusCode, r.ContentLength, body = status, int64(len(text)), strings.NewReader(text)
		r.Header = http.Header{"Content-Type": {"application/xml"}, "Content-Length": {fmt.Sprint(len(text))}}
	}
	r.Body = io.NopCloser(body)
	return nil
}

// cutOff is the end of an answer that promised more.
type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestDamageThroughTheMount lets a bucket answer wrongly while files of it are
// read through a mount: an error, and a line in the log that names the file and
// the remote; never a wrong byte. Once it answers rightly, so does the mount.
func TestDamageThroughTheMount(t *testing.T) {
	t.Parallel()
	to, objects := s3Bucket(t)
	maker, r := newRig(t), newRig(t)
	maker.url, maker.objects = to, objects
	maker.addRemote()
	type trouble struct{ room, fault string }
	list := []trouble{{"/packs/", "flip"}, {"/packs/", "cut"}, {"/packs/", "500"}, {"/packs/", "503"}, {"/recipes/", "flip"}, {"/recipes/", "cut"}, {"/recipes/", "500"}, {"/recipes/", "503"}}
	proxies := make([]*hurting, len(list))
	for i, c := range list {
		dir := fmt.Sprint("data", i)
		maker.write(dir+"/large", string(noiseAt(uint64(i), 0, 2<<20)))
		maker.write(dir+"/small", fmt.Sprint("small ", i))
		maker.ok("curi", "add", dir, "--name", dir)
		maker.ok("curi", "push", dir)
		proxies[i] = &hurting{room: c.room, fault: c.fault}
		proxies[i].ModifyResponse = proxies[i].damage
		r.ok("curi", "remote", "add", fmt.Sprint("team", i), before(t, to, &proxies[i].ReverseProxy))
	}
	r.ok("curi", "pull")
	server := r.start(nil, "curi", "mount", "--foreground", r.mnt)
	t.Cleanup(func() { _ = server.Process.Signal(syscall.SIGTERM) }) // whatever failed
	r.eventually("the mount", func() bool {
		return done(server) || len(r.mounted()) > 0 && r.run(nil, "ls", r.mnt+"/remotes").status == 0
	})
	t.Run("each", func(t *testing.T) {
		for i, c := range list {
			t.Run(c.fault+" of "+strings.Trim(c.room, "/"), func(t *testing.T) {
				t.Parallel()
				r := &rig{t: t, dir: r.dir, store: r.store, side: r.side, mnt: r.mnt, env: r.env}
				proxies[i].on.Store(true)
				dir := fmt.Sprintf("%s/remotes/team%d/data%d/", r.mnt, i, i)
				for name, want := range map[string]string{"large": string(noiseAt(uint64(i), 0, 2<<20)), "small": fmt.Sprint("small ", i)} {
					o := r.run(nil, "cat", dir+name)
					if o.status != 1 || !strings.Contains(o.stderr, "Input/output error") || !strings.HasPrefix(want, o.stdout) {
						t.Errorf("%s: %d bytes, status %d: %s", name, len(o.stdout), o.status, o.stderr)
					}
					if c.room == "/packs/" {
						d, _, _ := strings.Cut(maker.ok("b3sum", fmt.Sprintf("data%d/%s", i, name)), " ")
						r.eventually("the line in the log", func() bool {
							for line := range strings.Lines(server.stderr.String()) {
								if strings.Contains(line, "digest="+d) && strings.Contains(line, fmt.Sprint("remote team", i)) {
									return true
								}
							}
							return false
						})
					}
				}
				if proxies[i].did.Load() == 0 {
					t.Error("nothing was damaged")
				}
				proxies[i].on.Store(false)
				for name, want := range map[string]string{"large": string(noiseAt(uint64(i), 0, 2<<20)), "small": fmt.Sprint("small ", i)} {
					r.eventually("a right answer of "+name, func() bool { return r.run(nil, "cat", dir+name).stdout == want })
				}
			})
		}
	})
	r.ok("curi", "umount", r.mnt)
	if o := r.finish(server); o.status != 0 {
		t.Errorf("the mount: %s", o)
	}
	if o := r.run(nil, "curi", "fsck"); o.status != 0 {
		t.Errorf("afterwards: %s", o)
	}
}
