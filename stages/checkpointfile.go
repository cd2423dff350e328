package stages

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// checkpointFile reports whether a file of this name has one of the forms that
// are known.
func checkpointFile(name string) bool {
	switch filepath.Ext(name) {
	case ".ckpt", ".pt", ".pth", ".safetensors":
		return true
	}
	return strings.HasSuffix(name, ".pth.tar") // timm's, and no archive of tar
}

// shardFile is how one file of several is called, which is none by itself.
var shardFile = regexp.MustCompile(`-[0-9]{5}-of-[0-9]{5}\.`)

// fileComplete reports whether a file with one of these names is whole. Its
// cost in memory is bounded, whatever the file holds.
func fileComplete(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false
	}
	if filepath.Ext(path) == ".safetensors" {
		return safetensorsComplete(file, info.Size())
	}
	return zipComplete(file, info.Size()) || legacyComplete(file, info.Size())
}

const (
	zipEnd       = "PK\x05\x06" // end of the directory
	zipEnd64     = "PK\x06\x06"
	zipEnd64At   = "PK\x06\x07" // where that is
	zipMember    = "PK\x01\x02" // of the directory
	zipLocal     = "PK\x03\x04" // before a member's bytes
	zipEndSize   = 22
	zipEnd64Size = 56
	zipAtSize    = 20
)

// zipDirectory is where the directory of a zip archive lies.
type zipDirectory struct{ members, size, offset, end uint64 }

// findZipDirectory reads the end of an archive, which must be that of the file.
func findZipDirectory(r io.ReaderAt, size int64) (d zipDirectory, ok bool) {
	tail := make([]byte, min(size, zipEndSize+1<<16))
	start := size - int64(len(tail))
	if _, err := r.ReadAt(tail, start); err != nil && err != io.EOF {
		return d, false
	}
	at := len(tail) - zipEndSize
	for ; at >= 0; at-- {
		comment := len(tail) - at - zipEndSize
		if string(tail[at:at+4]) == zipEnd && int(binary.LittleEndian.Uint16(tail[at+20:])) == comment {
			break
		}
	}
	if at < 0 {
		return d, false
	}
	end := tail[at:]
	le := binary.LittleEndian
	d = zipDirectory{uint64(le.Uint16(end[10:])), uint64(le.Uint32(end[12:])), uint64(le.Uint32(end[16:])), uint64(start) + uint64(at)}
	// torch.save writes the form for large archives always, beside this one.
	var where [zipAtSize]byte
	off := int64(d.end) - zipAtSize
	large := d.members == 0xffff || d.size == 0xffffffff || d.offset == 0xffffffff
	if _, err := r.ReadAt(where[:], off); off >= 0 && err == nil && string(where[:4]) == zipEnd64At {
		var end64 [zipEnd64Size]byte
		d.end = le.Uint64(where[8:])
		if d.end > uint64(off) {
			return d, false
		}
		if _, err := r.ReadAt(end64[:], int64(d.end)); err != nil || string(end64[:4]) != zipEnd64 {
			return d, false
		}
		d.members, d.size, d.offset = le.Uint64(end64[32:]), le.Uint64(end64[40:]), le.Uint64(end64[48:])
	} else if large {
		return d, false
	}
	return d, d.members > 0 && d.offset <= d.end && d.size == d.end-d.offset
}

// zipComplete checks that a file ends with the directory of a zip archive (what
// torch.save writes) and that every member lies whole before it. A file that
// was cut off has no such directory.
func zipComplete(r io.ReaderAt, size int64) bool {
	d, ok := findZipDirectory(r, size)
	if !ok {
		return false
	}
	le := binary.LittleEndian
	b := bufio.NewReaderSize(io.NewSectionReader(r, int64(d.offset), int64(d.size)), 64<<10)
	var head [46]byte
	for ; d.members > 0; d.members-- {
		if _, err := io.ReadFull(b, head[:]); err != nil || string(head[:4]) != zipMember {
			return false
		}
		if _, err := b.Discard(int(le.Uint16(head[28:]))); err != nil {
			return false
		}
		extra := make([]byte, le.Uint16(head[30:]))
		if _, err := io.ReadFull(b, extra); err != nil {
			return false
		}
		if _, err := b.Discard(int(le.Uint16(head[32:]))); err != nil {
			return false
		}
		whole, packed, at := uint64(le.Uint32(head[24:])), uint64(le.Uint32(head[20:])), uint64(le.Uint32(head[42:]))
		zip64Sizes(extra, &whole, &packed, &at)
		var local [30]byte
		if at > d.offset || d.offset-at < uint64(len(local)) {
			return false
		}
		if _, err := r.ReadAt(local[:], int64(at)); err != nil || string(local[:4]) != zipLocal {
			return false
		}
		data := at + uint64(len(local)) + uint64(le.Uint16(local[26:])) + uint64(le.Uint16(local[28:]))
		if data > d.offset || d.offset-data < packed {
			return false
		}
	}
	_, err := b.ReadByte()
	return err == io.EOF
}

// zip64Sizes replaces what does not fit into 32 bits by what the extra field
// says, which has those alone, in this order.
func zip64Sizes(extra []byte, values ...*uint64) {
	for len(extra) >= 4 {
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return
		}
		field := extra[:n]
		extra = extra[n:]
		if id != 1 {
			continue
		}
		for _, v := range values {
			if *v == 0xffffffff && len(field) >= 8 {
				*v, field = binary.LittleEndian.Uint64(field), field[8:]
			}
		}
		return
	}
}

// maxSafetensorsHeader is the format's own limit, in bytes.
const maxSafetensorsHeader = 100_000_000

func safetensorsComplete(r io.ReaderAt, size int64) bool {
	var length [8]byte
	if _, err := r.ReadAt(length[:], 0); err != nil {
		return false
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxSafetensorsHeader || int64(n)+8 > size {
		return false
	}
	header := make([]byte, n)
	if _, err := r.ReadAt(header, 8); err != nil {
		return false
	}
	var tensors map[string]json.RawMessage
	if json.Unmarshal(header, &tensors) != nil {
		return false
	}
	end := int64(0)
	for name, raw := range tensors {
		if name == "__metadata__" {
			continue
		}
		var tensor struct {
			Offsets []int64 `json:"data_offsets"`
		}
		if json.Unmarshal(raw, &tensor) != nil || len(tensor.Offsets) != 2 {
			return false
		}
		end = max(end, tensor.Offsets[1])
	}
	return 8+int64(n)+end == size
}

// legacyMagic begins what torch.save writes with
// _use_new_zipfile_serialization=False, as older versions did: a pickled number.
const legacyMagic = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

// legacyComplete reads such a file: five pickles (magic, version, machine, the
// object, the names of its storages in the order of their bytes), then for each
// storage how many elements it has, and these. How large an element is the
// object's pickle tells. The file must end with the last of them.
func legacyComplete(r io.ReaderAt, size int64) bool {
	magic := make([]byte, 2+len(legacyMagic))
	if _, err := r.ReadAt(magic, 0); err != nil || magic[0] != 0x80 || !bytes.HasSuffix(magic, []byte(legacyMagic)) {
		return false
	}
	section := io.NewSectionReader(r, 0, size)
	b := bufio.NewReaderSize(section, 64<<10)
	element := map[string]int64{} // bytes, by storage
	p := newPickle(b)
	p.persistent = func(id any) {
		// ("storage", class, name, device, elements, view)
		if t, ok := id.(*pickleList); ok && len(t.items) >= 5 && t.items[0] == "storage" {
			class, _ := t.items[1].(pickleClass)
			if name, ok := t.items[2].(string); ok {
				element[name] = storageElement(string(class))
			}
		}
	}
	var last any
	for range 5 {
		var err error
		if last, err = p.load(); err != nil {
			return false
		}
	}
	names, ok := last.(*pickleList)
	if !ok || len(names.items) < len(element) {
		return false
	}
	at, err := section.Seek(0, io.SeekCurrent)
	if err != nil {
		return false
	}
	at -= int64(b.Buffered())
	for _, v := range names.items {
		name, _ := v.(string)
		bytes := element[name]
		var count [8]byte
		if _, err := r.ReadAt(count[:], at); err != nil || bytes == 0 {
			return false
		}
		n := binary.LittleEndian.Uint64(count[:])
		at += 8
		if n > uint64(size-at)/uint64(bytes) {
			return false
		}
		at += int64(n) * bytes
	}
	return at == size
}

// storageElement is how many bytes an element of a storage class takes; 0 for
// one that is not known.
func storageElement(class string) int64 {
	_, name, _ := strings.Cut(strings.TrimPrefix(class, "torch.cuda."), "Storage")
	if name != "" { // more behind it
		return 0
	}
	class = class[strings.LastIndexByte(class, '.')+1:]
	switch strings.TrimSuffix(class, "Storage") {
	case "Byte", "Char", "Bool", "QInt8", "QUInt8", "Untyped":
		return 1
	case "Short", "Half", "BFloat16":
		return 2
	case "Int", "Float", "QInt32":
		return 4
	case "Long", "Double", "ComplexFloat":
		return 8
	case "ComplexDouble":
		return 16
	}
	return 0
}
