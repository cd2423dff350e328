package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	// What takes long comes first, while nobody waits for a lock.
	if err := p.data.Sync(); err != nil {
		return storeError(err)
	}
	release, err := p.s.shareCommit(ctx)
	if err != nil {
		return err
	}
	defer release()
	p.turn.Lock()
	defer p.turn.Unlock()
	if err := flock(p.bits, unix.LOCK_EX); err != nil {
		return err
	}
	defer flock(p.bits, unix.LOCK_UN)
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
	if err := p.storeData(ctx); err != nil {
		return err
	}
	fault.At(fault.PartialNamed)
	p.remove()
	return nil
}

// storeData gives the bytes the name of the blob.
func (p *Partial) storeData(ctx context.Context) error {
	err := p.data.Chmod(blobMode)
	if errors.Is(err, fs.ErrPermission) {
		// Another user began it: a file that stays his is no blob.
		return p.storeFile(p.s.blobPath(p.digest), func(f *os.File) error { return copyBytes(ctx, f, p.data) })
	}
	if err == nil {
		err = p.data.Sync()
	}
	if err != nil {
		return storeError(err)
	}
	return p.s.renameDurable(p.s.partialPath(p.digest), p.s.blobPath(p.digest))
}

// storeOutboard stores a copy of the nodes as the outboard of the blob to be.
func (p *Partial) storeOutboard() error {
	return p.storeFile(p.s.outboardPath(p.digest), func(f *os.File) error {
		head := outboardHead(p.size)
		if _, err := f.Write(head); err != nil {
			return err
		}
		at := int64(len(head))
		nodes := io.NewSectionReader(p.nodes, at, outboardSize(p.size)-at)
		_, err := io.CopyN(f, nodes, nodes.Size())
		return err
	})
}

// storeFile makes a file that fill writes one of the store, durably.
func (p *Partial) storeFile(path string, fill func(*os.File) error) error {
	f, err := p.s.stage()
	if err != nil {
		return err
	}
	defer f.Close()
	if err = fill(f); err == nil {
		err = p.s.shareFile(f, blobMode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		os.Remove(f.Name())
		return noSpace(storeError(err), p.s.dir)
	}
	return p.s.renameDurable(f.Name(), path)
}

// remove removes the files, as the store has the blob.
func (p *Partial) remove() {
	for _, f := range []*os.File{p.data, p.nodes, p.bits} { // a collection finds those that have a map
		os.Remove(f.Name())
	}
}

// hasFiles reports whether what a map is about is there. A map is left alone
// where whoever made the blob one of the store died before he had removed it.
func (p *Partial) hasFiles() bool {
	data, err := p.data.Stat()
	if err != nil || data.Size() != p.size {
		return false
	}
	nodes, err := p.nodes.Stat()
	return err == nil && nodes.Size() > 0
}
