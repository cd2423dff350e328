package stages

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Project is where a stage belongs.
type Project struct {
	Name string // `project:` in curi.yaml, else git's remote, else the directory's name
	Dir  string // the directory of curi.yaml, else git's top level, else the current one

	// Capture is `capture:` in curi.yaml, which a caller's configuration may
	// set too: [CaptureNone], or "" for all that [Capture] keeps.
	Capture string
}

// CaptureNone keeps git's diff and untracked files out of records.
const CaptureNone = "none"

// FindProject finds the project of a directory: the nearest directory above
// it with a curi.yaml, else git's top level, else the directory itself.
// It starts no git.
func FindProject(dir string) (Project, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Project{}, fmt.Errorf("find the project: %w", err)
	}
	top, gitDir := findUp(dir, "curi.yaml"), findUp(dir, ".git")
	p := Project{Dir: top}
	if top != "" {
		if err := p.readFile(filepath.Join(top, "curi.yaml")); err != nil {
			return Project{}, err
		}
	}
	if p.Dir == "" {
		p.Dir = gitDir
	}
	if p.Dir == "" {
		p.Dir = dir
	}
	if p.Name == "" && gitDir != "" {
		p.Name = remoteName(filepath.Join(gitDir, ".git"))
	}
	if p.Name == "" {
		p.Name = filepath.Base(p.Dir)
	}
	return p, nil
}

func findUp(dir, name string) string {
	for {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// readFile reads `project:` and `capture:` of a curi.yaml. A stage run by
// options needs no more of the file, so the rest is not judged here.
func (p *Project) readFile(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the project's file: %w", err)
	}
	if !bytes.Contains(b, []byte("project")) && !bytes.Contains(b, []byte("capture")) {
		return nil
	}
	var head struct {
		Project string `yaml:"project"`
		Capture string `yaml:"capture"`
	}
	if err := yaml.Unmarshal(b, &head); err != nil {
		return usagef("%s: %v", file, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if head.Capture != "" && head.Capture != CaptureNone {
		return usagef("%s: capture: %q is unknown: write none, or leave the line out", file, head.Capture)
	}
	p.Name, p.Capture = head.Project, head.Capture
	return nil
}

// remoteName reads the URL of the remote called origin, else of the only one,
// from git's configuration: "host/owner/name" without user, scheme and ".git".
func remoteName(dotGit string) string {
	remotes, err := gitRemotes(dotGit)
	if err != nil || len(remotes) == 0 {
		return ""
	}
	u, ok := remotes["origin"]
	if !ok {
		if len(remotes) > 1 {
			return ""
		}
		for _, only := range remotes {
			u = only
		}
	}
	return nameOfURL(u)
}

func nameOfURL(remote string) string {
	name := strings.TrimPrefix(remote, "file://")
	if scheme, rest, ok := strings.Cut(name, "://"); ok && !strings.Contains(scheme, "/") {
		// Not by net/url: git takes passwords that are no part of a URL, and what
		// does not parse must not show them.
		host, p, _ := strings.Cut(rest, "/")
		host = host[strings.LastIndexByte(host, '@')+1:]
		if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
			host = host[:i]
		}
		if i := strings.IndexAny(p, "?#"); i >= 0 {
			p = p[:i]
		}
		if plain, err := url.PathUnescape(p); err == nil {
			p = plain
		}
		name = strings.Trim(host, "[]") + "/" + p
	} else if host, p, ok := strings.Cut(name, ":"); ok && !strings.Contains(host, "/") {
		if _, h, at := strings.Cut(host, "@"); at {
			host = h
		}
		name = host + "/" + strings.TrimPrefix(p, "/")
	} else {
		// A path of this machine: its last part is what others see too.
		name = path.Base(strings.TrimSuffix(filepath.ToSlash(name), "/"))
		if name == ".git" || name == "." || name == "/" {
			return ""
		}
	}
	return strings.TrimSuffix(strings.TrimSuffix(name, "/"), ".git")
}

// gitRemotes parses the remotes' URLs out of git's config file.
func gitRemotes(dotGit string) (map[string]string, error) {
	common, err := gitCommonDir(dotGit)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(common, "config"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	remotes := map[string]string{}
	remote := ""
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		line := strings.TrimSpace(scan.Text())
		if strings.HasPrefix(line, "[") {
			remote = ""
			if rest, ok := strings.CutPrefix(line, `[remote "`); ok {
				remote, _, _ = strings.Cut(rest, `"]`)
			}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if remote != "" && ok && strings.EqualFold(strings.TrimSpace(key), "url") {
			if _, dup := remotes[remote]; !dup {
				remotes[remote] = strings.Trim(strings.TrimSpace(value), `"`)
			}
		}
	}
	return remotes, scan.Err()
}

// gitCommonDir is the directory that holds git's config: .git itself, or what
// the .git file of a worktree or submodule leads to.
func gitCommonDir(dotGit string) (string, error) {
	info, err := os.Stat(dotGit)
	if err != nil {
		return "", err
	}
	dir := dotGit
	if !info.IsDir() {
		b, err := os.ReadFile(dotGit)
		if err != nil {
			return "", err
		}
		target, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "gitdir: ")
		if !ok {
			return "", fmt.Errorf("%s: not a file of git", dotGit)
		}
		dir = target
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(filepath.Dir(dotGit), dir)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "commondir"))
	if errors.Is(err, fs.ErrNotExist) {
		return dir, nil
	}
	if err != nil {
		return "", err
	}
	common := strings.TrimSpace(string(b))
	if !filepath.IsAbs(common) {
		common = filepath.Join(dir, common)
	}
	return common, nil
}
