package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
)

// addedFiles are those of the row that stores many; their size is openedSize.
const addedFiles = 20_000

// digestRows compare the digest of a file in the page cache, and sealing it,
// with b3sum and fsync. The programs are timed whole.
func (b *bench) digestRows() error {
	large, err := b.large()
	if err != nil {
		return err
	}
	size := strconv.FormatInt(b.size, 10)
	threads := strconv.Itoa(runtime.NumCPU())
	b3sum := []string{"b3sum", "--num-threads", threads}
	err = b.add(9, row{
		what: "digest of a file in the page cache", amount: amount{bytes: b.size}, want: target{share: 0.75},
		native: side{"`b3sum --num-threads " + threads + "`", func() (float64, error) { return b.timed(append(b3sum, large)) }},
		ours:   side{"`cas.SumFile`", func() (float64, error) { return b.timed([]string{b.self, workArg, "digest", large, size}) }},
	})
	if err != nil {
		return err
	}
	written, out := b.path("written"), b.path("sealed")
	fresh := b.path("fresh")
	return b.add(5, row{
		what: "digest and seal of an output", amount: amount{bytes: b.size}, want: target{share: 0.8},
		native: side{"`b3sum`, `sync FILE`", func() (float64, error) {
			defer os.Remove(written)
			if _, err := write(written, b.size, bufferSize, false); err != nil {
				return 0, err
			}
			return b.timed(append(b3sum, written), []string{"sync", written})
		}},
		ours: side{"`Store.Seal`", func() (float64, error) {
			defer os.RemoveAll(fresh)
			if err := b.curi("store", "init", fresh); err != nil {
				return 0, err
			}
			if _, err := write(out, b.size, bufferSize, false); err != nil {
				return 0, err
			}
			return b.timed([]string{"env", "CURI_STORE=" + fresh, b.self, workArg, "seal", out, size})
		}},
	})
}

// addRows compare storing in an empty store with copying durably and, for the
// large file, hashing. Every round has fresh folders: how the disk lays out
// many small files varies tenfold.
func (b *bench) addRows() error {
	large, err := b.large()
	if err != nil {
		return err
	}
	copied := b.path("copied")
	err = b.add(7, row{
		what: "store a large file", amount: amount{bytes: b.size}, want: target{share: 1},
		native: side{"`cp`, `sync FILE`, `b3sum`", func() (float64, error) {
			if err := b.atRest(copied); err != nil {
				return 0, err
			}
			return b.timed([]string{"cp", large, copied}, []string{"sync", copied}, []string{"b3sum", copied})
		}},
		ours: side{"`curi add`", func() (float64, error) { return b.addFresh(large) }},
	})
	if err != nil {
		return err
	}
	n := b.many(addedFiles)
	dir, err := b.tree(n, openedSize)
	if err != nil {
		return err
	}
	return b.add(9, row{
		what: "store 20,000 files of 4 KiB", amount: amount{files: n}, want: target{factor: 2},
		native: side{"`cp -r`, `sync -f`", func() (float64, error) {
			if err := b.atRest(copied); err != nil {
				return 0, err
			}
			return b.timed([]string{"cp", "-r", dir, copied}, []string{"sync", "-f", copied})
		}},
		ours: side{"`curi add`", func() (float64, error) { return b.addFresh(dir) }},
	})
}

// addFresh times adding a path to an empty store.
func (b *bench) addFresh(path string) (float64, error) {
	fresh := b.path("fresh")
	if err := b.atRest(fresh); err != nil {
		return 0, err
	}
	if err := b.curi("store", "init", fresh); err != nil {
		return 0, err
	}
	return b.timed([]string{b.tool("curi"), "--store", fresh, "add", path, "--name", "added"})
}

// atRest removes what the round before left, and waits for the disk: what that
// round still has to write is no part of the next.
func (b *bench) atRest(leftover string) error {
	for _, p := range []string{b.path("copied"), b.path("fresh"), leftover} {
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return syncFilesystem(b.dir)
}

// hitRows compare a stage whose result is known with a Python that does
// nothing, for small and for large inputs, whole processes.
func (b *bench) hitRows() error {
	small := make([]string, 5)
	for i := range small {
		path := b.path(fmt.Sprintf("small%d", i))
		if err := os.WriteFile(path, fmt.Appendln(nil, i), 0o644); err != nil {
			return err
		}
		small[i] = fmt.Sprintf("small%d", i)
		if _, err := b.artifact(small[i], path); err != nil {
			return err
		}
	}
	if _, err := b.storeLarge(); err != nil {
		return err
	}
	if err := b.storeTrees(); err != nil {
		return err
	}
	hit := func(inputs []string) ([]string, error) {
		stage := []string{b.tool("curi"), "stage", "exec", "--name", "hit", "--param", "lr=0.1", "--out", "x=x"}
		for i, in := range inputs {
			stage = append(stage, "--in", fmt.Sprintf("in%d=%s", i, in))
		}
		stage = append(stage, "--", "sh", "-c", "echo x > {out.x}")
		_, err := b.timed(stage)
		return stage, err
	}
	light, err := hit(small)
	if err != nil {
		return err
	}
	heavy, err := hit([]string{"large", "opened", "walked", "opened/000", "walked/001"})
	if err != nil {
		return err
	}
	python := side{"`python3 -c pass`", func() (float64, error) { return b.timed([]string{b.python, "-c", "pass"}) }}
	lightSide := side{"`curi stage exec`", func() (float64, error) { return b.timed(light) }}
	heavySide := side{"`curi stage exec`", func() (float64, error) { return b.timed(heavy) }}
	all, err := interleave(b.times(41), python, lightSide, heavySide)
	if err != nil {
		return err
	}
	want := target{seconds: 0.015}
	b.rows = append(b.rows,
		row{what: "a stage hit with 5 inputs of a few bytes", native: python, ours: lightSide, want: want, n: all[0], o: all[1]},
		row{what: "a stage hit with 5 inputs: 1 GiB, and trees of 10,000 and 50,000 files", native: python, ours: heavySide, want: want, n: all[0], o: all[2]})
	return nil
}

// diskParts measure beside the bare disk. What needs the store as root comes
// before what gives it away.
var diskParts = []part{
	{"read", (*bench).readRows},
	{"write", (*bench).writeRows},
	{"many", (*bench).manyRows},
	{"digest", (*bench).digestRows},
	{"add", (*bench).addRows},
	{"hit", (*bench).hitRows},
	{"graph", (*bench).graphRows},
	{"plain", (*bench).plainRows},
}
