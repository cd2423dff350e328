package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// remoteParts measure remotes, beside tools that bring the same to the same
// S3 server on loopback.
var remoteParts = []part{
	{"bulk", (*bench).remoteLarge},
	{"files", (*bench).remoteMany},
	{"again", (*bench).remoteAgain},
	{"weights", (*bench).remoteWeights},
	{"lazy", (*bench).remoteLazy},
	{"first", (*bench).remoteFirst},
	{"hit", (*bench).remoteHit},
}

// remoteRow is one piece of work with a remote: seconds of several tools, or a
// share that Curi alone is asked for.
type remoteRow struct {
	what   string
	amount amount
	sides  [peers]samples // of curi, restic and rclone
	share  float64        // of the bytes
	most   float64        // share that is allowed; 0 for rows that compare tools
}

func (r remoteRow) met() bool {
	if r.most > 0 {
		return r.share <= r.most
	}
	for _, p := range []peer{rclone, restic} {
		if len(r.sides[p]) > 0 && r.sides[p].median() <= r.sides[curi].median() {
			return false
		}
	}
	return true
}

func (r remoteRow) String() string {
	verdict := "met"
	if !r.met() {
		verdict = "**missed**"
	}
	if r.most > 0 {
		return fmt.Sprintf("| %s | %.1f %% | – | – | ≤ %.0f %% | %s | 1 |\n", r.what, 100*r.share, 100*r.most, verdict)
	}
	cell := func(p peer) string {
		if len(r.sides[p]) == 0 {
			return "–"
		}
		return r.amount.figure(r.sides[p].median())
	}
	return fmt.Sprintf("| %s | %s | %s | %s | faster than both | %s | %d |\n", r.what, cell(curi), cell(rclone), cell(restic), verdict, len(r.sides[curi]))
}

func remoteSection(about string, rows []remoteRow, lazy []row, far []farRow) string {
	var b strings.Builder
	b.WriteString(remoteTitle + "\n" + about + "\n")
	if len(rows) > 0 {
		b.WriteString("Medians of whole programs: `curi push` and `curi pull --now`, `rclone copy`, `restic backup` and `restic restore`, to and from one S3\n" +
			"server on loopback that runs on the same processors. What Curi pulls is durable when it ends. Shares are of the bytes of the files: what a\n" +
			"push sent.\n\n")
		b.WriteString("| work | Curi | rclone | restic | wanted | | rounds |\n|---|---|---|---|---|---|---|\n")
		for _, r := range rows {
			b.WriteString(r.String())
		}
	}
	if len(lazy) > 0 {
		b.WriteString("\nRead lazily, from the same server without a network between:\n\n" + ratioTable(lazy))
	}
	if len(far) > 0 {
		b.WriteString("\nWith a store that knows nothing of it, behind a relay that makes each connection and each request take 20 ms more. Whole programs; bytes\n" +
			"are those that the server sent, of the round that took most:\n\n" + farTable(far))
	}
	return b.String()
}

const (
	benchKey, benchSecret = "AKIDBENCH", "secret-of-the-benchmark"
	benchBucket           = "bench"
)

// s3 starts the S3 server, once, and returns its HOST:PORT.
func (b *bench) s3() (string, error) {
	if b.s3Addr != "" {
		return b.s3Addr, nil
	}
	program := os.Getenv("CURI_TEST_S3")
	if program == "" {
		return "", errors.New("CURI_TEST_S3 is not set: the path of versitygw, which testdata/dev/s3server.sh prints")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	l.Close()
	dir := b.path("s3")
	if err := os.MkdirAll(filepath.Join(dir, benchBucket), 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command(program, "--keep-alive", "--port", addr, "--quiet", "posix", dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+benchKey, "ROOT_SECRET_KEY="+benchSecret)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	b.s3Stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": benchKey, "AWS_SECRET_ACCESS_KEY": benchSecret, "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"RCLONE_CONFIG_S_TYPE": "s3", "RCLONE_CONFIG_S_PROVIDER": "Other", "RCLONE_CONFIG_S_ENDPOINT": "http://" + addr,
		"RCLONE_CONFIG_S_ACCESS_KEY_ID": benchKey, "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": benchSecret, "RESTIC_PASSWORD": "bench",
	} {
		os.Setenv(k, v)
	}
	os.Unsetenv("AWS_CA_BUNDLE") // rclone does not take one
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			b.s3Addr = addr
			return addr, nil
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("the S3 server does not answer: %w", err)
		}
	}
}

// sharer is a fresh store that knows a remote at a prefix of the bucket.
func (b *bench) sharer(store, prefix string) ([]string, error) {
	addr, err := b.s3()
	if err != nil {
		return nil, err
	}
	return b.sharerAt(addr, store, prefix)
}

// sharerAt is sharer for a server that seems to be at an address.
func (b *bench) sharerAt(addr, store, prefix string) ([]string, error) {
	if err := os.RemoveAll(store); err != nil {
		return nil, err
	}
	tool := []string{b.tool("curi"), "--store", store}
	for _, args := range [][]string{{"store", "init", store}, {"remote", "add", "team", "s3://" + benchBucket + "/" + prefix + "?endpoint=http://" + addr}} {
		if _, err := b.output(b.tool("curi"), append([]string{"--store", store, "--quiet"}, args...)...); err != nil {
			return nil, err
		}
	}
	return tool, nil
}

func (b *bench) remoteLarge() error {
	large, err := b.large()
	if err != nil {
		return err
	}
	dir := b.path(dataDir, "bulk")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Rename(large, filepath.Join(dir, "model.ckpt")); err != nil {
		return err
	}
	return b.upDown(mebibytes(b.size)+" of incompressible bytes", dir, amount{bytes: b.size})
}

func (b *bench) remoteMany() error {
	n := b.many(50_000)
	dir, err := b.tree(n, openedSize)
	if err != nil {
		return err
	}
	return b.upDown("50,000 files of 4 KiB", dir, amount{files: n})
}

// upDown measures the way there and the way back.
func (b *bench) upDown(what, dir string, a amount) error {
	addr, err := b.s3()
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.path("s3", benchBucket, "up"))
	name := filepath.Base(dir)
	source, err := b.sharer(b.path("up-store"), "up/curi-0")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.path("up-store"))
	if _, err := b.output(source[0], append(source[1:], "add", dir, "--name", name)...); err != nil {
		return err
	}
	round := 0
	next := func(tool string) string { round++; return fmt.Sprintf("up/%s-%d", tool, round) }
	repo := func(prefix string) []string {
		return []string{b.program(restic), "-q", "--no-cache", "-r", "s3:http://" + addr + "/" + benchBucket + "/" + prefix}
	}
	var from [peers]string
	up := map[peer]func() (float64, error){
		curi: func() (float64, error) {
			from[curi] = next("curi")
			url := "s3://" + benchBucket + "/" + from[curi] + "?endpoint=http://" + addr
			fresh := fmt.Sprintf("team-%d", round)
			if _, err := b.output(source[0], append(source[1:], "--quiet", "remote", "add", fresh, url)...); err != nil {
				return 0, err
			}
			return b.timedAtRest(append(source, "push", name, "--remote", fresh))
		},
		rclone: func() (float64, error) {
			from[rclone] = next("rclone")
			return b.timedAtRest([]string{b.program(rclone), "-q", "copy", dir, "s:" + benchBucket + "/" + from[rclone]})
		},
		restic: func() (float64, error) {
			from[restic] = next("restic")
			r := repo(from[restic])
			if _, err := b.output(r[0], append(r[1:], "init")...); err != nil {
				return 0, err
			}
			return b.timedAtRest(append(r, "backup", dir))
		},
	}
	if err := b.transfer("push "+what, a, up); err != nil {
		return err
	}
	into := b.path("down")
	down := map[peer]func() (float64, error){
		curi: func() (float64, error) {
			there, err := b.sharer(into, from[curi])
			if err != nil {
				return 0, err
			}
			return b.timedAtRest(append(there, "pull", "--now", "team/"+name))
		},
		rclone: func() (float64, error) {
			return b.timedAtRest([]string{b.program(rclone), "-q", "copy", "s:" + benchBucket + "/" + from[rclone], into})
		},
		restic: func() (float64, error) {
			return b.timedAtRest(append(repo(from[restic]), "restore", "latest", "--target", into))
		},
	}
	for p, run := range down {
		down[p] = func() (float64, error) {
			if err := os.RemoveAll(into); err != nil {
				return 0, err
			}
			return run()
		}
	}
	defer os.RemoveAll(into)
	return b.transfer("pull "+what, a, down)
}

// timedAtRest times a program when the disk has written what came before.
func (b *bench) timedAtRest(argv []string) (float64, error) {
	if err := syncFilesystem(b.dir); err != nil {
		return 0, err
	}
	return b.timed(argv)
}

// transfer measures a piece of work with the tools that are installed.
func (b *bench) transfer(what string, a amount, runs map[peer]func() (float64, error)) error {
	var sides []side
	var who []peer
	for _, p := range []peer{curi, rclone, restic} {
		if p == curi || b.program(p) != "" {
			sides, who = append(sides, side{peerNames[p], runs[p]}), append(who, p)
		}
	}
	all, err := inTurns(b.times(3), sides)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r := remoteRow{what: what, amount: a}
	for i, p := range who {
		r.sides[p] = all[i]
	}
	b.remoteRows = append(b.remoteRows, r)
	return nil
}

// pushed adds data as one file and pushes it; it returns which share of its
// bytes was sent.
func (b *bench) pushed(tool []string, name string, data []byte) (float64, error) {
	path := b.path(dataDir, "pushed")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return 0, err
	}
	defer os.Remove(path)
	if _, err := b.output(tool[0], append(tool[1:], "add", path, "--as", "model", "--name", name)...); err != nil {
		return 0, err
	}
	said, err := b.output(tool[0], append(tool[1:], "push", name, "--json")...)
	if err != nil {
		return 0, err
	}
	sent, err := decode[[]struct{ Sent int64 }](said)
	if err != nil || len(sent) != 1 {
		return 0, fmt.Errorf("curi push said %q: %w", said, err)
	}
	return float64(sent[0].Sent) / float64(len(data)), nil
}

// remoteAgain pushes a checkpoint of which a little changed.
func (b *bench) remoteAgain() error {
	random := rand.NewChaCha8([32]byte{1})
	first := make([]byte, b.size)
	random.Read(first)
	tool, err := b.sharer(b.path("again-store"), "again")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.path("again-store"))
	if _, err := b.pushed(tool, "model", first); err != nil {
		return err
	}
	// One run of bytes in ten, as large as a layer.
	changed := append([]byte(nil), first...)
	run := max(len(changed)/640, 1<<20)
	for at := 0; at+run <= len(changed); at += 10 * run {
		random.Read(changed[at : at+run])
	}
	front := make([]byte, 1000, 1000+len(first))
	random.Read(front)
	for _, c := range []struct {
		what string
		data []byte
		most float64
	}{
		{"second push of a checkpoint of which 10 % changed in place: bytes sent", changed, 0.15},
		{"second push of one with 1,000 bytes inserted at the front: bytes sent", append(front, first...), 0.02},
	} {
		// Each against the first.
		if _, err := b.pushed(tool, "model", first); err != nil {
			return err
		}
		share, err := b.pushed(tool, "model", c.data)
		if err != nil {
			return err
		}
		b.remoteRows = append(b.remoteRows, remoteRow{what: c.what, share: share, most: c.most})
	}
	return nil
}

// remoteWeights pushes tensors of normally distributed weights.
func (b *bench) remoteWeights() error {
	tool, err := b.sharer(b.path("weights-store"), "weights")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.path("weights-store"))
	n := int(min(b.size, 64<<20)) / 4
	r := rand.New(rand.NewPCG(1, 2))
	fp32, bf16 := make([]byte, 0, 4*n), make([]byte, 0, 2*n)
	for range n {
		bits := math.Float32bits(float32(r.NormFloat64() * 0.02))
		fp32 = binary.LittleEndian.AppendUint32(fp32, bits)
		bf16 = binary.LittleEndian.AppendUint16(bf16, uint16(bits>>16))
	}
	for _, c := range []struct {
		name string
		data []byte
		most float64
	}{{"bf16", bf16, 0.70}, {"fp32", fp32, 0.86}} {
		share, err := b.pushed(tool, c.name, c.data)
		if err != nil {
			return err
		}
		b.remoteRows = append(b.remoteRows, remoteRow{what: "random-normal weights, " + c.name + ": stored size", share: share, most: c.most})
	}
	return nil
}
