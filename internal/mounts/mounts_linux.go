package mounts

import (
	"bufio"
	"io"
	"iter"
	"os"
	"strings"
)

// Mount is what the kernel says of one mount.
type Mount struct {
	Point   string
	Device  string   // MAJOR:MINOR
	Type    string   // of the filesystem, such as "fuse.curi"
	Options []string // of the mount, then of its filesystem
}

// At finds the topmost mount at dir, a path without links.
func At(dir string) (m Mount, ok bool) {
	for one := range list() {
		if one.Point == dir {
			m, ok = one, true
		}
	}
	return m, ok
}

// Over finds the mount that dir, a path without links, lies in or is.
func Over(dir string) (m Mount, ok bool) {
	for one := range list() {
		if (one.Point == "/" || dir == one.Point || strings.HasPrefix(dir, one.Point+"/")) && len(one.Point) >= len(m.Point) {
			m, ok = one, true
		}
	}
	return m, ok
}

// list yields the mounts of this process's namespace, lower ones first; none
// where the kernel does not tell.
func list() iter.Seq[Mount] {
	return func(yield func(Mount) bool) {
		f, err := os.Open("/proc/self/mountinfo")
		if err != nil {
			return
		}
		defer f.Close()
		parse(f)(yield)
	}
}

// unescape undoes the octal escapes of the list.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func parse(r io.Reader) iter.Seq[Mount] {
	return func(yield func(Mount) bool) {
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadString('\n')
			// 36 35 98:0 /root /point options… - type source superoptions
			before, after, ok := strings.Cut(line, " - ")
			head, tail := strings.Fields(before), strings.Fields(after)
			if ok && len(head) > 5 && len(tail) > 2 {
				m := Mount{Point: unescape.Replace(head[4]), Device: head[2], Type: tail[0], Options: strings.Split(head[5]+","+tail[2], ",")}
				if !yield(m) {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
}
