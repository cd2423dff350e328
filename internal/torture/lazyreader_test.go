package torture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
)

// lazyReaderEnv makes the test binary a reader: it holds the path.
const lazyReaderEnv = "TORTURE_READER"

// noiseBlock is the piece of which noiseAt makes each by itself.
const noiseBlock = 64 << 10

// lazyJumps is how often a reader reads somewhere, at most, before he reads in
// order.
const lazyJumps = 6

// noiseAt is a part of a file that no remote can make smaller, which is known
// without the file; both numbers are multiples of noiseBlock.
func noiseAt(seed uint64, off int64, n int) []byte {
	b := make([]byte, n)
	for at := 0; at < n; at += noiseBlock {
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], seed)
		binary.LittleEndian.PutUint64(key[8:], uint64(off)+uint64(at))
		rand.NewChaCha8(key).Read(b[at : at+noiseBlock])
	}
	return b
}

// lazyReaderMain reads a file of noise, in order from some place on and here
// and there, until it has read all of it. What it has read, and compared, it
// says on stdout, "OFFSET LENGTH\n" each. It ends with 9 at a wrong byte and
// with 3 at an error.
func lazyReaderMain(path string) int {
	seed, _ := strconv.ParseUint(os.Args[1], 10, 64)
	random := rand.New(rand.NewPCG(seed, uint64(os.Getpid())))
	f, err := os.Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	read := func(off int64, n int) int {
		b := make([]byte, n)
		if _, err := f.ReadAt(b, off); err != nil && err != io.EOF {
			fmt.Fprintln(os.Stderr, err)
			return 3
		}
		if !bytes.Equal(b, noiseAt(seed, off, n)) {
			fmt.Fprintf(os.Stderr, "wrong bytes from %d to %d of %s\n", off, off+int64(n), path)
			return 9
		}
		fmt.Printf("%d %d\n", off, n)
		return 0
	}
	blocks := fi.Size() / noiseBlock
	for range random.IntN(1 + lazyJumps) {
		if status := read(random.Int64N(blocks)*noiseBlock, noiseBlock); status != 0 {
			return status
		}
	}
	from := random.Int64N(blocks)
	for i := range blocks {
		if status := read((from+i)%blocks*noiseBlock, noiseBlock); status != 0 {
			return status
		}
	}
	return 0
}
