package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs testdata/script through the real binaries. Beside
// testscript's own commands the scripts have
//
//	fails STATUS PROGRAM ARGS…   must exit so, with one line that begins with "curi:"
//	json PATH WANT               a value in the JSON on stdout; PATH is a.b[0].c, or len:PATH for how long a list is
//	unmount DIR                  at the end of the script, whatever happens
//
// and the conditions [fuse] and [root], which are failures in CI where they
// do not hold.
func TestScript(t *testing.T) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			e.Setenv("CURI_STORE", e.WorkDir+"/store")
			e.Setenv("HOME", e.WorkDir+"/home")
			e.Setenv("XDG_CONFIG_HOME", "")
			e.Setenv("XDG_DATA_HOME", "")
			e.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
			e.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(e.WorkDir))
			e.Setenv("LANG", "C.UTF-8")
			// The project's boundary: without it the repository of these tests would be it.
			if err := os.WriteFile(e.WorkDir+"/curi.yaml", []byte("project: demo\n"), 0o644); err != nil {
				return err
			}
			return os.Mkdir(e.WorkDir+"/home", 0o755)
		},
		Condition: func(cond string) (bool, error) {
			ok := false
			switch cond {
			case "fuse":
				f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
				if ok = err == nil; ok {
					f.Close()
				}
			case "root":
				ok = os.Geteuid() == 0
			default:
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			if !ok && os.Getenv("CI") == "true" {
				return false, fmt.Errorf("CI must be able to run this: needs %s", cond)
			}
			return ok, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": scriptFails, "json": scriptJSON, "unmount": scriptUnmount,
		},
	})
}

// scriptFails runs a program that must fail as Curi promises to.
func scriptFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails STATUS PROGRAM ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	status := 0
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	}
	said := ts.ReadFile("stderr")
	if status != want {
		ts.Fatalf("exit status %d, want %d\n%s", status, want, said)
	}
	if !strings.HasPrefix(said, "curi: ") || strings.Count(said, "\n") != 1 || strings.Contains(said, "goroutine") {
		ts.Fatalf("want one line that begins with \"curi: \", got\n%s", said)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("a failed command wrote to stdout: %s", out)
	}
}

var jsonStep = regexp.MustCompile(`^([^.\[\]]+|\[\d+\])\.?`)

// scriptJSON looks a value up in the JSON that the last command printed. A
// string that begins with ~ is a regular expression.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json PATH WANT")
	}
	var v any
	out := ts.ReadFile("stdout")
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		ts.Fatalf("stdout is no JSON: %v\n%s", err, out)
	}
	path, counted := strings.CutPrefix(args[0], "len:")
	for rest := path; rest != ""; {
		m := jsonStep.FindStringSubmatch(rest)
		if m == nil {
			ts.Fatalf("bad path %q", args[0])
		}
		rest = rest[len(m[0]):]
		if i, isIndex := strings.CutPrefix(m[1], "["); isIndex {
			list, _ := v.([]any)
			n, _ := strconv.Atoi(strings.TrimSuffix(i, "]"))
			if n >= len(list) {
				ts.Fatalf("%s: there is no element %d in\n%s", args[0], n, out)
			}
			v = list[n]
			continue
		}
		object, _ := v.(map[string]any)
		field, ok := object[m[1]]
		if !ok {
			ts.Fatalf("%s: there is no field %q in\n%s", args[0], m[1], out)
		}
		v = field
	}
	got := fmt.Sprint(v)
	switch x := v.(type) {
	case []any:
		if counted {
			got = strconv.Itoa(len(x))
			break
		}
		b, _ := json.Marshal(x)
		got = string(b)
	case map[string]any:
		b, _ := json.Marshal(x)
		got = string(b)
	case nil:
		got = "null"
	case float64:
		got = strconv.FormatFloat(x, 'f', -1, 64)
	}
	equal := got == args[1]
	if expr, ok := strings.CutPrefix(args[1], "~"); ok {
		equal = regexp.MustCompile(expr).MatchString(got)
	}
	if equal == neg {
		ts.Fatalf("%s is %q, want %s%q", args[0], got, map[bool]string{true: "not "}[neg], args[1])
	}
}

// scriptUnmount makes sure that a mount is gone when the script ends.
func scriptUnmount(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Defer(func() {
		_ = exec.Command("fusermount3", "-uzq", dir).Run()
	})
}

// TestCommandsPage checks that docs/commands.md is what the commands say.
func TestCommandsPage(t *testing.T) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	want, err := exec.Command(filepath.Join(bin, "curi"), "docs").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("docs/commands.md is not what the commands say; run go generate ./cmd/curi")
	}
}
