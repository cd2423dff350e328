package cas

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/internal/fault"
)

// Promote makes a blob that is whole one of the store, durably. The Partial
// can be read on.
func (p *Partial) Promote(ctx context.Context) error {
	if !p.Whole() {
		return fmt.Errorf("promote blob %s: %d of its %d bytes are here: %w", p.digest.Short(), p.Local(), p.size, ErrNotFound)
	}
	if err := p.promote(ctx); err != nil {
		return fmt.Errorf("promote blob %s: %w", p.digest.Short(), err)
	}
	return nil
}

func (p *Partial) promote(ctx context.Context) error {
	release, err := p.s.shareCommit(ctx)
	if err != nil {
		return err
	}
	defer release()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := flock(p.bits, unix.LOCK_EX); err != nil {
		return err
	}
	defer flock(p.bits, unix.LOCK_UN)
	path := p.s.partialPath(p.digest)
	if p.s.hasWholeBlob(p.digest, p.size) {
		p.remove()
		return nil
	}
	// The bytes move when all else is in place, and what tells of them goes last:
	// whoever is killed in between goes on from it.
	if err := p.storeOutboard(); err != nil {
		return err
	}
	fault.At(fault.PartialProved)
	if err := p.data.Chmod(blobMode); err != nil {
		return storeError(err)
	}
	if err := p.data.Sync(); err != nil {
		return storeError(err)
	}
	if err := p.s.renameDurable(path, p.s.blobPath(p.digest)); err != nil {
		return err
	}
	fault.At(fault.PartialNamed)
	p.remove()
	return nil
}

// storeOutboard stores a copy of the nodes as the outboard of the blob to be.
func (p *Partial) storeOutboard() (err error) {
	f, err := p.s.stage()
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	head := outboardHead(p.size)
	nodes := io.NewSectionReader(p.nodes, int64(len(head)), outboardSize(p.size)-int64(len(head)))
	if _, err := f.Write(head); err != nil {
		return noSpace(storeError(err), p.s.dir)
	}
	if _, err := io.CopyN(f, nodes, nodes.Size()); err != nil {
		return fmt.Errorf("copy its outboard: %w", noSpace(storeError(err), p.s.dir))
	}
	if err := p.s.shareFile(f, blobMode); err != nil {
		return storeError(err)
	}
	if err := f.Sync(); err != nil {
		return storeError(err)
	}
	return p.s.renameDurable(f.Name(), p.s.outboardPath(p.digest))
}

// remove removes the files, as the store has the blob.
func (p *Partial) remove() {
	for _, f := range []*os.File{p.data, p.nodes, p.bits} { // a collection finds those that have a map
		os.Remove(f.Name())
	}
}
