package mounts

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("/layer:", 20_000) // more than a scanner's line
	got := slices.Collect(parse(strings.NewReader(`22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
36 22 0:52 / /mnt/a\040b\134c rw,nosuid shared:2 master:1 - fuse.curi curi rw,user_id=1000
no line of it
37 22 0:53 / /mnt/over rw - overlay overlay rw,lowerdir=` + long + `
38 22 0:54 /sub /mnt/last ro - nfs4 server:/x rw,local_lock=none`)))
	want := []Mount{
		{"/", "8:1", "ext4", []string{"rw", "relatime", "rw", "errors=remount-ro"}},
		{`/mnt/a b\c`, "0:52", "fuse.curi", []string{"rw", "nosuid", "rw", "user_id=1000"}},
		{"/mnt/over", "0:53", "overlay", []string{"rw", "rw", "lowerdir=" + long}},
		{"/mnt/last", "0:54", "nfs4", []string{"ro", "rw", "local_lock=none"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
}

func TestWhatIsMountedHere(t *testing.T) {
	if m, ok := At("/proc"); !ok || m.Type != "proc" || m.Point != "/proc" {
		t.Errorf("at /proc: %+v, %v", m, ok)
	}
	if m, ok := At("/proc/self"); ok {
		t.Errorf("at /proc/self: %+v", m)
	}
	if m, ok := Over("/proc/1/no/such"); !ok || !strings.HasPrefix(m.Point, "/proc") {
		t.Errorf("over /proc/1: %+v, %v", m, ok)
	}
	if m, ok := Over("/processes"); !ok || m.Point != "/" {
		t.Errorf("over /processes: %+v, %v", m, ok)
	}
}
