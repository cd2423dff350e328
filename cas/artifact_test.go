package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func init() {
	childRoles["publish"] = func(ctx context.Context, s *Store, args []string) error {
		fmt.Println("ready")
		untilStdinEnds()
		for _, arg := range args {
			d, err := ParseDigest(arg)
			if err != nil {
				return err
			}
			v, isNew, err := s.Publish(ctx, "race", d, PublishOptions{Tag: "last"})
			if err != nil {
				return err
			}
			fmt.Println(v.N, isNew)
		}
		return nil
	}
}

func TestPublish(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	one := putFiles(t, s, map[string]string{"a": "1"})
	two := putFiles(t, s, map[string]string{"a": "2"})
	publish := func(d Digest, o PublishOptions, n int, isNew bool) {
		t.Helper()
		v, fresh, err := s.Publish(ctx, "digits", d, o)
		if err != nil || v.N != n || fresh != isNew || v.Tree != d || v.Name != "digits" {
			t.Errorf("published %+v, new %v, %v; want version %d, new %v", v, fresh, err, n, isNew)
		}
	}
	publish(one, PublishOptions{MadeBy: "dataset-1.data"}, 1, true)
	publish(one, PublishOptions{Tag: "best"}, 1, false)
	publish(two, PublishOptions{}, 2, true)
	publish(one, PublishOptions{}, 3, true)

	check := func(selector string, n int, tags ...string) {
		t.Helper()
		v, err := s.Version(ctx, "digits", selector)
		if err != nil || v.N != n || !slices.Equal(v.Tags, tags) {
			t.Errorf("digits@%s is %+v, %v; want %d with tags %q", selector, v, err, n, tags)
		}
	}
	check("", 3)
	check("1", 1, "best")
	check("best", 1, "best")
	if err := s.Tag(ctx, "digits", 2, "best"); err != nil {
		t.Error(err)
	}
	if err := s.Tag(ctx, "digits", 2, "a"); err != nil {
		t.Error(err)
	}
	check("best", 2, "a", "best")
	check("1", 1)
	if v, err := s.Version(ctx, "digits", "1"); err != nil || v.MadeBy != "dataset-1.data" || v.Time.IsZero() {
		t.Errorf("got %+v, %v", v, err)
	}
	for _, c := range []struct {
		name, selector string
		want           error
	}{
		{"digits", "4", ErrNotFound}, {"digits", "none", ErrNotFound}, {"other", "", ErrNotFound},
		{"digits", "0", ErrInvalid}, {"digits", "01", ErrInvalid}, {"digits", "../v/1", ErrInvalid}, {"a/b", "", ErrInvalid},
	} {
		if _, err := s.Version(ctx, c.name, c.selector); !errors.Is(err, c.want) {
			t.Errorf("%s@%s: %v", c.name, c.selector, err)
		}
	}
	if err := s.Tag(ctx, "digits", 9, "best"); !errors.Is(err, ErrNotFound) {
		t.Errorf("tagging what is not there: %v", err)
	}
	if _, _, err := s.Publish(ctx, "digits", Sum([]byte("no tree")), PublishOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("publishing what is not stored: %v", err)
	}
	if _, _, err := s.Publish(ctx, "model", two, PublishOptions{}); err != nil {
		t.Error(err)
	}
	var names []string
	for v, err := range s.Artifacts(ctx, "") {
		if err != nil {
			t.Error(err)
		}
		names = append(names, v.Name+"@"+strconv.Itoa(v.N))
	}
	if !slices.Equal(names, []string{"digits@3", "model@1"}) {
		t.Errorf("artifacts %q", names)
	}
	for v := range s.Artifacts(ctx, "mod") {
		if v.Name != "model" {
			t.Errorf("%s has not the prefix", v.Name)
		}
	}
}

func TestRemovedNumbersAreNotGivenAgain(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	trees := make([]Digest, 6)
	for i := range trees {
		trees[i] = putFiles(t, s, map[string]string{"a": strconv.Itoa(i)})
	}
	for i := range 4 {
		if _, _, err := s.Publish(ctx, "x", trees[i], PublishOptions{Tag: fmt.Sprintf("t%d", i+1)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveVersions(ctx, "x", []int{2, 9}); !errors.Is(err, ErrNotFound) {
		t.Errorf("removing what is not there: %v", err)
	}
	if _, err := s.Version(ctx, "x", "2"); err != nil {
		t.Errorf("and it removed the other: %v", err)
	}
	if err := s.RemoveVersions(ctx, "x", []int{2, 4}); err != nil {
		t.Fatal(err)
	}
	vs, err := s.Versions(ctx, "x")
	if err != nil || len(vs) != 2 || vs[0].N != 1 || vs[1].N != 3 || !slices.Equal(vs[1].Tags, []string{"t3"}) {
		t.Errorf("left: %+v, %v", vs, err)
	}
	if v, err := s.Version(ctx, "x", ""); err != nil || v.N != 3 {
		t.Errorf("the newest is %+v, %v", v, err)
	}
	for _, sel := range []string{"4", "t4", "2", "t2"} {
		if _, err := s.Version(ctx, "x", sel); !errors.Is(err, ErrNotFound) {
			t.Errorf("x@%s: %v", sel, err)
		}
	}
	// A collection thins the marks out, and numbers still go on.
	if _, err := s.Collect(ctx, CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if v, _, err := s.Publish(ctx, "x", putFiles(t, s, map[string]string{"a": "new"}), PublishOptions{}); err != nil || v.N != 5 {
		t.Errorf("next: %+v, %v", v, err)
	}
	if err := s.RemoveVersions(ctx, "x", []int{1, 3, 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Versions(ctx, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an artifact without versions: %v", err)
	}
	for v := range s.Artifacts(ctx, "") {
		t.Errorf("%s is listed", v.Name)
	}
	if _, err := s.Collect(ctx, CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if v, _, err := s.Publish(ctx, "x", putFiles(t, s, map[string]string{"a": "newer"}), PublishOptions{}); err != nil || v.N != 6 {
		t.Errorf("after all were removed: %+v, %v", v, err)
	}
}

func TestPublishRace(t *testing.T) {
	s := newTestStore(t)
	const workers, each = 4, 10
	var cs []*child
	for w := range workers {
		var args []string
		for i := range each {
			args = append(args, putFiles(t, s, map[string]string{"a": fmt.Sprintf("%d.%d", w, i)}).String())
		}
		cs = append(cs, startChild(t, "publish", s, nil, args...))
	}
	for _, c := range cs {
		c.line()
	}
	for _, c := range cs {
		c.stdin.Close()
	}
	given := map[string]bool{}
	for _, c := range cs {
		for _, l := range c.rest() {
			if given[l] || !strings.HasSuffix(l, " true") {
				t.Errorf("version %q, given already: %v", l, given[l])
			}
			given[l] = true
		}
	}
	vs, err := s.Versions(t.Context(), "race")
	if err != nil || len(vs) != workers*each || vs[len(vs)-1].N != workers*each {
		t.Errorf("%d versions, want %d: %v", len(vs), workers*each, err)
	}
	if _, err := s.Version(t.Context(), "race", "last"); err != nil {
		t.Error(err)
	}
}

func TestPublishTheSameAtOnce(t *testing.T) {
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "1"}).String()
	var cs []*child
	for range 4 {
		cs = append(cs, startChild(t, "publish", s, nil, d))
	}
	for _, c := range cs {
		c.line()
	}
	for _, c := range cs {
		c.stdin.Close()
	}
	made := 0
	for _, c := range cs {
		for _, l := range c.rest() {
			if l == "1 true" {
				made++
			} else if l != "1 false" {
				t.Errorf("got %q", l)
			}
		}
	}
	if made != 1 {
		t.Errorf("%d made version 1", made)
	}
}

func TestArtifactGolden(t *testing.T) {
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "1"})
	v, _, err := s.Publish(t.Context(), "x", d, PublishOptions{Tag: "best", MadeBy: "train-1.model"})
	if err != nil {
		t.Fatal(err)
	}
	when, _ := v.Time.MarshalText()
	for path, want := range map[string]string{
		"refs/artifact/x/v/1":       `{"tree":"` + d.String() + `","time":"` + string(when) + `","made_by":"train-1.model"}`,
		"refs/artifact/x/tags/best": `{"version":1}`,
		ChangedFile:                 "00000000000000000001",
	} {
		b, err := os.ReadFile(filepath.Join(s.Dir(), path))
		if err != nil || string(b) != want+"\n" {
			t.Errorf("%s is %q, %v; want %q", path, b, err, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "digits", "Model_2-b", "deadbee", "x1234567", strings.Repeat("x", 100), "_", "1a-", "123456789-"} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "1", "20240101", "deadbeef", "DEADBEEF00", strings.Repeat("x", 101), "a.b", "a/b", "a b", "ä", "..", "a@b", "-x", "a\n"} {
		if err := CheckName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A tag that moves away from a version just as that is removed stays.
func TestTagThatMovedIsNotRemoved(t *testing.T) {
	s, ctx := newTestStore(t), t.Context()
	for _, content := range []string{"one", "two"} {
		if _, _, err := s.Publish(ctx, "x", putFiles(t, s, map[string]string{"f": content}), PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Tag(ctx, "x", 2, "best"); err != nil {
		t.Fatal(err)
	}
	// As it was listed before it moved.
	if err := s.removeTag(ctx, "x", 1, "best"); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Version(ctx, "x", "best"); err != nil || v.N != 2 {
		t.Errorf("the tag that moved: version %d, %v", v.N, err)
	}
	if err := s.removeTag(ctx, "x", 2, "best"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Version(ctx, "x", "best"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the tag that was removed: %v", err)
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte(`{"tree":"` + strings.Repeat("ab", 32) + `","time":"2026-01-02T03:04:05Z","made_by":"train-7f3k2m.model","tags":["best"]}`))
	f.Add([]byte(`{"removed":true}`))
	f.Add([]byte(`{"tree":null,"removed":false}`))
	f.Add([]byte("\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseVersion(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		enc, err := encodeJSON(versionFile{Version: v})
		if err != nil {
			t.Fatalf("what was parsed cannot be written: %v", err)
		}
		again, err := parseVersion(enc)
		if err != nil || again.Tree != v.Tree || !again.Time.Equal(v.Time) || again.MadeBy != v.MadeBy {
			t.Fatalf("%q became %q: %v", b, enc, err)
		}
	})
}
