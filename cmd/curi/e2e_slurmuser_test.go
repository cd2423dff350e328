package main_test

import (
	"os"
	"strings"
	"testing"
)

// An unprivileged user's stages are jobs as root's are, with a mount by
// fusermount3 on the node, and without: shown, cancelled, and cached.
func TestSlurmUnprivileged(t *testing.T) {
	for name, options := range map[string][]string{"mount": nil, "no mount": {"--no-mount"}} {
		t.Run(name, func(t *testing.T) {
			s := slurmSite(t, byUser)
			argv := s.batchArgv(`id -u; stat -f -c %T {root}; echo "begun in {root}"; echo c > {work.w}/c; `+untilGo+`cat {in.d}/numbers.txt > {out.model}`,
				append(options, "--slurm", "partition=other", "--in", "d=digits", "--work", "w")...)
			j := s.begin(argv...)
			s.eventually(j, "the job to begin", func() bool { return strings.Contains(j.stderr.String(), "\nbegun in ") })
			if err := j.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if o := s.finish(j); o.status != 130 {
				t.Errorf("an interrupted job: %s", o)
			}
			if mounted := strings.Contains(j.stderr.String(), "\nfuse"); mounted != (options == nil) {
				t.Errorf("mounted: %v\n%s", mounted, j.stderr)
			}
			s.touch("go")
			o := s.run(argv...)
			if o.status != 0 || !strings.Contains(o.stderr, "\n65534\n") || !strings.Contains(o.stderr, "(try 2, with the work directories of the last)") {
				t.Fatalf("the next try: %s", o)
			}
			got := decode[result](s, o.stdout)
			if text := s.ok("cat", got.Outputs["model"].Path); text != "1 2 3 4\n" {
				t.Errorf("the model is %q", text)
			}
			if again := decode[result](s, s.ok(argv...)); !again.Cached {
				t.Error("the next call was no hit")
			}
			if others := s.ok("find", s.store, "!", "-user", "nobody"); others != "" {
				t.Errorf("not the user's own in the store: %s", others)
			}
		})
	}
}
