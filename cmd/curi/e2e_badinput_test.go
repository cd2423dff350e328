package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// badRefs name nothing in a store that has digits@1 and a run of stage t.
var badRefs = []string{
	" ", "@", ".", "/", "..", "../x", "/etc/passwd", "./digits", "digits@", "digits@0", "digits@-1", "digits@99", "digits@99999999999999999999",
	"digits@01", "digits@1.5", "digits@best", "digits@@1", "digits@1@1", "digits.", "digits..x", "digits.x", "digits.x.y", "digits[", "digits]",
	"digits[]", "digits[].x", "digits[a].x", "digits[a=1", "digits[a=1]", "digits[a=1].x", "digits//x", "digits/../x", "digits/./x", "digits/nope",
	"digits/numbers.txt/x", "digitz", "DIGITS", "digits numbers", "dig\nits", "dig\tits", "dig\x1bits", "\xff\xfe", "digïts", strings.Repeat("a", 101),
	strings.Repeat("a", 5000), "12345", "12345678", "deadbeef", "deadbee", strings.Repeat("0", 64), strings.Repeat("f", 65), "deadbeef@1", "deadbeef.x",
	"team/model", "train@last", "train-000000", "t@first", "t-7f3k2m.o", "t.x", "t.work", "t.work/x", "t@last.work/x", "t@last.work/../x", "t[a=1].o",
	"digits@1/../../etc", "~", "$HOME", "{in.x}", "{", `digits\`, "digits#1", "digits:1", "digits=1", "digits,1", "digits*", "digits@1 ", ".work/x",
	`digits[a="].x`, "digits[a=1,].x", "digits[a=1][b=2].x", "digits[a:int=x].x", "digits/" + strings.Repeat("x", 300), "digits/" + strings.Repeat("x/", 3000) + "x",
}

// badOptions of curi stage exec and explain, each beside options that are right.
var badOptions = map[string][]string{
	"--name":         {"", " ", "a b", "a/b", "-x", ".", "12345678", "123", "deadbeef", "ä", strings.Repeat("a", 101), "a\n", "a.b", "a@b"},
	"--in":           {"", "=", "d", "d=", "=digits", "d=nope", "d/x=digits", ".=digits", "12345678=digits", "d\n=digits", "d==digits"},
	"--in-rw":        {"", "=", "d=", "d=nope"},
	"--out":          {"", "=", "m=", "=m", "m=/", "m=/abs", "m=..", "m=../x", "m=a/../../x", "m=.", "work=x", "m/x=y", "o=twice", "m=" + strings.Repeat("x", 256), "m=" + strings.Repeat("a/", 3000)},
	"--optional-out": {"", "m", "m=", "m=/abs", "o=twice"},
	"--out-from":     {"", "m=", "=x", "m=/", "m=.", "m=..", "work=x", "m=" + strings.Repeat("x", 300)},
	"--work":         {"", "a/b", "..", "a b", "12345678", "a=b"},
	"--meta":         {"", "o", "o:", "o:=", "o:k", "x:k=v", ":k=v", "o:" + strings.Repeat("k", 300) + "=v", "o:k=" + strings.Repeat("v", 70000), "o:user.curi.=v"},
	"--publish":      {"", "=", "o", "o=", "=x", "x=y", "o=a/b", "o=12345678", "o=a@1", "o=-x"},
	"--param":        {"", "=", "a", "=1", "a:=1", "a:int=x", "a:float=x", "a:bool=maybe", "a:list=1", "a:null=1", "a:dict={}", "1a=1", "a b=1", "a:int=1.0", "a:int=007", "a:list=[1]]"},
	"--op-param":     {"", "a", "a:int=x"},
	"--code":         {"", "nope", "nope/**", "[", "{a", "/etc/host*", "digits", ".", "*/../*.py"},
	"--tool":         {"", " ", "false", "exit 3", "no-such-program", "(", "kill -9 $$"},
	"--env":          {"", "=", "=x", "1A", "A B", "A-B", "RANK", "SLURM_X=1", "CURI_X", "TMPDIR=/tmp"},
	"--stdin":        {"", "nope", "digits", "digits/nope"},
	"--force":        {"x"}, "--shell": {"x"}, "--clean-env": {"x"}, "--dry-run": {"x"}, "--frobnicate": {"x"},
	"--store":   {"", "/proc/nope", "/dev/null", "/dev/null/x", "/etc/passwd", "digits"},
	"--timeout": {"", "0", "-1", "x", "1", "1x", "1s2", "99999999999h"},
	"--grace":   {"", "-1s", "0s"},
	"--accept":  {"", "nope", "digits", "t.o", "..", "a b", "dig\x1bits"},
	"--message": {"", "why"},
}

// badCommands are what stands behind the options of curi stage exec.
var badCommands = [][]string{
	{}, {"--"}, {"x"}, {"--", ""}, {"true", "--", "true"}, {"--", "{in.x}"}, {"--", "{out.x}"}, {"--", "{out.}"}, {"--", "{param.lr}"}, {"--", "{work.x}"},
	{"--", "{meta.x.y}"}, {"--", "{meta.o}"}, {"--", "{secret.NO_SUCH_VARIABLE}"}, {"--", "{secret.A-B}"}, {"--", "{root.x}"}, {"--", "{resum}"},
	{"--", "true", "{in.x"}, {"--", "true", "{Out.o}"}, {"--", "true", "${in.x}"}, {"--", "true", "{foo}"}, {"--", "true", "{out.o:json}"},
	{"--shell", "--", "a", "b"}, {"--shell", "--", ""}, {"--shell", "--", "{foo}"}, {"--no-such-option", "--", "true"}, {"-x", "--", "true"}, {"--in", "--", "true"},
	{"--param", "a-b=1", "--param", "a_b=2", "--", "true"}, {"--accept", "t@last", "--force", "--", "true"}, {"-q", "-v", "--", "true"},
}

// badLines are whole command lines.
var badLines = []string{
	"frobnicate", "exec", "stage frob", "add", "add digits", "add nope --name x", "add digits --name 1", "add digits --name x --move --reference", "add - --name x --move",
	"add /dev/zero --name x", "add digits --name x --as y", "add digits --name x --tag 1", "add digits --name x --meta k", "ls a b", "ls --frob", "show", "show a b", "cat digits", "cat digits --json",
	"checkout digits", "checkout digits digits", "checkout digits /proc/x", "diff digits", "tag digits 1", "tag digits/numbers.txt x", "meta digits x", "meta digits --drop nope",
	"rm digits --keep-last 0", "rm digits --keep-last x", "rm digits@1 --keep-last 1", "rm digits/", "rm digits/numbers.txt", "rm t.o", "du digits --runs", "gc x", "fsck --sample 0", "fsck --sample x",
	"config nope", "log digits", "log --since x", "log -n -1", "log --param x", "log t@last --failed", "lineage digits --format svg", "shell", "shell digits", "shell t@last x", "shell t@last --",
	"shell t@last --save a/b -- true", "mount", "mount digits", "mount digits/numbers.txt", "mount x -o frob", "umount", "umount nope", "umount x --stale", "store init", "store init digits", "store init /proc/x",
	"store init x --group no-such-group", "status x", "help frob", "completion frob", "version x", "--frob", "--store",
}

// Bad input of every kind: one line that begins with curi:, a status of its
// own, nothing on stdout, nothing made, nothing lost.
func TestBadInput(t *testing.T) {
	s := bareSite(t, byCopy)
	s.write("digits/numbers.txt", "1 2 3 4\n")
	s.ok("curi", "add", "./digits", "--name", "digits")
	good := []string{"--name", "t", "--out", "o=o.txt"}
	command := []string{"--", "sh", "-c", "touch ran; echo x > {out.o}"}
	s.ok(slices.Concat([]string{"curi", "stage", "exec", "--no-mount"}, good, []string{"--", "sh", "-c", "echo x > {out.o}"})...)
	state := func() string {
		return s.ok("curi", "ls", "--versions", "--json") + s.ok("curi", "log", "--json", "--since", "1d") + s.ok("sh", "-c", "ls -a; find $CURI_STORE/refs $CURI_STORE/at")
	}
	before := strings.Join(timeless(state()), "\n")
	refused := func(argv ...string) {
		t.Helper()
		o := s.run(append([]string{"curi"}, argv...)...)
		if why := notAsPromised(o); why != "" {
			short := fmt.Sprintf("%.300q", argv)
			t.Errorf("%s: %s\n%s", short, why, o)
		}
	}
	for i, ref := range badRefs {
		refused("show", ref)
		refused(slices.Concat([]string{"stage", "exec", "--no-mount", "--in", "d=" + ref}, good, command)...)
		others := [][]string{{"cat", ref}, {"path", ref}, {"lineage", ref}, {"du", ref}, {"rm", ref}, {"log", ref}, {"shell", ref, "--", "true"},
			{"checkout", ref, "copy"}, {"tag", ref, "x"}, {"meta", ref, "a=b"}, {"diff", "digits", ref}}
		refused(others[i%len(others)]...) // all look a REF up in the same way
	}
	for option, values := range badOptions {
		rest := good
		if option == "--name" {
			rest = good[2:]
		}
		for _, v := range values {
			refused(slices.Concat([]string{"stage", "exec", "--no-mount"}, rest, []string{option + "=" + v}, command)...)
		}
	}
	for _, c := range badCommands {
		refused(slices.Concat([]string{"stage", "exec", "--no-mount"}, good, c)...)
	}
	for _, line := range badLines {
		refused(strings.Fields(line)...)
	}
	if after := strings.Join(timeless(state()), "\n"); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
	s.ok("curi", "fsck")
}

// timeless are the lines without those that tell how long something took.
func timeless(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.Contains(l, `"seconds"`) })
}

// notAsPromised says what is wrong with a failure of Curi's own; "" if nothing.
func notAsPromised(o outcome) string {
	lines := strings.Split(strings.TrimSuffix(o.stderr, "\n"), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "curi: warning: ") })
	switch {
	case o.status < 120 || o.status > 124:
		return "its status is not one of 120 to 124"
	case len(lines) != 1 || !strings.HasPrefix(lines[0], "curi: "):
		return "want one line that begins with curi:"
	case strings.ContainsFunc(lines[0], unicode.IsControl):
		return "the line holds control characters"
	case o.stdout != "":
		return "it wrote to stdout"
	}
	return ""
}
