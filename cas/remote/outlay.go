package remote

import (
	"math/bits"

	"github.com/curi-store/curi/cas"
)

// Behind the bytes of a large blob the file stream has the nodes of its
// outboard, in another order than the outboard: first those that cover more
// than a segment, in pre-order, then those of each segment, in pre-order. So
// what verifies a part of a segment lies in two places instead of twenty, of
// which the first is small and the same for the whole blob.
const segmentSize = 8 << 20

const nodeSize = 64

// outRun is a run of nodes that lies in one piece in both orders.
type outRun struct {
	outboard int64 // offset in the outboard
	stream   int64 // offset behind the blob
	length   int64
}

// nodesLen is how many bytes of nodes a blob of size bytes has in the stream.
func nodesLen(size int64) int64 {
	if size <= cas.MinOutboard {
		return 0
	}
	return nodesBelow(size)
}

func nodesBelow(n int64) int64 {
	return nodeSize * ((n+cas.GroupSize-1)/cas.GroupSize - 1)
}

// upperLen is how many of them cover more than a segment.
func upperLen(size int64) int64 {
	return nodeSize * ((size+segmentSize-1)/segmentSize - 1)
}

// outRuns yields the runs of a blob's nodes, in the order of the outboard.
func outRuns(size int64, yield func(outRun)) {
	head := cas.OutboardSize(size) - nodesBelow(size)
	w := outWalk{size: size, yield: yield}
	w.node(head, 0, size)
}

type outWalk struct {
	upper int64 // how many bytes of upper nodes came so far
	size  int64
	yield func(outRun)
}

// node handles the node at offset off of the outboard, over n bytes from pos.
func (w *outWalk) node(off, pos, n int64) {
	if n <= segmentSize {
		if length := nodesBelow(n); length > 0 {
			w.yield(outRun{off, segmentNodes(w.size, pos/segmentSize), length})
		}
		return
	}
	w.yield(outRun{off, w.upper, nodeSize})
	w.upper += nodeSize
	left := int64(1) << (bits.Len64(uint64(n-1)) - 1)
	w.node(off+nodeSize, pos, left)
	w.node(off+nodeSize+nodesBelow(left), pos+left, n-left)
}

// segmentNodes is where behind the blob the nodes of a segment begin.
func segmentNodes(size, segment int64) int64 {
	return upperLen(size) + segment*nodesBelow(segmentSize)
}
