//go:build linux

package fusefs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas/remote"
)

const hanging = 100 // readers

// A remote that takes requests and answers none holds up those who read it, and
// nobody else: what is here and what another remote has is read meanwhile.
func TestRemoteHangs(t *testing.T) {
	t.Parallel()
	files := map[string]string{"small": "hello"}
	for i := range hanging {
		files[fmt.Sprint("f", i)] = strings.Repeat(fmt.Sprintf("file %07d\n", i), 100_000)
	}
	f, well := newFar(t, files), newFar(t, map[string]string{"data": noise(1, 3<<20), "small": "well"})
	s := f.store(t)
	if err := (remote.Config{Name: "well", URL: "s3://far" + well.dir, Policy: remote.ByHand}).Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	r := well.open(t)
	defer r.Close()
	if _, err := r.See(t.Context(), s, "well"); err != nil {
		t.Fatal(err)
	}
	publish(t, s, "local", map[string]string{"big": noise(2, 2<<20), "few/small": "here"})
	m := mount(t, s)
	run(t, "ls", "-lR", m.path("remotes", "team", "model"))
	f.tell(t, "hang", true)
	var readers []*exec.Cmd
	ended := make(chan struct{}, hanging)
	for i := range hanging {
		cmd := exec.Command("cat", m.path("remotes", "team", "model", fmt.Sprint("f", i)))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, cmd)
		go func() { cmd.Wait(); ended <- struct{}{} }()
	}
	for _, cmd := range readers {
		eventually(t, func() bool { return sleeps(cmd.Process.Pid) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for path, want := range map[string]string{
		m.path("artifacts", "local", "big"):          noise(2, 2<<20),
		m.path("artifacts", "local", "few", "small"): "here",
		m.path("remotes", "well", "model", "data"):   noise(1, 3<<20),
		m.path("remotes", "well", "model", "small"):  "well",
	} {
		if out, err := exec.CommandContext(ctx, "cat", path).Output(); err != nil || string(out) != want {
			t.Errorf("%s beside readers of a remote that hangs: %d bytes, %v", path, len(out), err)
		}
	}
	if n := len(ended); n > 0 {
		t.Errorf("the others waited until %d of those that hang had given up", n)
	}
	// Whoever waits can be ended, and the rest by the end of the mount.
	wait := func(some int) {
		for i := range some {
			select {
			case <-ended:
			case <-ctx.Done():
				t.Fatalf("%d readers of a remote that hangs cannot be ended", some-i)
			}
		}
	}
	for i, cmd := range readers[:hanging/2] {
		cmd.Process.Signal([]os.Signal{syscall.SIGINT, syscall.SIGKILL}[i%2])
	}
	wait(hanging / 2)
	m.stop(t)
	wait(hanging - hanging/2)
	if strings.Contains(m.log.String(), "no answer within") {
		t.Error("they ended by what the remote could not answer in time")
	}
}
