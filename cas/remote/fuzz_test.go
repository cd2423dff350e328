package remote

import (
	"bytes"
	"encoding/binary"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// FuzzSmall gives the small objects of a bucket whatever a remote may hold:
// what is read of them is within bounds, or an error.
func FuzzSmall(f *testing.F) {
	d := cas.Sum(nil).String()
	for _, line := range []string{
		`{"format":1,"id":"0011223344556677","created":"2026-01-02T03:04:05Z"}`,
		`{"tree":"` + d + `","time":"2026-01-02T03:04:05Z","bytes":1,"files":2,"by":"ada@node","token":"T"}`,
		`{"tree":"` + d + `","time":"x","bytes":-1,"files":1e99}`,
		`{"version":3,"time":"2026-01-02T03:04:05Z","token":"T"}`,
		`{"fate":"sweep","token":"T"}`, `{"fate":"void"`,
		`{"recipes":["` + d + `"],"packs":[],"token":"T"}`,
		`{"host":"node7","beats":7,"ended":true,"token":"T"}`,
		``, `null`, `[]`, `{"version":1000000000}`, strings.Repeat("[", 10000),
	} {
		f.Add([]byte(line), true)
	}
	f.Add([]byte("{}\n0123456789abcdef\n"), false)
	f.Fuzz(func(t *testing.T, line []byte, sealed bool) {
		object := line
		if sealed {
			object = seal(line)
		}
		got, err := unseal("k", object)
		if sealed && (err != nil || !bytes.Equal(got, line)) {
			t.Fatalf("a seal does not come off: %v", err)
		}
		if err != nil {
			return
		}
		if v, err := parseRef("k", got); err == nil && (v.Tree.IsZero() || v.Bytes < 0 || v.Files < 0) {
			t.Errorf("a ref that names nothing: %+v", v)
		}
		if tag, err := parseTag("k", got); err == nil && (tag.Version < 1 || tag.Version > maxNumber) {
			t.Errorf("a tag that means nothing: %+v", tag)
		}
		if fate, err := parseFate(got); err == nil && fate != fateSweep && fate != fateVoid {
			t.Errorf("a fate %q", fate)
		}
		// Those that are read with what they lie in.
		const key = "refs/tag/m/best/0000000001"
		b := &memBucket{objects: map[string][]byte{headerKey: object, roundKey(1, "list"): object, key: object}}
		r := &Remote{b: b}
		_, _ = r.list(t.Context(), 1)
		_, _ = r.fate(t.Context(), 1)
		if r, err := Open(t.Context(), b, Options{}); err == nil && len(r.ID()) != 16 {
			t.Errorf("identity %q", r.ID())
		}
	})
}

// FuzzKey: a key that is taken lies in the directory, and its numbers are the
// ones that are written.
func FuzzKey(f *testing.F) {
	for _, key := range []string{"packs/ab/cd", "../x", "a/./b", "a//b", "/a", "refs/tag/m/best/0000000001", "a\x00", strings.Repeat("a/", 600)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		b := &dirBucket{"/bucket"}
		path, err := b.path(key)
		if err == nil && (!strings.HasPrefix(path, "/bucket/") || path != "/bucket/"+key) {
			t.Errorf("%q is %q", key, path)
		}
		if n := seriesNumber(key); n != 0 && (series{b, "s"}).key(n) != "s/"+key {
			t.Errorf("%q is number %d", key, n)
		}
	})
}

// FuzzURL: no credential is part of a URL that is taken, nor of what is said
// of one that is not; what is taken is never sent in the clear to elsewhere.
func FuzzURL(f *testing.F) {
	for _, u := range []string{"s3://b/p?endpoint=http://127.0.0.1:9&region=r", "s3://u:hunter2@b", "file:///d", "azblob://c?storage_account=a&domain=d",
		"s3://b?endpoint=http://[::1]:9", "gs://b", "s3://b?endpoint=https://u:hunter2@h", "s3://b?endpoint=http://127.0.0.1.example.org"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if CheckURL(text) != nil {
			return
		}
		u, err := url.Parse(text)
		if err != nil || u.User != nil {
			t.Fatalf("%q was taken: %v", text, err)
		}
		e, err := url.Parse(u.Query().Get("endpoint"))
		if err != nil || e.User != nil {
			t.Fatalf("%q was taken: %v", text, err)
		}
		if e.Scheme == "http" && u.Query().Get("insecure") != "true" {
			if h := e.Hostname(); h != "localhost" && h != "::1" && !strings.HasPrefix(h, "127.") && !strings.HasPrefix(h, "::ffff:127.") && !strings.HasPrefix(h, "::ffff:7f") {
				t.Errorf("%q sends to %s in the clear", text, h)
			}
		}
	})
}

// FuzzAnswers has a helper say anything: every call ends.
func FuzzAnswers(f *testing.F) {
	frame := func(id uint32, kind byte, body ...[]byte) []byte {
		var b bytes.Buffer
		if err := writeFrame(&b, id, kind, body...); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	object := appendObject(nil, Object{Key: "k", Size: 7, ModTime: time.Unix(1, 0)})
	f.Add(bytes.Join([][]byte{frame(1, saidOK, []byte("bytes")), frame(2, saidOK, object), frame(3, saidMore, object, object), frame(3, saidOK, object)}, nil))
	f.Add(bytes.Join([][]byte{frame(1, saidEOF, []byte("by")), frame(2, saidFailed, []byte("why")), frame(3, saidEOF+1, []byte("gone"))}, nil))
	f.Add(binary.LittleEndian.AppendUint32(nil, 0xffffffff))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := newHelperConn(discard{})
		go func() { c.broken(c.read(bytes.NewReader(said))) }()
		p := make([]byte, 5)
		if n, _ := c.ReadAt(t.Context(), "k", p, 0); n > len(p) {
			t.Errorf("%d bytes", n)
		}
		_, _ = c.Stat(t.Context(), "k")
		n := 0
		for _, err := range c.List(t.Context(), "", "") {
			if err == nil {
				n++
			}
		}
		if n > len(said) {
			t.Errorf("%d objects of %d bytes", n, len(said))
		}
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// FuzzSeen reads what a store knows of a remote, which a disk or an older Curi
// may have left in any state.
func FuzzSeen(f *testing.F) {
	d := cas.Sum(nil).String()
	f.Add([]byte(`{"remote":"0011223344556677","versions":[{"name":"m","version":1,"tree":"` + d + `","time":"2026-01-02T03:04:05Z","bytes":1,"files":1,"token":"T"}],"tags":[{"name":"m","tag":"best","version":1,"n":1}]}`))
	f.Add([]byte(`{"versions":[{}],"tags":[{}]}`))
	f.Add([]byte(`{"versions":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		seen, err := parseSeen(b)
		if err != nil {
			return
		}
		_, _ = seen.Find("m", 0)
		_, _ = seen.FindTag("m", "best")
		for _, v := range seen.Newest("") {
			_ = seen.TagsOf(v)
		}
	})
}

// TestHostileLengths: what promises more than it has costs no memory for that.
func TestHostileLengths(t *testing.T) {
	root := cas.Sum(nil)
	most := recipeHead{root: root, size: 1 << 50}
	long := append(make([]byte, 0, 200), most.fixedHead(maxHead, maxHead)...)
	head := func(nums ...uint64) []byte {
		var b []byte
		for _, n := range nums {
			b = binary.AppendUvarint(b, n)
		}
		return append(b, make([]byte, 100)...)
	}
	frames := func(n uint32) []byte { return append(binary.LittleEndian.AppendUint32(nil, n), 1, 0, 0, 0, saidOK) }
	const huge = 1 << 40
	for name, try := range map[string]func() error{
		"recipe":    func() error { _, _, err := openTest(t, root, long); return err },
		"head":      func() error { _, err := parseHead(head(1, 1, 1, 1, 1, huge), root, 64, huge); return err },
		"tree page": func() error { _, err := parseWhole(append([]byte{wholeTrees}, head(huge)...), 0, 0, &most); return err },
		"tree": func() error {
			_, err := parseWhole(append([]byte{wholeTrees, 1}, head(huge)...), 0, 0, &most)
			return err
		},
		"part": func() error {
			_, err := parsePart(append([]byte{partOfTree}, head(huge, 0, huge, 0, huge)...), 0, root, huge, &most)
			return err
		},
		"chunk page": func() error { _, err := parseChunkPage(head(huge), 0, huge); return err },
		"chunks":     func() error { _, err := parseChunkPage(head(0, huge), 0, huge); return err },
		"planes":     func() error { return decodeChunk(make([]byte, 10), head(huge), encPlanes4) },
		"zstd":       func() error { return decodeChunk(make([]byte, 10), zstdAppend(nil, make([]byte, maxChunk)), encZstd) },
		"frame":      func() error { c := newHelperConn(discard{}); return c.read(bytes.NewReader(frames(0xffffffff))) },
		"object":     func() error { d := &decoder{b: head(huge)}; d.object(); return d.end() },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := try()
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%s: took %d bytes", name, n)
		}
	}
}
