package remote

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// A program that uses an object store and the helper that speaks to it
// exchange frames:
//
//	frame = length*4 id*4 kind body          length is that of id, kind and body; little-endian
//
// Each request has an id that no other one under way has, and one answer under
// the same id. A listing has an answer for each page, all but the last of the
// kind saidMore; the next page is sent when it was asked for. A read in pieces
// has one for each piece, of which so many are sent as the memory has room for,
// and one more each time that is asked for. Both programs are of one version, so
// the form may change with each.
const (
	frameHead = 9
	maxFrame  = maxPack + 4096
)

// The kinds of requests, and their bodies. key is a length and so many bytes,
// numbers are unsigned LEB128.
const (
	askOpen   = 1 + iota // URL; the first request, whose answer is empty
	askRead              // key offset length; the bytes
	askStat              // key; one object
	askPut               // key data
	askNew               // key data
	askList              // prefix after; count objects, each key size time
	askDelete            // key
	askMore              // of a listing or of pieces, by its id
	askCancel            // forget the request with this id; there is no answer
	askShare             // length of the memory that both have
	askInto              // place key offset length; the bytes go to that place in the memory, how many they are is the answer
	askPieces            // place key offset length; piece after piece goes into the ring at that place, the answer for each is its length, the last one is empty
)

// The kinds of answers; from saidEOF on they are those of wireErrors.
const (
	saidOK = 64 + iota
	saidMore
	saidFailed // the body is the error's text, as it is for all that follow but saidEOF
	saidEOF    // the body is what it is without an error
)

// ErrAway means that a bucket could not be reached, or could not answer: the
// same request may succeed later.
var ErrAway = errors.New("not reachable now")

// wireErrors are the errors that keep their meaning on the way.
var wireErrors = []error{io.EOF, cas.ErrNotFound, cas.ErrExists, fs.ErrPermission, cas.ErrNoSpace, cas.ErrInvalid, cas.ErrCorrupt, ErrAway}

// wireError is an error of the other side.
type wireError struct {
	text string
	is   error
}

func (e *wireError) Error() string { return e.text }
func (e *wireError) Unwrap() error { return e.is }

type frame struct {
	id   uint32
	kind byte
	body []byte
}

// answerFor turns what a bucket said into the kind of an answer and its body.
func answerFor(body []byte, err error) (kind byte, _ []byte) {
	if err == nil {
		return saidOK, body
	}
	if errors.Is(err, io.EOF) {
		return saidEOF, body
	}
	text := []byte(strings.ToValidUTF8(err.Error(), "?"))
	for i, is := range wireErrors {
		if errors.Is(err, is) {
			return saidEOF + byte(i), text
		}
	}
	return saidFailed, text
}

// err is the error that an answer means.
func (f *frame) err() error {
	switch i := int(f.kind) - saidEOF; {
	case f.kind == saidOK || f.kind == saidMore:
		return nil
	case i == 0:
		return io.EOF
	case i > 0 && i < len(wireErrors):
		return &wireError{string(f.body), wireErrors[i]}
	}
	return errors.New(string(f.body))
}

// readFrame reads one frame; [io.EOF] where the other side has ended.
func readFrame(r *bufio.Reader) (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n < frameHead-4 || n > maxFrame {
		return frame{}, fmt.Errorf("a frame of %d bytes: %w", n, cas.ErrCorrupt)
	}
	f := frame{id: binary.LittleEndian.Uint32(head[4:]), kind: head[8]}
	f.body = getBody(int(n) - (frameHead - 4))
	if _, err := io.ReadFull(r, f.body); err != nil {
		return frame{}, io.ErrUnexpectedEOF
	}
	return f, nil
}

// writeFrame writes a frame whose body is given in parts.
func writeFrame(w io.Writer, id uint32, kind byte, body ...[]byte) error {
	n := frameHead - 4
	for _, p := range body {
		n += len(p)
	}
	head := binary.LittleEndian.AppendUint32(make([]byte, 0, frameHead), uint32(n))
	head = append(binary.LittleEndian.AppendUint32(head, id), kind)
	// Small bodies go with the head in one piece.
	for len(body) > 0 && len(body[0]) < 64<<10 {
		head = append(head, body[0]...)
		body = body[1:]
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	for _, p := range body {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func (d *decoder) text() string { return string(d.take(d.count(1))) }

func appendObject(b []byte, o Object) []byte {
	b = binary.AppendUvarint(appendText(b, o.Key), uint64(o.Size))
	return binary.LittleEndian.AppendUint64(b, uint64(o.ModTime.UnixNano()))
}

func (d *decoder) object() Object {
	o := Object{Key: d.text(), Size: d.num(1 << 62)}
	if p := d.take(8); p != nil {
		o.ModTime = time.Unix(0, int64(binary.LittleEndian.Uint64(p)))
	}
	return o
}

// end reports what was wrong, or left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		d.fail("something follows")
	}
	if d.err != nil {
		return fmt.Errorf("a message of the helper: %w: %w", d.err, cas.ErrCorrupt)
	}
	return nil
}

func appendNums(b []byte, vs ...int64) []byte {
	for _, v := range vs {
		b = binary.AppendUvarint(b, uint64(v))
	}
	return b
}
