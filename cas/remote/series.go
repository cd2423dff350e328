package remote

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/curi-store/curi/cas"
)

// A series is a number of objects, prefix/0000000001 and so on, whose newest
// counts. Creating an object that must not be there is the only thing that
// decides between machines, on every bucket; so what changes is written anew
// under the next number.
type series struct {
	b      Bucket
	prefix string // without a slash at the end
}

// maxNumber is the highest number of a series.
const maxNumber = 999_999_999

func (s series) key(n int) string { return fmt.Sprintf("%s/%010d", s.prefix, n) }

// numbers lists the numbers that are there, ascending.
func (s series) numbers(ctx context.Context) ([]int, error) {
	var ns []int
	for o, err := range s.b.List(ctx, s.prefix+"/", "") {
		if err != nil {
			return nil, err
		}
		if n := seriesNumber(strings.TrimPrefix(o.Key, s.prefix+"/")); n > 0 {
			ns = append(ns, n)
		}
	}
	return ns, nil
}

// current is numbers, and what a list that is behind does not have: the number
// after its last is asked for by name, of which every bucket says the truth. It
// is for those who write, or leave it because the newest says so already.
func (s series) current(ctx context.Context) ([]int, error) {
	ns, err := s.numbers(ctx)
	if err != nil {
		return nil, err
	}
	next := 1
	if k := len(ns); k > 0 {
		next = ns[k-1] + 1
	}
	for n := next; ; n++ {
		_, err := s.b.Stat(ctx, s.key(n))
		if errors.Is(err, cas.ErrNotFound) {
			return ns, nil
		}
		if err != nil {
			return nil, err
		}
		ns = append(ns, n)
	}
}

// seriesNumber parses the last part of a key; 0 if it is none.
func seriesNumber(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxNumber || fmt.Sprintf("%010d", n) != text {
		return 0
	}
	return n
}

// read returns object n, without its seal.
func (s series) read(ctx context.Context, n int) ([]byte, error) {
	return readSealed(ctx, s.b, s.key(n))
}

// create takes the number n; [cas.ErrExists] if another has it. line must hold
// something that only this caller writes: by that an own object is known again
// whose first answer was lost.
func (s series) create(ctx context.Context, n int, line []byte) error {
	if n > maxNumber {
		return fmt.Errorf("%s: no number is left: %w", s.prefix, cas.ErrInvalid)
	}
	return createOwn(ctx, s.b, s.key(n), line)
}
