package stages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func needGit(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("git is not installed")
		}
		t.Skip("git is not installed")
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCapture(t *testing.T) {
	needGit(t)
	dir := writeFiles(t, map[string]string{
		"train.py": "old\n", "server.key": "TRACKEDSECRET\n", "conf/private.yaml": "PRIVATE\n", "gone.py": "x\n",
		".gitignore": "*.log\n", ".curiignore": "private.yaml\nsecrets/\n",
	})
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "remote", "add", "origin", "https://ada:TOKENSECRET@example.org/team/digits.git")
	p := Project{Name: "p", Dir: dir}

	st, err := Capture(t.Context(), p)
	if err != nil || st == nil || st.Commit != "" {
		t.Fatalf("before the first commit: %+v, %v", st, err)
	}
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "first")
	st, err = Capture(t.Context(), p)
	if err != nil || len(st.Commit) != 40 || st.Branch != "main" || st.Remote != "example.org/team/digits" || st.Dirty || st.Diff != "" || len(st.Untracked) != 0 {
		t.Fatalf("a clean repository: %+v, %v", st, err)
	}

	write(t, dir, "train.py", "new <line>\n")
	write(t, dir, "server.key", "NEWSECRET1\n")
	write(t, dir, "conf/private.yaml", "NEWSECRET2\n")
	if err := os.Remove(filepath.Join(dir, "gone.py")); err != nil {
		t.Fatal(err)
	}
	secrets := []string{".env", ".env.local", "sub/.env", "tls.pem", "a.key", "id_rsa", "id_ed25519.pub", "credentials", "credentials.json", "sub/Credentials.json", "secrets/x", "conf/sub/private.yaml", "noise.log", "store/blobs/x"}
	for _, name := range secrets {
		write(t, dir, name, "UNTRACKEDSECRET\n")
	}
	write(t, dir, "notes.txt", "todo\n")
	write(t, dir, "blob.bin", "\xff\xfe")
	write(t, dir, "big.bin", strings.Repeat("x", maxUntrackedFile+1))
	git(t, dir, "rm", "-q", "--cached", "server.key")

	st, err = Capture(t.Context(), p, filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	if !st.Dirty || !strings.Contains(st.Diff, "+new <line>") || !strings.Contains(st.Diff, "gone.py") || !strings.Contains(st.DiffNote, "2 changed files left out") {
		t.Errorf("the diff is %q (%s)", st.Diff, st.DiffNote)
	}
	rec := &Record{Format: 1, Key: "k", Run: "r", Git: st}
	text, err := rec.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "SECRET") {
		t.Errorf("a secret got into the record:\n%s", text)
	}
	var names []string
	for _, u := range st.Untracked {
		names = append(names, u.Path+":"+u.Note)
	}
	if got := strings.Join(names, " "); got != "big.bin:longer than 1 MiB blob.bin: notes.txt:" {
		t.Errorf("untracked are %s", got)
	}
	if u := st.Untracked[2]; u.Text != "todo\n" {
		t.Errorf("notes.txt is %+v", u)
	}

	p.Capture = CaptureNone
	if st, err := Capture(t.Context(), p); st != nil || err != nil {
		t.Errorf("capture: none keeps %+v, %v", st, err)
	}
	if st, err := Capture(t.Context(), Project{Dir: t.TempDir()}); st != nil || err != nil {
		t.Errorf("no repository: %+v, %v", st, err)
	}
}

// A path that git is given also means all that lies below it.
func TestCaptureOfAFileThatBecameADirectory(t *testing.T) {
	needGit(t)
	dir := writeFiles(t, map[string]string{"conf": "old\n", "keep/a.txt": "old\n"})
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "first")
	git(t, dir, "rm", "-q", "conf")
	write(t, dir, "conf/.env", "STAGEDSECRET\n")
	write(t, dir, "conf/plain.txt", "plain\n")
	git(t, dir, "add", "-f", "conf")
	st, err := Capture(t.Context(), Project{Name: "p", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(st.Diff, "SECRET") || !strings.Contains(st.Diff, "-old") || !strings.Contains(st.Diff, "+plain") || !strings.Contains(st.DiffNote, "1 changed files left out") {
		t.Errorf("the diff is %q (%s)", st.Diff, st.DiffNote)
	}
}

func TestFindProject(t *testing.T) {
	needGit(t)
	dir := writeFiles(t, map[string]string{"repo/a/b/x": "", "repo/exp/curi.yaml": "project: digits\ncapture: none\nstages: {}\n", "repo/exp/sub/x": "", "repo/unnamed/curi.yaml": "stages: {}\n"})
	repo := filepath.Join(dir, "repo")
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "remote", "add", "origin", "git@example.org:team/digits.git")
	git(t, repo, "add", ".")
	git(t, repo, "commit", "-q", "-m", "first")
	tree := filepath.Join(dir, "tree")
	git(t, repo, "worktree", "add", "-q", tree)
	for from, want := range map[string]Project{
		"repo/a/b":      {Name: "example.org/team/digits", Dir: repo},
		"repo/exp/sub":  {Name: "digits", Dir: filepath.Join(repo, "exp"), Capture: CaptureNone},
		"repo/unnamed":  {Name: "example.org/team/digits", Dir: filepath.Join(repo, "unnamed")},
		"tree/a":        {Name: "example.org/team/digits", Dir: tree},
		"nothing/at/my": {Name: "my", Dir: filepath.Join(dir, "nothing/at/my")},
	} {
		got, err := FindProject(filepath.Join(dir, from))
		if err != nil || got != want {
			t.Errorf("%s: is in %+v (%v), want %+v", from, got, err, want)
		}
	}
	write(t, dir, "bad/curi.yaml", "project: [\n")
	if _, err := FindProject(filepath.Join(dir, "bad")); err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "curi.yaml") {
		t.Errorf("a broken curi.yaml: %v", err)
	}
}

func TestRemoteNames(t *testing.T) {
	for remote, want := range map[string]string{
		"https://example.org/team/repo.git":           "example.org/team/repo",
		"https://user:token@example.org:8443/a/b":     "example.org/a/b",
		"ssh://git@example.org:22/team/repo.git":      "example.org/team/repo",
		"git@example.org:team/repo.git":               "example.org/team/repo",
		"example.org:/srv/repo.git":                   "example.org/srv/repo",
		"/srv/git/repo.git":                           "repo",
		"file:///srv/git/repo.git":                    "repo",
		"../repo":                                     "repo",
		"git@example.org:team/repo.git/":              "example.org/team/repo",
		"https://x-access-token:abc@example.org/a/b/": "example.org/a/b",
		// What git takes and net/url does not.
		"https://ada:pa^ss%wo{rd@example.org/a/b.git": "example.org/a/b",
		"https://ada:p@ss@example.org:8443/a/b":       "example.org/a/b",
		"https://example.org/a/b?token=abc":           "example.org/a/b",
		"https://o@dev.example.org/o/My%20P/_git/r":   "dev.example.org/o/My P/_git/r",
		"ssh://git@[::1]:22/a/b":                      "::1/a/b",
	} {
		if got := nameOfURL(remote); got != want {
			t.Errorf("%s: is called %q, want %q", remote, got, want)
		}
	}
}

func TestFindPython(t *testing.T) {
	dir := t.TempDir()
	python := filepath.Join(dir, "venv/bin/python3.11")
	write(t, dir, "venv/bin/python3.11", "")
	write(t, dir, "venv/pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
	write(t, dir, "venv/bin/torchrun", "#!"+python+"\nimport torch\n")
	write(t, dir, "venv/bin/long", "#!/bin/sh\n'''exec' \""+python+"\" \"$0\" \"$@\"\n' '''\n")
	write(t, dir, "venv/bin/tool", "#!/bin/sh\necho\n")
	for _, name := range []string{"torch-2.15.0+cpu.dist-info", "pytorch_lightning-2.6.6.dist-info", "old-1.0-py3.11.egg-info", "torch", "~orch-1.dist-info"} {
		write(t, dir, "venv/lib/python3.11/site-packages/"+name+"/x", "")
	}
	for _, name := range []string{"python3.11", "torchrun", "long", "tool"} {
		if err := os.Chmod(filepath.Join(dir, "venv/bin", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	environ := []string{"PATH=/nowhere:" + filepath.Join(dir, "venv/bin")}
	for _, argv := range [][]string{
		{"torchrun", "--standalone", "train.py"}, {"python3.11", "x.py"}, {python}, {"long"}, {"env", "A=1", "torchrun"}, {"venv/bin/torchrun"},
	} {
		got := FindPython(argv, environ, dir)
		if got == nil || got.Path != python || len(got.Packages) != 3 || got.Packages[0] != (PythonPackage{"old", "1.0"}) || got.Packages[1] != (PythonPackage{"pytorch-lightning", "2.6.6"}) || got.Packages[2] != (PythonPackage{"torch", "2.15.0+cpu"}) {
			t.Errorf("%q: uses %+v", argv, got)
		}
	}
	if got := FindPython([]string{"tool"}, environ, dir); got != nil {
		t.Errorf("a shell script uses %+v", got)
	}
}
