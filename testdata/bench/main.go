// Command bench measures Curi beside the bare disk, in interleaved rounds of
// one run, and writes the medians and their ratios as a page.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	var c config
	page := flag.String("o", "", "page to write; without it only stdout")
	flag.StringVar(&c.bin, "bin", "bin", "directory of curi and curifs")
	flag.StringVar(&c.dir, "dir", "build/bench", "working directory, on the disk to measure; emptied")
	flag.Int64Var(&c.size, "size", 1<<30, "bytes of the large file")
	flag.IntVar(&c.rounds, "rounds", 5, "rounds of the large files")
	flag.IntVar(&c.starts, "starts", 31, "rounds of the stage hit")
	write := flag.String("write", "", "only write -size bytes to this file and print the seconds (used by bench itself)")
	flag.Parse()
	if *write != "" {
		seconds, err := writeFile(*write, c.size)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(seconds)
		return
	}
	text, err := c.run()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(text)
	if *page != "" {
		if err := os.WriteFile(*page, []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// config is what is measured, where and how often.
type config struct {
	bin, dir       string
	size           int64
	rounds, starts int

	self   string // this program, which measures writes from inside a stage
	source string // the large file
	mount  string
	python string
}

// run measures everything and returns the page.
func (c *config) run() (string, error) {
	if err := c.prepare(); err != nil {
		return "", err
	}
	defer os.RemoveAll(c.dir)
	if err := c.curi("mount", c.mount); err != nil {
		return "", err
	}
	defer func() {
		if err := c.curi("umount", c.mount); err != nil {
			log.Print(err)
		}
		os.Remove(c.mount)
	}()

	var rows []row
	for _, measure := range []func() ([]row, error){c.read, c.write, c.add, c.hit} {
		r, err := measure()
		if err != nil {
			return "", err
		}
		rows = append(rows, r...)
	}
	about, err := c.about()
	if err != nil {
		return "", err
	}
	return format(about, rows), nil
}

// prepare makes the working directory, the store and the large file.
func (c *config) prepare() (err error) {
	for _, p := range []*string{&c.bin, &c.dir} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if c.self, err = os.Executable(); err != nil {
		return err
	}
	// The system's own: what is first in PATH may be a wrapper that starts slowly.
	if c.python, err = exec.LookPath("/usr/bin/python3"); err != nil {
		if c.python, err = exec.LookPath("python3"); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	// Short, so that a run's TMPDIR fits below it.
	if c.mount, err = os.MkdirTemp("/tmp", "curi-bench-"); err != nil {
		return err
	}
	os.Setenv("CURI_STORE", filepath.Join(c.dir, "store"))
	c.source = filepath.Join(c.dir, "source")
	if err := randomFile(c.source, c.size); err != nil {
		return err
	}
	return c.curi("store", "init", os.Getenv("CURI_STORE"))
}

// curi runs curi quietly.
func (c *config) curi(args ...string) error {
	_, err := c.command(filepath.Join(c.bin, "curi"), args...)
	return err
}

// command runs a program in the working directory and returns its output.
func (c *config) command(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = c.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// timed returns how long the programs take, one after the other.
func (c *config) timed(commands ...[]string) (float64, error) {
	start := time.Now()
	for _, argv := range commands {
		if _, err := c.command(argv[0], argv[1:]...); err != nil {
			return 0, err
		}
	}
	return time.Since(start).Seconds(), nil
}

// read compares sequential reads of the large file, warm.
func (c *config) read() ([]row, error) {
	if err := c.curi("add", c.source, "--name", "large"); err != nil {
		return nil, err
	}
	through := filepath.Join(c.mount, "artifacts/large/source")
	r := row{what: "sequential read, warm", native: "read()", ours: "the same through the mount", bytes: c.size}
	return one(r, c.rounds+1, func() (float64, error) { return readFile(c.source) }, func() (float64, error) { return readFile(through) })
}

// write compares sequential writes with fsync, the mount's from inside a stage.
func (c *config) write() ([]row, error) {
	native := filepath.Join(c.dir, "written")
	size := strconv.FormatInt(c.size, 10)
	seconds := func(name string, args ...string) (float64, error) {
		out, err := c.command(name, args...)
		if err != nil {
			return 0, err
		}
		return strconv.ParseFloat(strings.TrimSpace(out), 64)
	}
	r := row{what: "sequential write and fsync", native: "write()", ours: "the same to a stage's output", bytes: c.size}
	return one(r, c.rounds, func() (float64, error) {
		defer os.Remove(native)
		return seconds(c.self, "-write", native, "-size", size)
	}, func() (float64, error) {
		return seconds(filepath.Join(c.bin, "curi"), "stage", "exec", "--force", "--name", "write", "--out", "file=file", "--",
			c.self, "-write", "{out.file}", "-size", size)
	})
}

// add compares storing the large file in an empty store with copying it
// durably and hashing it.
func (c *config) add() ([]row, error) {
	if _, err := exec.LookPath("b3sum"); err != nil {
		return nil, err
	}
	copied, fresh := filepath.Join(c.dir, "copied"), filepath.Join(c.dir, "fresh")
	curi := filepath.Join(c.bin, "curi")
	r := row{what: "store a large file", native: "cp, sync FILE, b3sum", ours: "curi add", bytes: c.size}
	return one(r, c.rounds, func() (float64, error) {
		defer os.Remove(copied)
		return c.timed([]string{"cp", c.source, copied}, []string{"sync", copied}, []string{"b3sum", copied})
	}, func() (float64, error) {
		defer os.RemoveAll(fresh)
		if _, err := c.command(curi, "store", "init", fresh); err != nil {
			return 0, err
		}
		return c.timed([]string{curi, "--store", fresh, "add", c.source, "--name", "large"})
	})
}

// hit compares a stage whose result is known with a Python that does nothing.
func (c *config) hit() ([]row, error) {
	stage := []string{filepath.Join(c.bin, "curi"), "stage", "exec", "--name", "hit", "--in", "large=large", "--param", "lr=0.1",
		"--out", "x=x", "--", "sh", "-c", "echo x > {out.x}"}
	if _, err := c.timed(stage); err != nil {
		return nil, err
	}
	r := row{what: "a stage hit", native: "python3 -c pass", ours: "curi stage exec"}
	return one(r, c.starts, func() (float64, error) {
		return c.timed([]string{c.python, "-c", "pass"})
	}, func() (float64, error) { return c.timed(stage) })
}
