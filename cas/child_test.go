package cas

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// childRole makes the test binary a process of another user of the store.
const childRole = "CURI_CAS_TEST_CHILD"

// childRoles are what child processes do: with the store in args[0], until
// stdin ends. What they print, one line each, the test reads.
var childRoles = map[string]func(ctx context.Context, s *Store, args []string) error{}

func TestMain(m *testing.M) {
	role := os.Getenv(childRole)
	if role == "" {
		os.Exit(m.Run())
	}
	os.Exit(runChild(childRoles[role]))
}

func runChild(run func(context.Context, *Store, []string) error) int {
	ctx := context.Background()
	s, err := Open(ctx, os.Args[1], Options{})
	if err == nil {
		err = run(ctx, s, os.Args[2:])
	}
	if err != nil {
		fmt.Println("error:", err)
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

// child is a running child process.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// startChild starts a child; inherit are its descriptors from 3 on.
func startChild(t *testing.T, role string, s *Store, inherit []*os.File, args ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(exe, append([]string{s.Dir()}, args...)...)}
	c.cmd.Env = append(os.Environ(), childRole+"="+role)
	c.cmd.ExtraFiles = inherit
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// line reads the next line that the child prints; "" at the end.
func (c *child) line() string {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil && err != io.EOF {
		c.t.Fatal(err)
	}
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "error:") {
		c.t.Fatalf("child: %s", line)
	}
	return line
}

// rest reads all that the child still prints and waits for its end.
func (c *child) rest() []string {
	c.t.Helper()
	c.stdin.Close()
	var lines []string
	for l := c.line(); l != ""; l = c.line() {
		lines = append(lines, l)
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("child: %v", err)
	}
	return lines
}

// kill is kill -9.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// stdinOpen reports, in a child, whether the test wants it to go on.
func stdinOpen() func() bool {
	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	return func() bool {
		select {
		case <-closed:
			return false
		default:
			return true
		}
	}
}

// untilStdinEnds blocks a child.
func untilStdinEnds() { io.Copy(io.Discard, os.Stdin) }
