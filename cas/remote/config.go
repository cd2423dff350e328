package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// Policy says what is published to a remote without being asked.
type Policy string

// The policies.
const (
	Publish  Policy = "publish"   // results of stages, when they are made
	ByHand   Policy = "by-hand"   // what curi push names
	ReadOnly Policy = "read-only" // nothing
)

// ParsePolicy parses the name of a policy; "" is [Publish].
func ParsePolicy(text string) (Policy, error) {
	switch p := Policy(text); p {
	case "":
		return Publish, nil
	case Publish, ByHand, ReadOnly:
		return p, nil
	}
	return "", fmt.Errorf("policy %q: want %s, %s or %s: %w", text, Publish, ByHand, ReadOnly, cas.ErrInvalid)
}

// Config is a remote as a store knows it.
type Config struct {
	Name   string    `json:"-"`
	URL    string    `json:"url"`
	Policy Policy    `json:"policy"`
	Added  time.Time `json:"added"`
}

const configFile = "remote.json"

// Configs lists the remotes of a store, in order of names.
func Configs(ctx context.Context, s *cas.Store) ([]Config, error) {
	ents, err := os.ReadDir(filepath.Dir(s.RemoteFile("x", "")))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list remotes: %w", err)
	}
	var list []Config
	for _, e := range ents {
		if cas.CheckName(e.Name()) != nil {
			continue
		}
		c, err := FindConfig(ctx, s, e.Name())
		if errors.Is(err, cas.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, ctx.Err()
}

// FindConfig reads one; [cas.ErrNotFound].
func FindConfig(ctx context.Context, s *cas.Store, name string) (Config, error) {
	if cas.CheckName(name) != nil {
		return Config{}, fmt.Errorf("remote %q: %w", name, cas.ErrNotFound)
	}
	path := s.RemoteFile(name, configFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("remote %s: %w", name, cas.ErrNotFound)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read remote %s: %w", name, err)
	}
	c := Config{Name: name}
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fmt.Errorf("remote %s: %s: %w: %w", name, path, err, cas.ErrCorrupt)
	}
	return c, ctx.Err()
}

// Save writes c into the store, replacing what it knew under that name.
func (c Config) Save(ctx context.Context, s *cas.Store) error {
	if err := CheckURL(c.URL); err != nil {
		return err
	}
	if _, err := ParsePolicy(string(c.Policy)); err != nil {
		return err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.WriteRemoteFile(ctx, c.Name, configFile, append(b, '\n'))
}

// schemes that a remote's URL may have.
var schemes = []string{"s3", "gs", "azblob", "file"}

// secretWords begin or end names of parameters that would carry a credential.
var secretWords = []string{"secret", "token", "password", "accesskey", "access_key", "sig", "credential"}

// CheckURL reports why a URL cannot be a remote's; the error wraps
// [cas.ErrInvalid]. Credentials in it are refused: they would be stored.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		// The error of the parser repeats the URL, with what may be secret in it.
		return fmt.Errorf("the URL of a remote does not parse: %w", cas.ErrInvalid)
	}
	bad := func(why string) error { return fmt.Errorf("remote URL %s: %s: %w", u.Redacted(), why, cas.ErrInvalid) }
	if !slices.Contains(schemes, u.Scheme) {
		return bad("want one that begins with " + strings.Join(schemes, "://, ") + "://")
	}
	if u.User != nil {
		return fmt.Errorf("remote URL of %s: it holds a user or password, and would be stored; credentials come from the environment, a profile or the machine's role: %w", u.Host, cas.ErrInvalid)
	}
	for name := range u.Query() {
		for _, w := range secretWords {
			if strings.Contains(strings.ToLower(name), w) {
				return fmt.Errorf("remote URL of %s: the parameter %s would store a credential; those come from the environment, a profile or the machine's role: %w", u.Host, name, cas.ErrInvalid)
			}
		}
	}
	if u.Scheme == "file" {
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return bad("want an absolute path, such as file:///shared/curi")
		}
		return nil
	}
	if u.Host == "" {
		return bad("the bucket is missing, as in " + u.Scheme + "://BUCKET/PREFIX")
	}
	return nil
}
