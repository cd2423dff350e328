package stages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// An event file of TensorBoard is a row of records, each
//
//	length   8 bytes, little-endian
//	         4 bytes: the masked CRC-32C of these
//	data     length bytes
//	         4 bytes: the masked CRC-32C of these
//
// whose data is a protocol buffer, of which these fields are read:
//
//	Event    2 step (varint), 5 summary
//	Summary  1 value, repeated
//	Value    1 tag, 2 simple_value (float), 8 tensor
//	Tensor   1 dtype (1 float, 2 double), 4 content, 5 float_val, 6 double_val

// maxEvent bounds one record, in bytes: scalars are small, images are not read.
const maxEvent = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func maskedCRC(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// errDamaged is a record whose checksum is wrong, or that is no event.
var errDamaged = errors.New("a record is damaged: the rest is passed over")

// events reads an event file. One that ends within a record is being written,
// or its writer was killed.
func (sc *metricScan) events() error {
	var data []byte
	for n := 1; ; n++ {
		var head [12]byte
		if _, err := io.ReadFull(sc.r, head[:]); err != nil {
			return ended(err)
		}
		length := binary.LittleEndian.Uint64(head[:8])
		if binary.LittleEndian.Uint32(head[8:]) != maskedCRC(head[:8]) || length > maxEvent {
			return fmt.Errorf("record %d: %w", n, errDamaged)
		}
		if uint64(cap(data)) < length+4 {
			// Not more than is there: the length may be a lie.
			data = make([]byte, 0, min(length+4, 1<<20))
		}
		var err error
		if data, err = readUpTo(sc.r, data[:0], int(length)+4); err != nil {
			return ended(err)
		}
		event := data[:length]
		if binary.LittleEndian.Uint32(data[length:]) != maskedCRC(event) {
			return fmt.Errorf("record %d: %w", n, errDamaged)
		}
		if err := sc.event(event); err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
	}
}

func ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

// readUpTo appends n bytes of r, in steps.
func readUpTo(r io.Reader, b []byte, n int) ([]byte, error) {
	for n > 0 {
		step := min(n, 1<<20)
		at := len(b)
		b = append(b, make([]byte, step)...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return b, err
		}
		n -= step
	}
	return b, nil
}

func (sc *metricScan) event(b []byte) error {
	var step int64
	var summary []byte
	err := fields(b, func(f field) {
		switch {
		case f.number == 2 && f.kind == varint:
			step = int64(f.value)
		case f.number == 5 && f.kind == bytesField:
			summary = f.bytes
		}
	})
	if err != nil {
		return err
	}
	var values [][]byte
	if err := fields(summary, func(f field) {
		if f.number == 1 && f.kind == bytesField {
			values = append(values, f.bytes)
		}
	}); err != nil {
		return err
	}
	for _, v := range values {
		tag, scalar, ok, err := scalarOf(v)
		if err != nil {
			return err
		}
		if ok {
			if err := sc.point(tag, Point{float64(step), scalar}); err != nil {
				return err
			}
		}
	}
	return nil
}

// scalarOf reads a value of a summary; ok is false for one that is no number.
func scalarOf(b []byte) (tag string, scalar float64, ok bool, err error) {
	err = fields(b, func(f field) {
		switch {
		case f.number == 1 && f.kind == bytesField && len(f.bytes) <= maxPickleText:
			tag = string(f.bytes)
		case f.number == 2 && f.kind == fixed32:
			scalar, ok = float64(math.Float32frombits(uint32(f.value))), true
		case f.number == 8 && f.kind == bytesField:
			if v, isScalar := tensorScalar(f.bytes); isScalar {
				scalar, ok = v, true
			}
		}
	})
	return tag, scalar, ok && tag != "", err
}

// tensorScalar is the value of a tensor of one float or double.
func tensorScalar(b []byte) (v float64, ok bool) {
	var dtype uint64
	n := 0
	set := func(size int, b []byte) {
		if len(b) != size {
			return
		}
		n++
		if size == 4 {
			v = float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		} else {
			v = math.Float64frombits(binary.LittleEndian.Uint64(b))
		}
	}
	err := fields(b, func(f field) {
		switch {
		case f.number == 1 && f.kind == varint:
			dtype = f.value
		case f.number == 4 && f.kind == bytesField && len(f.bytes) > 0:
			set(map[uint64]int{1: 4, 2: 8}[dtype], f.bytes)
		case f.number == 5 && f.kind == bytesField: // packed
			set(4, f.bytes)
		case f.number == 5 && f.kind == fixed32:
			n, v = n+1, float64(math.Float32frombits(uint32(f.value)))
		case f.number == 6 && f.kind == bytesField:
			set(8, f.bytes)
		case f.number == 6 && f.kind == fixed64:
			n, v = n+1, math.Float64frombits(f.value)
		}
	})
	return v, err == nil && n == 1 && (dtype == 1 || dtype == 2)
}

// The kinds of fields of a protocol buffer.
const (
	varint     = 0
	fixed64    = 1
	bytesField = 2
	fixed32    = 5
)

type field struct {
	number uint64
	kind   int
	value  uint64 // of a number
	bytes  []byte
}

// fields calls fn for each field of a message.
func fields(b []byte, fn func(field)) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return errDamaged
		}
		b = b[n:]
		f := field{number: key >> 3, kind: int(key & 7)}
		switch f.kind {
		case varint:
			if f.value, n = binary.Uvarint(b); n <= 0 {
				return errDamaged
			}
			b = b[n:]
		case fixed64:
			if len(b) < 8 {
				return errDamaged
			}
			f.value, b = binary.LittleEndian.Uint64(b), b[8:]
		case fixed32:
			if len(b) < 4 {
				return errDamaged
			}
			f.value, b = uint64(binary.LittleEndian.Uint32(b)), b[4:]
		case bytesField:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return errDamaged
			}
			f.bytes, b = b[n:n+int(size)], b[n+int(size):]
		default:
			return errDamaged
		}
		fn(f)
	}
	return nil
}
