package stages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// toolTimeout bounds one --tool command, which only prints a version.
const toolTimeout = 60 * time.Second

// toolLine is how much of a tool's first line people see, and toolKept how much
// of its output is held to find that line, in bytes.
const (
	toolLine = 200
	toolKept = 64 << 10
)

// runTools runs each --tool command by sh in the stage's directory and keys
// what it prints, on stdout and stderr together. One that fails is an error:
// its output would be a message, not a version.
func (p *Plan) runTools(ctx context.Context, look *Binder) error {
	for i, command := range p.Tools {
		if slices.Contains(p.Tools[:i], command) {
			continue // said twice, it is one component
		}
		if strings.TrimSpace(command) == "" {
			return usagef("--tool %q: the command is empty: name one that prints a version, such as 'gcc --version'", command)
		}
		result, err := look.tool(ctx, p, command)
		if err != nil {
			return err
		}
		p.Tool = append(p.Tool, result)
	}
	return nil
}

// toolResult runs one and words what it printed.
func (p *Plan) toolResult(ctx context.Context, command string) (ToolResult, error) {
	out, digest, err := p.runTool(ctx, command)
	if err != nil {
		return ToolResult{}, err
	}
	line, _, _ := strings.Cut(strings.TrimLeft(out, "\r\n"), "\n")
	line = strings.TrimRight(line, "\r ")
	if len(line) > toolLine {
		line = strings.ToValidUTF8(line[:toolLine], "")
	}
	return ToolResult{Command: command, Digest: digest, Line: line}, nil
}

// runTool returns the first bytes that a command prints, and the digest of all.
func (p *Plan) runTool(ctx context.Context, command string) (begin string, digest cas.Digest, err error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir = p.Dir
	cmd.Env = p.Environ
	cmd.WaitDelay = time.Second // a child that kept the pipe open does not hold us
	out := &limitedBuffer{limit: toolKept}
	all := cas.NewHasher()
	both := io.MultiWriter(out, all)
	cmd.Stdout, cmd.Stderr = both, both
	err = cmd.Run()
	if ctx.Err() == context.DeadlineExceeded {
		return "", digest, usagef("--tool %q did not end within %s", command, toolTimeout)
	}
	if ctx.Err() != nil {
		return "", digest, ctx.Err()
	}
	if err != nil {
		said := strings.TrimSpace(out.b.String())
		if len(said) > toolLine {
			said = said[:toolLine] + "…"
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if said == "" {
				said = "it printed nothing"
			}
			return "", digest, usagef("--tool %q failed (%v): %s", command, err, strings.ReplaceAll(said, "\n", " / "))
		}
		return "", digest, fmt.Errorf("--tool %q: %w", command, err)
	}
	return out.b.String(), all.Digest(), nil
}
