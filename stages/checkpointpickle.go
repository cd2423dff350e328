package stages

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// A pickle is read here without executing any of it: classes stay names,
// objects are what was stored in them, and what a call would return is unknown
// (nil). That is enough to learn which files a checkpoint names and how long
// they are.
type pickle struct {
	r     *bufio.Reader
	ops   int // left
	stack []any
	memo  map[int64]any

	// built is told of each object whose attributes are known; persistent of
	// each reference to something that is stored beside the pickle.
	built      func(class string, attributes map[string]any)
	persistent func(id any)
}

// Values of a pickle are string, int64, *pickleList (tuples and sets too),
// *pickleDict, pickleClass, *pickleObject, pickleMark, and nil for all others.
type (
	pickleMark   struct{}
	pickleClass  string // "module.name"
	pickleList   struct{ items []any }
	pickleDict   struct{ items map[string]any } // what is keyed by strings
	pickleObject struct{ class string }
)

const (
	// maxPickleOps bounds the memory that a pickle takes, at some 100 bytes each.
	maxPickleOps = 4 << 20
	// maxPickleText is the longest string that is kept; longer ones are nil.
	maxPickleText = 4096
)

var (
	errPickle      = errors.New("not a pickle, or one that was cut off")
	errLargePickle = errors.New("a pickle that is too large to be read")
)

func newPickle(r *bufio.Reader) *pickle {
	return &pickle{r: r, ops: maxPickleOps, memo: map[int64]any{}}
}

// load reads to the end of one pickle, and no further, and returns its value.
func (p *pickle) load() (any, error) {
	p.stack, p.memo = p.stack[:0], map[int64]any{}
	for ; p.ops > 0; p.ops-- {
		op, err := p.r.ReadByte()
		if err != nil {
			return nil, errPickle
		}
		if op == '.' {
			return p.pop()
		}
		if err := p.do(op); err != nil {
			return nil, err
		}
	}
	return nil, errLargePickle
}

func (p *pickle) push(v any) error { p.stack = append(p.stack, v); return nil }

func (p *pickle) pop() (any, error) {
	if len(p.stack) == 0 {
		return nil, errPickle
	}
	v := p.stack[len(p.stack)-1]
	p.stack = p.stack[:len(p.stack)-1]
	return v, nil
}

// drop takes n values off the stack, and pushes one.
func (p *pickle) drop(n int, v any) error {
	if len(p.stack) < n {
		return errPickle
	}
	p.stack = append(p.stack[:len(p.stack)-n], v)
	return nil
}

// marked takes all down to the last mark off the stack.
func (p *pickle) marked() ([]any, error) {
	for i, v := range slices.Backward(p.stack) {
		if _, ok := v.(pickleMark); ok {
			items := slices.Clone(p.stack[i+1:])
			p.stack = p.stack[:i]
			return items, nil
		}
	}
	return nil, errPickle
}

func (p *pickle) top() any {
	if len(p.stack) == 0 {
		return nil
	}
	return p.stack[len(p.stack)-1]
}

// number reads a little-endian unsigned integer of n bytes.
func (p *pickle) number(n int) (int64, error) {
	var b [8]byte
	if _, err := io.ReadFull(p.r, b[:n]); err != nil {
		return 0, errPickle
	}
	v := binary.LittleEndian.Uint64(b[:])
	if v > math.MaxInt64 {
		return 0, errPickle
	}
	return int64(v), nil
}

// text reads n bytes, and keeps them if they are few.
func (p *pickle) text(n int64) (any, error) {
	if n > maxPickleText {
		if _, err := io.CopyN(io.Discard, p.r, n); err != nil {
			return nil, errPickle
		}
		return nil, nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		return nil, errPickle
	}
	return string(b), nil
}

func (p *pickle) line() (string, error) {
	b, err := p.r.ReadSlice('\n') // at most what the reader buffers
	if err != nil {
		return "", errPickle
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// sized reads a text whose length comes first, in n bytes.
func (p *pickle) sized(n int, keep bool) error {
	size, err := p.number(n)
	if err != nil {
		return err
	}
	v, err := p.text(size)
	if err != nil {
		return err
	}
	if !keep {
		v = nil
	}
	return p.push(v)
}

// do does one operation.
func (p *pickle) do(op byte) error {
	switch op {
	case 0x80: // PROTO
		_, err := p.number(1)
		return err
	case 0x95: // FRAME
		_, err := p.number(8)
		return err
	case '(':
		return p.push(pickleMark{})
	case 'N', 0x88, 0x89: // None, True, False
		return p.push(nil)
	case '0':
		_, err := p.pop()
		return err
	case '1':
		_, err := p.marked()
		return err
	case '2':
		if len(p.stack) == 0 {
			return errPickle
		}
		return p.push(p.top())
	case 'I', 'L', 'F', 'S', 'V', 'J', 'K', 'M', 'G', 0x8a, 0x8b, 'T', 'U', 'X', 0x8c, 0x8d, 'B', 'C', 0x8e, 0x96:
		return p.constant(op)
	case ']', ')', 0x8f: // an empty list, tuple, set
		return p.push(&pickleList{})
	case '}':
		return p.push(&pickleDict{items: map[string]any{}})
	case 't', 'l', 0x91: // TUPLE, LIST, FROZENSET
		items, err := p.marked()
		if err != nil {
			return err
		}
		return p.push(&pickleList{items})
	case 0x85, 0x86, 0x87: // a tuple of 1, 2, 3
		n := int(op - 0x84)
		if len(p.stack) < n {
			return errPickle
		}
		return p.drop(n, &pickleList{slices.Clone(p.stack[len(p.stack)-n:])})
	case 'a', 'e', 0x90, 's', 'u', 'd':
		return p.collect(op)
	case 'g', 'h', 'j', 'p', 'q', 'r', 0x94:
		return p.memoize(op)
	case 0x97: // NEXT_BUFFER
		return p.push(nil)
	case 0x98: // READONLY_BUFFER
		return nil
	case 'P', 'Q':
		return p.persist(op)
	}
	return p.object(op)
}

// constant pushes a number or a text.
func (p *pickle) constant(op byte) error {
	switch op {
	case 'I', 'L', 'F', 'S', 'V':
		line, err := p.line()
		if err != nil {
			return err
		}
		switch op {
		case 'I', 'L':
			n, err := strconv.ParseInt(strings.TrimSuffix(line, "L"), 10, 64)
			if err != nil {
				return p.push(nil)
			}
			return p.push(n)
		case 'V':
			return p.push(line)
		case 'S':
			return p.push(strings.Trim(line, `'"`))
		}
		return p.push(nil)
	case 'K', 'M', 'J':
		n, err := p.number(map[byte]int{'K': 1, 'M': 2, 'J': 4}[op])
		if op == 'J' {
			n = int64(int32(n))
		}
		if err != nil {
			return err
		}
		return p.push(n)
	case 'G':
		_, err := p.text(8)
		if err != nil {
			return err
		}
		return p.push(nil)
	case 0x8a, 0x8b:
		n, err := p.number(map[byte]int{0x8a: 1, 0x8b: 4}[op])
		if err != nil {
			return err
		}
		v, err := p.text(n)
		if err != nil {
			return err
		}
		return p.push(longInt(v))
	case 'U', 0x8c:
		return p.sized(1, true)
	case 'T', 'X':
		return p.sized(4, true)
	case 0x8d:
		return p.sized(8, true)
	case 'C':
		return p.sized(1, false)
	case 'B':
		return p.sized(4, false)
	}
	return p.sized(8, false) // BINBYTES8, BYTEARRAY8
}

// longInt is an integer of any length, little-endian, in two's complement; nil
// where it is not small.
func longInt(v any) any {
	text, ok := v.(string)
	if !ok || len(text) > 32 {
		return nil
	}
	b := []byte(text)
	negative := len(b) > 0 && b[len(b)-1] >= 0x80
	slices.Reverse(b)
	n := new(big.Int).SetBytes(b)
	if negative {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	if !n.IsInt64() {
		return nil
	}
	return n.Int64()
}

// collect puts values into a list or dict below them.
func (p *pickle) collect(op byte) error {
	var items []any
	var err error
	switch op {
	case 'a', 's':
		n := map[byte]int{'a': 1, 's': 2}[op]
		if len(p.stack) < n+1 {
			return errPickle
		}
		items = slices.Clone(p.stack[len(p.stack)-n:])
		p.stack = p.stack[:len(p.stack)-n]
	default:
		if items, err = p.marked(); err != nil {
			return err
		}
	}
	if op == 'd' {
		if err := p.push(&pickleDict{items: map[string]any{}}); err != nil {
			return err
		}
	}
	switch to := p.top().(type) {
	case *pickleList:
		to.items = append(to.items, items...)
	case *pickleDict:
		for i := 0; i+1 < len(items); i += 2 {
			if k, ok := items[i].(string); ok {
				to.items[k] = items[i+1]
			}
		}
	}
	return nil
}

// memoize remembers the top of the stack, or pushes what was remembered.
func (p *pickle) memoize(op byte) error {
	var n int64
	var err error
	switch op {
	case 'g', 'p':
		var line string
		if line, err = p.line(); err == nil {
			if n, err = strconv.ParseInt(line, 10, 64); err != nil {
				err = errPickle
			}
		}
	case 'h', 'q':
		n, err = p.number(1)
	case 'j', 'r':
		n, err = p.number(4)
	case 0x94:
		n = int64(len(p.memo))
	}
	if err != nil {
		return err
	}
	if op == 'g' || op == 'h' || op == 'j' {
		return p.push(p.memo[n])
	}
	if len(p.stack) == 0 {
		return errPickle
	}
	p.memo[n] = p.top()
	return nil
}

func (p *pickle) persist(op byte) error {
	var id any
	var err error
	if op == 'P' {
		id, err = p.line()
	} else {
		id, err = p.pop()
	}
	if err != nil {
		return err
	}
	if p.persistent != nil {
		p.persistent(id)
	}
	return p.push(nil)
}

// className reads the module of a class and its name there, a line each.
func (p *pickle) className() (string, error) {
	module, err := p.line()
	if err != nil {
		return "", err
	}
	name, err := p.line()
	return module + "." + name, err
}

// object makes classes, and objects of them, by name.
func (p *pickle) object(op byte) error {
	switch op {
	case 'c': // GLOBAL
		name, err := p.className()
		if err != nil {
			return err
		}
		return p.push(pickleClass(name))
	case 0x93: // STACK_GLOBAL
		if len(p.stack) < 2 {
			return errPickle
		}
		module, _ := p.stack[len(p.stack)-2].(string)
		name, _ := p.top().(string)
		return p.drop(2, pickleClass(module+"."+name))
	case 'i': // INST
		if _, err := p.marked(); err != nil {
			return err
		}
		name, err := p.className()
		if err != nil {
			return err
		}
		return p.push(&pickleObject{name})
	case 'o': // OBJ
		items, err := p.marked()
		if err != nil || len(items) == 0 {
			return errPickle
		}
		class, _ := items[0].(pickleClass)
		return p.push(&pickleObject{string(class)})
	case 'R', 0x81, 0x92: // REDUCE, NEWOBJ, NEWOBJ_EX
		n := 2
		if op == 0x92 {
			n = 3
		}
		if len(p.stack) < n {
			return errPickle
		}
		class, _ := p.stack[len(p.stack)-n].(pickleClass)
		return p.drop(n, &pickleObject{string(class)})
	case 'b': // BUILD
		state, err := p.pop()
		if err != nil {
			return err
		}
		attributes, ok := state.(*pickleDict)
		if of, isObject := p.top().(*pickleObject); ok && isObject && p.built != nil {
			p.built(of.class, attributes.items)
		}
		return nil
	case 0x82, 0x83, 0x84: // EXT1, EXT2, EXT4
		_, err := p.number(1 << (op - 0x82))
		if err != nil {
			return err
		}
		return p.push(nil)
	}
	return errPickle
}
