package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
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

// parameters that the URLs of each scheme may have. There is none for a
// credential: it would be stored.
var parameters = map[string][]string{
	"s3":     {"endpoint", "region", "profile", "insecure"},
	"azblob": {"storage_account", "domain"},
}

// CheckURL reports why a URL cannot be a remote's; the error wraps
// [cas.ErrInvalid]. Credentials in it are refused: they would be stored.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		// The error of the parser repeats the URL, with what may be secret in it.
		return fmt.Errorf("the URL of a remote does not parse: %w", cas.ErrInvalid)
	}
	bad := func(why string) error {
		return fmt.Errorf("remote URL %s://%s%s: %s: %w", u.Scheme, u.Host, u.EscapedPath(), why, cas.ErrInvalid)
	}
	if u.Scheme == "" {
		// A path, as it is typed for other programs.
		return fmt.Errorf("remote URL %q: want one that begins with %s://, as file:///shared/curi does: %w", u.EscapedPath(), strings.Join(schemes, "://, "), cas.ErrInvalid)
	}
	if !slices.Contains(schemes, u.Scheme) {
		return bad("want one that begins with " + strings.Join(schemes, "://, ") + "://")
	}
	const chain = "credentials come from the environment, a profile or the machine's role, and are never stored"
	if u.User != nil {
		return bad("it holds a user or password; " + chain)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("its parameters do not parse")
	}
	known := parameters[u.Scheme]
	for name := range q {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return bad(fmt.Sprintf("it takes no parameter such as %q; %s", name, chain))
			}
			return bad(fmt.Sprintf("it takes no parameter %q, only %s; %s", name, strings.Join(known, ", "), chain))
		}
	}
	if e := q.Get("endpoint"); e != "" {
		if why := checkEndpoint(e, q.Get("insecure") == "true"); why != "" {
			return bad(why)
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

// checkEndpoint reports why an address of a server cannot be used, or "".
func checkEndpoint(text string, insecure bool) string {
	e, err := url.Parse(text)
	if err != nil || e.Scheme != "https" && e.Scheme != "http" || e.Host == "" || e.User != nil || e.RawQuery != "" {
		return "the endpoint is to be https://HOST:PORT"
	}
	if e.Scheme == "http" && !insecure && e.Hostname() != "localhost" {
		if ip := net.ParseIP(e.Hostname()); ip == nil || !ip.IsLoopback() {
			return "the endpoint is not encrypted (http://); use https://, or add insecure=true if the network between is trusted"
		}
	}
	return ""
}
