package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A configKey is a setting that a configuration file may give.
type configKey struct {
	name  string
	usage string
	def   string                                            // "" where def depends on the machine
	env   string                                            // variable that overrides the files
	norm  func(text, base string) (value string, err error) // base is the directory relative paths start from
}

var configKeys = []configKey{
	{"store", "directory of the store", "", "CURI_STORE", normDir},
	{"keep", "how long gc keeps an unnamed stage result that nobody uses", "30d", "", normDuration},
	{"keep_work", "how long gc keeps work directories that nobody uses", "14d", "", normDuration},
	{"max_size", "gc removes the longest unused unnamed results until the store is no larger", "", "", normSize},
	{"min_free", "gc does so until this much space is free", "", "", normSize},
	{"grace", "between TERM and KILL when a stage is ended", "40s", "", normDuration},
	{"timeout", "the longest that a stage may run", "", "", normDuration},
	{"snapshot", "how often stage exec may keep a copy of the work directories in the store, when a checkpoint is complete", "", "", normDuration},
	{"no_mount", "stage exec works on reflinks or copies instead of a mount", "false", "", normBool},
	{"allow_other", "curi mount lets other users in", "false", "", normBool},
	{"quiet", "say less", "false", "", normBool},
	{"verbose", "say more", "false", "", normBool},
}

// config is what the options, the environment and the files say together.
type config struct {
	values map[string]configValue
}

type configValue struct {
	text string
	from string // "--store", "$CURI_STORE", "FILE:LINE", "default"
}

// get returns a setting and where it comes from.
func (c *config) get(name string) (text, from string) {
	v := c.values[name]
	return v.text, v.from
}

// duration returns a setting that was checked to be a duration; 0 if unset.
func (c *config) duration(name string) time.Duration {
	d, _ := parseDuration(c.values[name].text)
	return d
}

// bytes returns a setting that was checked to be a size; 0 if unset.
func (c *config) bytes(name string) int64 {
	n, _ := parseSize(c.values[name].text)
	return n
}

func (c *config) bool(name string) bool { return c.values[name].text == "true" }

// config reads the configuration once: an option beats the environment beats
// the project's file beats the user's file beats the default.
func (a *app) config() (*config, error) {
	if a.cfg != nil {
		return a.cfg, nil
	}
	c := &config{values: map[string]configValue{}}
	for _, k := range configKeys {
		c.values[k.name] = configValue{k.def, "default"}
	}
	cwd, err := currentDir()
	if err != nil {
		return nil, err
	}
	if dir, from, err := a.defaultStore(); err == nil {
		c.values["store"] = configValue{dir, from}
	}
	if dir, err := a.configHome(); err == nil {
		file := filepath.Join(dir, "curi", "config.yaml")
		if err := c.load(file, filepath.Dir(file)); err != nil {
			return nil, err
		}
	}
	top := projectDir(cwd)
	if err := c.load(filepath.Join(top, ".curi", "config.yaml"), top); err != nil {
		return nil, err
	}
	for _, k := range configKeys {
		if k.env == "" || a.getenv(k.env) == "" {
			continue
		}
		v, err := k.norm(a.getenv(k.env), cwd)
		if err != nil {
			return nil, usagef("$%s: %v", k.env, err)
		}
		c.values[k.name] = configValue{v, "$" + k.env}
	}
	if a.storeFlag != "" {
		dir, err := normDir(a.storeFlag, cwd)
		if err != nil {
			return nil, usagef("--store: %v", err)
		}
		c.values["store"] = configValue{dir, "--store"}
	}
	if a.quiet {
		c.values["quiet"] = configValue{"true", "--quiet"}
	}
	if a.verbose {
		c.values["verbose"] = configValue{"true", "--verbose"}
	}
	if c.values["store"].text == "" {
		return nil, usagef("no store: neither HOME nor XDG_DATA_HOME is set; name one with --store DIR or CURI_STORE")
	}
	a.cfg = c
	return c, nil
}

// defaultStore is where the store is unless something says otherwise.
func (a *app) defaultStore() (dir, from string, err error) {
	if d := a.getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "curi"), "default below $XDG_DATA_HOME", nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", "", err
	}
	return filepath.Join(home, ".local", "share", "curi"), "default", nil
}

func (a *app) configHome() (string, error) {
	// The base directory specification has relative paths ignored.
	if d := a.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(d) {
		return d, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".config"), nil
}

// projectDir finds the project of a directory as [stages.FindProject] does,
// without asking git: every command needs it.
func projectDir(dir string) string {
	for _, mark := range []string{"curi.yaml", ".git"} {
		for d := dir; ; d = filepath.Dir(d) {
			if _, err := os.Lstat(filepath.Join(d, mark)); err == nil {
				return d
			}
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	return dir
}

// load reads a file, if there is one, over what c has. Relative paths in it
// start from base.
func (c *config) load(file, base string) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 && !ownFile(file) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	return c.parse(b, file, base)
}

// parse is load of what stands in a file.
func (c *config) parse(b []byte, file, base string) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return usagef("%s: %s", file, strings.TrimPrefix(oneLine(err.Error()), "yaml: "))
	}
	if len(doc.Content) == 0 {
		return nil
	}
	m := doc.Content[0]
	if m.Kind != yaml.MappingNode {
		return usagef("%s:%d: want lines such as `keep: 30d`", file, m.Line)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		at := fmt.Sprintf("%s:%d", file, k.Line)
		key, ok := lookupKey(k.Value)
		if !ok {
			hint := didYouMean(k.Value, configNames())
			if hint == "" {
				hint = "; curi config lists the known ones"
			}
			return usagef("%s: unknown setting %q%s", at, k.Value, hint)
		}
		if line := seen[key.name]; line != 0 {
			return usagef("%s: %s is set already in line %d", at, key.name, line)
		}
		seen[key.name] = k.Line
		if v.Kind != yaml.ScalarNode {
			return usagef("%s: %s: want one value on the same line", at, key.name)
		}
		text, err := key.norm(v.Value, base)
		if err != nil {
			return usagef("%s: %s: %v", at, key.name, err)
		}
		c.values[key.name] = configValue{text, at}
	}
	return nil
}

// ownFile reports whether a file that cannot be read can at least be seen: a
// configuration in a home that is closed to us is none of ours.
func ownFile(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

func lookupKey(name string) (configKey, bool) {
	for _, k := range configKeys {
		if k.name == name {
			return k, true
		}
	}
	return configKey{}, false
}

func configNames() []string {
	var names []string
	for _, k := range configKeys {
		names = append(names, k.name)
	}
	return names
}

func normDir(text, base string) (string, error) {
	if rest, ok := strings.CutPrefix(text, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		text = filepath.Join(home, rest)
	}
	if text == "" {
		return "", errors.New("the directory is empty")
	}
	if strings.ContainsRune(text, 0) {
		return "", errors.New("the directory has a NUL in it")
	}
	if !filepath.IsAbs(text) {
		text = filepath.Join(base, text)
	}
	return filepath.Clean(text), nil
}

func normDuration(text, _ string) (string, error) {
	_, err := parseDuration(text)
	return text, err
}

func normSize(text, _ string) (string, error) {
	_, err := parseSize(text)
	return text, err
}

func normBool(text, _ string) (string, error) {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return "", fmt.Errorf("%q is neither true nor false", text)
	}
	return strconv.FormatBool(b), nil
}
