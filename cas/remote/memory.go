package remote

import (
	"math/bits"
	"sync"
)

// Large pieces of memory are used again: to get one anew, and have it zeroed
// and collected, costs as much as to fill it. They come in powers of two, and
// one size for whole packs.
const (
	smallestBody = 18 // as a power of two; what is smaller is left to the runtime
	largestBody  = 24
)

var bodies [largestBody - smallestBody + 2]sync.Pool

// bodyClass is which pool has n bytes, and how many those in it have; -1 for
// none.
func bodyClass(n int) (class, size int) {
	switch k := max(bits.Len(uint(max(n, 1)-1)), smallestBody); {
	case n < 1<<(smallestBody-1) || n > maxFrame:
		return -1, n
	case k > largestBody:
		return largestBody - smallestBody + 1, maxFrame
	default:
		return k - smallestBody, 1 << k
	}
}

// getBody returns n bytes, which may hold anything.
func getBody(n int) []byte {
	class, size := bodyClass(n)
	if class >= 0 {
		if b, ok := bodies[class].Get().(*[]byte); ok {
			return (*b)[:n]
		}
	}
	return make([]byte, n, size)
}

// putBody gives bytes from getBody back, from their beginning. Nobody may look
// at them again.
func putBody(b []byte) {
	if class, size := bodyClass(cap(b)); class >= 0 && cap(b) == size {
		bodies[class].Put(&b)
	}
}
