// Command bench measures Curi beside the bare disk, and beside other tools, in
// interleaved rounds of one run, and writes medians and ratios as a page.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if len(os.Args) > 1 && os.Args[1] == workArg {
		// Called by itself, from inside a stage or as another user.
		if err := work(os.Args[2:]); err != nil {
			log.Fatal(err)
		}
		return
	}
	var o options
	page := flag.String("o", "", "`page` to write a whole run to; without it, or with -parts, stdout only")
	only := flag.String("parts", "", "measure these `parts` only, of "+strings.Join(partNames(diskParts), ", ")+"; with -peers of "+strings.Join(partNames(peerParts), ", ")+
		"; with -remote of "+strings.Join(partNames(remoteParts), ", "))
	flag.StringVar(&o.bin, "bin", "bin", "directory of curi and curifs")
	flag.StringVar(&o.dir, "dir", "build/bench", "working directory, on the disk to measure; emptied")
	flag.Int64Var(&o.size, "size", 1<<30, "bytes of the large file")
	flag.IntVar(&o.percent, "percent", 100, "how many of the files of each row with many, in percent")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of every row; 0 for each row's own number")
	flag.BoolVar(&o.peers, "peers", false, "measure beside other tools instead of the bare disk")
	flag.BoolVar(&o.remote, "remote", false, "measure remotes, beside rclone and restic, with the S3 server that CURI_TEST_S3 names")
	flag.StringVar(&o.peerPython, "peer-python", "", "Python `environment` that has DVC and Curifactory (see testdata/dev/peers.sh)")
	flag.Parse()

	parts := diskParts
	switch {
	case o.remote:
		parts = remoteParts
	case o.peers:
		parts = peerParts
	}
	if *only != "" {
		var err error
		if parts, err = choose(parts, strings.Split(*only, ",")); err != nil {
			log.Fatal(err)
		}
	}
	section, err := run(o, parts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(section)
	if *page == "" || *only != "" {
		return
	}
	if err := updatePage(*page, section); err != nil {
		log.Fatal(err)
	}
}

// options are what the command line says.
type options struct {
	bin, dir   string
	size       int64
	percent    int
	rounds     int
	peers      bool
	remote     bool
	peerPython string
}

// part is a group of rows that are measured together.
type part struct {
	name string
	run  func(*bench) error // adds rows
}

func partNames(parts []part) []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func choose(parts []part, names []string) ([]part, error) {
	var chosen []part
	for _, n := range names {
		i := slices.IndexFunc(parts, func(p part) bool { return p.name == n })
		if i < 0 {
			return nil, fmt.Errorf("no part %q; there are %s", n, strings.Join(partNames(parts), ", "))
		}
		chosen = append(chosen, parts[i])
	}
	return chosen, nil
}

// run measures the parts and returns their section of the page.
func run(o options, parts []part) (string, error) {
	b, err := newBench(o)
	if err != nil {
		return "", err
	}
	defer b.close()
	for _, p := range parts {
		log.Printf("measuring %s", p.name)
		if err := p.run(b); err != nil {
			return "", fmt.Errorf("%s: %w", p.name, err)
		}
	}
	about, err := b.about()
	if err != nil {
		return "", err
	}
	if o.remote {
		return remoteSection(about, b.remoteRows, b.lazyRows, b.farRows), nil
	}
	if o.peers {
		return peerSection(about, b.peerRows), nil
	}
	return diskSection(about, b.rows), nil
}
