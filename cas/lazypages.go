package cas

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Pages keeps what was read of what a remote says about a tree, so that it need
// not be read again. Nothing in it is believed: whoever reads it verifies it,
// and drops what does not hold. A store that cannot be written to keeps
// nothing. It may be used by several goroutines and processes.
type Pages struct {
	s    *Store
	tree Digest
	dir  string // of the lazy tree

	mu   sync.Mutex
	came map[Digest]bool // of this process; see lazyCame
}

func (s *Store) pages(tree Digest) *Pages { return &Pages{s: s, tree: tree, dir: s.lazyPath(tree)} }

func (p *Pages) path(at int64) string { return filepath.Join(p.dir, fmt.Sprintf("p%d", at)) }

// maxPages bounds what is believed to be a page, in bytes.
const maxPages = 64 << 20

// Read returns what is kept from offset at on; nil if nothing is.
func (p *Pages) Read(at int64) []byte {
	if fi, err := os.Lstat(p.path(at)); err != nil || fi.Size() > maxPages {
		return nil
	}
	b, err := os.ReadFile(p.path(at))
	if err != nil {
		return nil
	}
	return b
}

// Has reports whether something is kept from offset at on.
func (p *Pages) Has(at int64) bool {
	_, err := os.Lstat(p.path(at))
	return err == nil
}

// Write keeps b, which begins at offset at. That it cannot is no error: the
// next reader asks the remote.
func (p *Pages) Write(at int64, b []byte) {
	if _, err := os.Lstat(filepath.Join(p.dir, lazyTreeFile)); err != nil {
		return // collected
	}
	f, err := p.s.stageBytes(b, p.s.smallFileMode(), false)
	if err != nil {
		return
	}
	defer f.Close()
	if err := os.Rename(f.Name(), p.path(at)); err != nil {
		os.Remove(f.Name())
	}
}

// Drop forgets what is kept at offset at.
func (p *Pages) Drop(at int64) { os.Remove(p.path(at)) }

// Clear forgets all that is kept.
func (p *Pages) Clear() {
	files, _ := filepath.Glob(filepath.Join(p.dir, "p*"))
	for _, f := range files {
		os.Remove(f)
	}
}

const cameFile = "came"

// NoteCame notes that blobs of the tree, or parts of it that are trees by
// themselves, are about to enter the store, so that no collection takes them
// while the tree is kept. Called before they do.
func (p *Pages) NoteCame(ds ...Digest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b []byte
	for _, d := range ds {
		if !p.came[d] {
			b = append(b, d[:]...)
		}
	}
	if len(b) == 0 {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(p.dir, cameFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if noFile(err) {
		return nil // the tree was collected, or is here whole
	}
	if err != nil {
		return storeError(err)
	}
	defer f.Close()
	if err := p.s.shareFile(f, p.s.smallFileMode()); err != nil && !cannotWrite(err) { // another's file has it already
		return storeError(err)
	}
	if _, err := f.Write(b); err != nil {
		return noSpace(storeError(err), p.s.dir)
	}
	p.s.touchLazy(p.tree)
	if p.came == nil {
		p.came = map[Digest]bool{}
	}
	for _, d := range ds {
		p.came[d] = true
	}
	return nil
}

// lazyCame calls fn for each blob, and each part, that came of a lazy tree.
// Several processes append to the list, each all of its digests by one call;
// what a power failure tore is no digest of anything that is here.
func (s *Store) lazyCame(tree Digest, fn func(Digest)) {
	b, err := os.ReadFile(filepath.Join(s.lazyPath(tree), cameFile))
	if err != nil {
		return // nothing came yet
	}
	for ; len(b) >= DigestSize; b = b[DigestSize:] {
		fn(Digest(b))
	}
}
