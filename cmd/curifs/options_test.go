//go:build linux

package main

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		want command
		err  string
	}{
		{args: "curifs S D", want: command{store: "S", dir: "D"}},
		{args: "curifs S D -o allow_other,auto", want: command{store: "S", dir: "D", allowOther: true, auto: true}},
		{args: "curifs -oallow_other,fsname=x S D -s", want: command{store: "S", dir: "D", allowOther: true}},
		{args: "curifs S D -o rw,nodev,nosuid,noauto,user,_netdev,x-gvfs-hide,noexec", want: command{store: "S", dir: "D", noExec: true}},
		{args: "/sbin/mount.curi S D -n -o auto,rw", want: command{store: "S", dir: "D", background: true}},
		{args: "curifs S D -o metrics=9100", want: command{store: "S", dir: "D", metrics: "127.0.0.1:9100"}},
		{args: "curifs S D -o metrics=:9100", want: command{store: "S", dir: "D", metrics: "127.0.0.1:9100"}},
		{args: "curifs S D -ometrics=[::1]:0,auto", want: command{store: "S", dir: "D", metrics: "[::1]:0", auto: true}},
		{args: "curifs S D -o metrics=0.0.0.0:9100,debug", want: command{store: "S", dir: "D", metrics: "0.0.0.0:9100", debug: true}},
		{args: "curifs S D --debug", want: command{store: "S", dir: "D", debug: true}},
		{args: "curifs --version", want: command{version: true}},
		{args: "curifs S", err: "want STORE and DIR, have 1"},
		{args: "curifs S D E", err: "have 3"},
		{args: "curifs S D -o", err: "-o needs a value"},
		{args: "curifs --bad S D -o", err: "unknown option --bad"},
		{args: "curifs S D -o alow_other", err: "-o alow_other: unknown option"},
		{args: "curifs S D -o metrics", err: "-o metrics=: want a port"},
		{args: "curifs S D -o metrics=web", err: "-o metrics=web: want a port"},
		{args: "curifs S D -o metrics=99999", err: "-o metrics=99999: want a port"},
		{args: "curifs S D -o metrics=::1:9100", err: "want a port, or HOST:PORT"},
		{args: "curifs S D -o ro", err: "-o ro"},
		{args: "curifs S D --ready", err: "unknown option --ready"},
		{args: "curifs S D --ready-fd x", err: "--ready-fd x"},
		{args: "curifs S D --ready-fd=9876", err: "--ready-fd 9876"},
	} {
		got, err := parse(strings.Fields(c.args))
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: want %q, have %v", c.args, c.err, err)
			}
		case err != nil || got != c.want:
			t.Errorf("%s: %+v, %v", c.args, got, err)
		}
	}
	// An unset variable is not the current directory.
	for _, args := range [][]string{{"curifs", "S", ""}, {"curifs", "", "D"}} {
		if c, err := parse(args); err == nil {
			t.Errorf("%q: %+v and no error", args, c)
		}
	}
}
