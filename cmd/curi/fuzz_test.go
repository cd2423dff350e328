package main

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/stages"
)

// FuzzStageOptions checks that the options of a stage, one a line, are refused
// in one line or make a stage that the same options written from it make again.
func FuzzStageOptions(f *testing.F) {
	for _, args := range []string{
		"--name=train\n--in=data=digits@2/a\n--out=model=model.ckpt\n--meta=model:type=A=B\n--publish=model=digits-model",
		"--name\nt\n--in-rw\nd=x[lr=0.05,k=[1]].out\n--optional-out=logs=a/b//\n--out-from=logs=/tmp/x/\n--work=c",
		"--name=t\n--out-from=m=../m\n--param=a:list=[1,2]\n--op-param=n=4\n--param=b:str=\n--env=A\n--env=B=\n--env=C=x=y",
		"--name=t\n--code=**.py\n--tool=gcc --version\n--clean-env\n--shell\n--stdin=-",
		"--name=t\n--param=x:null=null\n--param=y=1e-3\n--param=z=True",
		"--out=a", "--meta=m", "--publish=m=UP/x", "--in==x", "--nam=x", "--out-from=a=/", "--out=a=//",
	} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		st, err := parseStage(strings.Split(args, "\n"))
		if err != nil {
			oneUsageLine(t, err)
			return
		}
		written := stageArgs(st)
		again, err := parseStage(written)
		if err != nil || !reflect.DeepEqual(again, st) {
			t.Fatalf("%q make\n%+v, whose options %q make\n%+v (%v)", args, st, written, again, err)
		}
	})
}

// oneUsageLine checks that an error is what a person sees of a wrong command line.
func oneUsageLine(t *testing.T, err error) {
	t.Helper()
	var said bytes.Buffer
	a := &app{err: &said}
	if status := a.report(t.Context(), err); status != exitUsage {
		t.Fatalf("exit status %d: %v", status, err)
	}
	if text := said.String(); strings.Count(text, "\n") != 1 || len(text) < len("curi: x\n") {
		t.Fatalf("said %q", text)
	}
}

func parseStage(args []string) (stages.Stage, error) {
	a := &app{getenv: func(string) string { return "" }}
	c := &cobra.Command{Use: "exec", SilenceErrors: true, SilenceUsage: true}
	o := &stageOptions{}
	o.declare(a, c)
	if err := c.ParseFlags(args); err != nil {
		return stages.Stage{}, err
	}
	st, err := o.stage(a, []string{"true"})
	st.Environ = nil
	// Between options of several names the order says nothing.
	slices.SortStableFunc(st.Outputs, func(a, b stages.Output) int { return strings.Compare(a.Name, b.Name) })
	return st, err
}

// stageArgs are the options that make a stage.
func stageArgs(st stages.Stage) []string {
	args := []string{"--name=" + st.Name, "--stdin=" + st.Stdin}
	for _, in := range st.Inputs {
		option := "--in="
		if in.Writable {
			option = "--in-rw="
		}
		args = append(args, option+in.Name+"="+in.Ref)
	}
	for _, o := range st.Outputs {
		option, slash := "--out=", ""
		if o.Optional {
			option = "--optional-out="
		}
		if o.Dir && !strings.HasSuffix(o.Path, "/") {
			slash = "/"
		}
		args = append(args, option+o.Name+"="+o.Path+slash)
		if o.From != "" {
			args = append(args, "--out-from="+o.Name+"="+o.From)
		}
		for k, v := range o.Meta {
			args = append(args, "--meta="+o.Name+":"+k+"="+v)
		}
		for _, n := range o.Publish {
			args = append(args, "--publish="+o.Name+"="+n)
		}
	}
	for _, p := range st.Params {
		option := "--param="
		if p.Operational {
			option = "--op-param="
		}
		args = append(args, option+p.Name+":"+p.Type+"="+p.Raw)
	}
	for _, e := range st.Env {
		text := "--env=" + e.Name
		if e.Value != nil {
			text += "=" + *e.Value
		}
		args = append(args, text)
	}
	for option, list := range map[string][]string{"--work=": st.Work, "--code=": st.Code, "--tool=": st.Tools} {
		for _, text := range list {
			args = append(args, option+text)
		}
	}
	if st.CleanEnv {
		args = append(args, "--clean-env")
	}
	if st.Shell {
		args = append(args, "--shell")
	}
	return args
}

// FuzzConfig checks that a configuration file is refused in one line that
// names it or sets values that mean themselves.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"store: ~/curi\nkeep: 30d\nmax_size: 1.5 TiB\nno_mount: true\n", "keep: 1\n", "kep: 1d\n", "[]", "a: [", "keep: 1d\nkeep: 2d\n",
		"store: {a: b}\n", "# nothing\n", "grace: &a 40s\ntimeout: *a\n", "quiet: !!bool yes\n", "--- \n...\n", "store: \"a\\0b\"\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := config{values: map[string]configValue{}}
		if err := c.parse(b, "FILE", "/base"); err != nil {
			oneUsageLine(t, err)
			if !strings.HasPrefix(err.Error(), "FILE:") {
				t.Fatalf("the error does not begin with the file: %v", err)
			}
			return
		}
		for name, v := range c.values {
			key, ok := lookupKey(name)
			if !ok {
				t.Fatalf("set what is no setting: %q", name)
			}
			if again, err := key.norm(v.text, "/elsewhere"); err != nil || again != v.text {
				t.Fatalf("%s: %q becomes %q (%v)", name, v.text, again, err)
			}
		}
	})
}

// FuzzQuantity checks durations against Go's own where both know the units,
// and that no quantity leaves its range.
func FuzzQuantity(f *testing.F) {
	for _, text := range []string{"1d12h", "90s", "1.5 TiB", "200GB", "5%", "0", ".5h", "1.h", "7 b", "1w", "106751d", "8191P", "1ms1min", "0x1p-2", "1e2%"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseDuration(text); err != nil {
			oneUsageLine(t, usagef("%v", err))
		} else if d < 0 {
			t.Fatalf("%q is %v", text, d)
		} else if goes, err := time.ParseDuration(text); err == nil && math.Abs(float64(goes-d)) > 1+float64(d)/1e12 {
			t.Fatalf("%q is %v, to Go %v", text, d, goes)
		}
		if n, err := parseSize(text); err != nil {
			oneUsageLine(t, usagef("%v", err))
		} else if n < 0 {
			t.Fatalf("%q is %d bytes", text, n)
		}
		if share, err := parsePercent(text); err != nil {
			oneUsageLine(t, usagef("%v", err))
		} else if !(share > 0 && share <= 1) {
			t.Fatalf("%q is the share %v", text, share)
		}
	})
}
