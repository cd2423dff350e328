package main

// Files of the rows about many files.
const (
	openedFiles = 10_000
	openedSize  = 4 << 10
	walkedFiles = 50_000
	walkedSize  = 64
)

// smallWrites is how many bytes are written in pieces of 4 KiB.
func (b *bench) smallWrites() int64 { return min(b.size, 256<<20) }

// readRows are reads of the large file, warm, by root: an input of a stage
// beside the same blob on the disk.
func (b *bench) readRows() error {
	large, err := b.storeLarge()
	if err != nil {
		return err
	}
	if err := b.mounted(); err != nil {
		return err
	}
	for _, r := range []struct {
		what, op, native string
		rounds           int
		amount           amount
	}{
		{"sequential read, warm", "read", "`read()` of 512 KiB", 9, amount{bytes: b.size}},
		{"random reads of 4 KiB", "readrandom", "`pread()`", 9, amount{bytes: randomReads * smallIO}},
		{"read by `mmap()`", "readmapped", "`mmap()`", 9, amount{bytes: b.size}},
	} {
		err := b.compare(r.rounds, row{what: r.what, native: side{name: r.native}, ours: side{name: "the same of an input"}, amount: r.amount, want: target{share: 0.95}},
			inStage{op: r.op, input: "large", native: large, size: b.size})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeRows are writes to an output of a stage, by root.
func (b *bench) writeRows() error {
	if err := b.mounted(); err != nil {
		return err
	}
	native := b.path("written")
	err := b.compare(5, row{what: "sequential write, `fsync()` included", native: side{name: "`write()` of 512 KiB"}, ours: side{name: "the same to an output"},
		amount: amount{bytes: b.size}, want: target{share: 0.9}}, inStage{op: "write", native: native, size: b.size})
	if err != nil {
		return err
	}
	return b.compare(7, row{what: "writes of 4 KiB", native: side{name: "`write()`"}, ours: side{name: "the same to an output"},
		amount: amount{bytes: b.smallWrites()}, want: target{share: 0.85}}, inStage{op: "writesmall", native: native, size: b.smallWrites()})
}

// manyRows are about trees of many files, by root.
func (b *bench) manyRows() error {
	if err := b.storeTrees(); err != nil {
		return err
	}
	if err := b.mounted(); err != nil {
		return err
	}
	return b.treeRows("", nil, 2)
}

// treeRows opens the files of one tree and walks another, warm; opening may
// take factor times as long as on the disk.
func (b *bench) treeRows(how string, by []string, factor float64) error {
	opened, err := b.tree(b.many(openedFiles), openedSize)
	if err != nil {
		return err
	}
	err = b.compare(9, row{what: "open, read, close of 10,000 files of 4 KiB, warm" + how, native: side{name: "`open()`, `read()`, `close()`"}, ours: side{name: "the same of an input"},
		amount: amount{files: b.many(openedFiles)}, want: target{factor: factor}}, inStage{op: "openmany", input: "opened", native: opened, by: by})
	if err != nil {
		return err
	}
	walked, err := b.tree(b.many(walkedFiles), walkedSize)
	if err != nil {
		return err
	}
	return b.compare(7, row{what: "`find` with sizes over 50,000 files, second time" + how, native: side{name: "`find -printf %s`"}, ours: side{name: "the same of an input"},
		amount: amount{files: b.many(walkedFiles)}, want: target{factor: 1.3}}, inStage{op: "walk", input: "walked", native: walked, by: by})
}

// plainRows are the same as another user, whom the kernel gives no
// passthrough.
func (b *bench) plainRows() error {
	large, err := b.storeLarge()
	if err != nil {
		return err
	}
	if err := b.storeTrees(); err != nil {
		return err
	}
	by, err := b.asNobody()
	if err != nil {
		return err
	}
	const how = ", without passthrough (not root)"
	err = b.compare(9, row{what: "second sequential read" + how, native: side{name: "`read()` of 512 KiB"}, ours: side{name: "the same of an input"},
		amount: amount{bytes: b.size}, want: target{share: 0.8}}, inStage{op: "read", input: "large", native: large, size: b.size, by: by})
	if err != nil {
		return err
	}
	err = b.compare(7, row{what: "writes of 4 KiB" + how, native: side{name: "`write()`"}, ours: side{name: "the same to an output"},
		amount: amount{bytes: b.smallWrites()}, want: target{share: 0.7}},
		inStage{op: "writesmall", native: b.path("nobody/written"), size: b.smallWrites(), by: by})
	if err != nil {
		return err
	}
	return b.treeRows(how, by, 15)
}

// storeLarge stores the large file and returns the path of its blob.
func (b *bench) storeLarge() (string, error) {
	path, err := b.large()
	if err != nil {
		return "", err
	}
	d, err := b.artifact("large", path)
	if err != nil {
		return "", err
	}
	return b.blob(d), nil
}

// storeTrees stores the trees that are opened and walked.
func (b *bench) storeTrees() error {
	opened, err := b.tree(b.many(openedFiles), openedSize)
	if err != nil {
		return err
	}
	walked, err := b.tree(b.many(walkedFiles), walkedSize)
	if err != nil {
		return err
	}
	if _, err := b.artifact("opened", opened); err != nil {
		return err
	}
	_, err = b.artifact("walked", walked)
	return err
}
