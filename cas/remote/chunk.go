package remote

import (
	"bufio"
	"io"

	cdc "github.com/buildbarn/go-cdc"
)

// Sizes of chunks: content-defined boundaries lie between a quarter of the
// normal size and four times it. Small files share chunks, and those are
// short, so that one file can be read without many others.
const (
	smallNormal = 16 << 10
	largeNormal = 64 << 10
)

var (
	smallChunker = cdc.NewFastContentDefinedChunker(&cdc.FastContentDefinedChunkerGearTable, smallNormal)
	largeChunker = cdc.NewFastContentDefinedChunker(&cdc.FastContentDefinedChunkerGearTable, largeNormal)
)

// chunks splits what r yields and calls fn for each chunk, whose bytes are
// valid during the call.
func chunks(r io.Reader, c cdc.ContentDefinedChunker, fn func([]byte) error) error {
	cr := c.NewChunkReader(bufio.NewReaderSize(r, max(1<<20, c.GetMaximumPeekSizeBytes())))
	for {
		p, err := cr.ReadNextChunk()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
	}
}
