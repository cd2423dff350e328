//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const usage = `usage: curifs STORE DIR [-o OPTION,...] [--ready-fd N]

Mount the store STORE at the empty directory DIR and serve it until it is
unmounted, a signal comes or, with -o auto, its last user has gone.

  -o allow_other  let other users in; permissions are checked
  -o auto         leave when no run uses the mount any more
  -o debug        log every request to stderr; also -d, --debug
  -o metrics=ADDR tell Prometheus what the mount does, at http://ADDR/metrics;
                  a bare port is one of this machine's own (127.0.0.1), 0 any
                  that is free. Everybody who can reach ADDR may ask.
  --ready-fd N    write one line of JSON to descriptor N when serving, or
                  {"error":"..."} when it cannot
  --version

Options that mount(8) and fstab know (rw, nodev, nosuid, noauto, user,
_netdev, ...) are accepted and change nothing. Run as mount.curi, from fstab,
it goes to the background.
`

// command is what the arguments ask for.
type command struct {
	store, dir        string
	allowOther, debug bool
	noExec            bool
	metrics           string // HOST:PORT; "" for none
	auto, background  bool
	help, version     bool
	ready             *readyFile
}

// standardOptions are those of mount(8), fstab and systemd that say nothing
// to this program. Others of systemd begin with x-.
var standardOptions = map[string]bool{
	"defaults": true, "rw": true, "dev": true, "nodev": true, "suid": true, "nosuid": true, "exec": true,
	"noauto": true, "user": true, "nouser": true, "users": true, "group": true, "owner": true,
	"_netdev": true, "nofail": true, "async": true, "atime": true, "noatime": true, "relatime": true,
	"norelatime": true, "diratime": true, "nodiratime": true, "strictatime": true, "lazytime": true,
	"nolazytime": true, "iversion": true, "noiversion": true, "silent": true, "loud": true, "mand": true,
	"nomand": true, "default_permissions": true, "auto_unmount": true,
}

// parse reads the arguments. The ready file is set even with an error, so that
// whoever waits on it hears of that.
func parse(args []string) (command, error) {
	c := command{background: strings.HasPrefix(filepath.Base(args[0]), "mount.")}
	var rest []string
	var failed error
	for i := 1; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		if args[i] == "-" || !strings.HasPrefix(args[i], "-") {
			rest = append(rest, args[i])
			continue
		}
		if strings.HasPrefix(name, "-o") && len(name) > 2 && name[2] != '-' {
			// "-oallow_other", in which "=" belongs to the option.
			name, value, joined = "-o", args[i][2:], true
		}
		if !joined && (name == "-o" || name == "--ready-fd" || name == "-t") {
			if i++; i == len(args) {
				failed = cmp.Or(failed, fmt.Errorf("%s needs a value; see curifs --help", name))
				break
			}
			value = args[i]
		}
		failed = cmp.Or(failed, c.option(name, value)) // the first is told, in one line
	}
	if failed != nil || c.help || c.version {
		return c, failed
	}
	if len(rest) != 2 {
		return c, fmt.Errorf("want STORE and DIR, have %d arguments; see curifs --help", len(rest))
	}
	if rest[0] == "" || rest[1] == "" {
		return c, errors.New("want STORE and DIR, one of them is empty; see curifs --help")
	}
	c.store, c.dir = rest[0], rest[1]
	switch "" {
	case c.store:
		return c, errors.New("STORE is empty; see curifs --help")
	case c.dir:
		return c, errors.New("DIR is empty; see curifs --help")
	}
	return c, nil
}

func (c *command) option(name, value string) error {
	switch name {
	case "-o":
		return c.mountOptions(value)
	case "--ready-fd":
		return c.readyFD(value)
	case "-h", "--help":
		c.help = true
	case "-V", "--version":
		c.version = true
	case "-d", "--debug":
		c.debug = true
	case "-f", "-s", "-n", "-v", "-t":
		// What mount(8) and programs for FUSE filesystems give to all.
	default:
		return fmt.Errorf("unknown option %s; see curifs --help", name)
	}
	return nil
}

func (c *command) mountOptions(list string) error {
	for o := range strings.SplitSeq(list, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case key == "allow_other":
			c.allowOther = true
		case key == "auto":
			// In fstab the word means something else.
			c.auto = !c.background
		case key == "debug":
			c.debug = true
		case key == "noexec":
			c.noExec = true
		case key == "metrics":
			var err error
			if c.metrics, err = metricsAddress(value); err != nil {
				return err
			}
		case key == "ro":
			return errors.New("-o ro: runs write through the mount; what must not change is read-only anyway, so leave the option out")
		case key == "" || standardOptions[key] || strings.HasPrefix(key, "x-") || key == "comment" || key == "context" || key == "fsname" || key == "subtype":
		default:
			return fmt.Errorf("-o %s: unknown option; known are allow_other, auto, debug, metrics=ADDR and those of mount(8)", o)
		}
	}
	return nil
}

func (c *command) readyFD(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fmt.Errorf("--ready-fd %s: want the number of an open descriptor", value)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(n, &st); err != nil {
		return fmt.Errorf("--ready-fd %d: %w", n, err)
	}
	syscall.CloseOnExec(n)
	c.ready = &readyFile{os.NewFile(uintptr(n), "ready-fd")}
	return nil
}
