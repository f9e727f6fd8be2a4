package sharelog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	// A third faster at reading and nearly twice as fast at writing as compress/gzip.
	"github.com/klauspost/compress/gzip"
)

// An inflater reads single gzip members of a file, and knows where each ends.
type inflater struct {
	src   fileAt
	br    *bufio.Reader
	zr    gzip.Reader
	ready bool // br stands at offset(), at the beginning of a member or behind one
}

// fileAt reads r from off on, and tells errors of the file from errors in what it holds.
type fileAt struct {
	r   io.ReaderAt
	off int64
	err error // the last one other than io.EOF
}

func (f *fileAt) Read(p []byte) (int, error) {
	n, err := f.r.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 {
		err = nil
	}
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

func newInflater(r io.ReaderAt) *inflater {
	z := &inflater{src: fileAt{r: r}}
	z.br = bufio.NewReaderSize(&z.src, 128<<10)
	return z
}

// offset returns how far into the file the members read so far reach.
func (z *inflater) offset() int64 { return z.src.off - int64(z.br.Buffered()) }

// start reads the header of the member at off. It returns io.EOF when nothing is there.
func (z *inflater) start(off int64) error {
	if !z.ready || z.offset() != off {
		z.src.off, z.src.err = off, nil
		z.br.Reset(&z.src)
	}
	z.ready = false
	if err := z.zr.Reset(z.br); err != nil {
		return err
	}
	z.zr.Multistream(false)
	return nil
}

// Read reads from the member that start found. io.EOF says that the member is complete and its checksum right.
func (z *inflater) Read(p []byte) (int, error) {
	n, err := z.zr.Read(p)
	z.ready = err == io.EOF
	return n, err
}

// skip reads over the member at off and returns where it ends.
func (z *inflater) skip(off int64, buf []byte) (end int64, err error) {
	for err = z.start(off); err == nil; {
		_, err = z.Read(buf)
		if err == io.EOF {
			return z.offset(), nil
		}
	}
	return 0, err
}

// isDamage reports whether err, of start or Read, says that the member is damaged, and not that the file cannot be
// read.
func (z *inflater) isDamage() bool { return z.src.err == nil }

// memberStart is how the gzip members of BTCPool and of this package begin. Flags and modification time, all 0, are
// followed by 0, 2 or 4 for the compression level and 3 or 255 for the system.
var memberStart = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0}

const memberHeader = 10

func isMemberStart(b []byte) bool {
	return len(b) >= memberHeader && bytes.HasPrefix(b, memberStart) &&
		(b[8] == 0 || b[8] == 2 || b[8] == 4) && (b[9] == 3 || b[9] == 255)
}

// findMember returns where between from and size the next member begins that can be read to its end or, if partial is
// set, to the end of the file. It returns -1 when there is none.
func findMember(r io.ReaderAt, from, size int64, partial bool) (int64, error) {
	var z *inflater
	var scratch []byte
	buf := make([]byte, 256<<10)
	for at := from; at+memberHeader <= size; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if n < memberHeader {
			if err == nil || err == io.EOF {
				return -1, nil // the file has shrunk
			}
			return -1, err
		}
		b := buf[:n]
		for i := 0; ; i++ {
			k := bytes.Index(b[i:], memberStart)
			if k < 0 {
				break
			}
			if i += k; !isMemberStart(b[i:]) {
				continue
			}
			if z == nil {
				z, scratch = newInflater(r), make([]byte, 64<<10)
			}
			_, err := z.skip(at+int64(i), scratch)
			if err == nil || partial && errors.Is(err, io.ErrUnexpectedEOF) {
				return at + int64(i), nil
			}
			if !z.isDamage() {
				return -1, z.src.err
			}
		}
		at += int64(n) - memberHeader + 1
	}
	return -1, nil
}

// errNotGzip is returned for files that hold something else than gzip members.
var errNotGzip = errors.New("not a file of gzip members")

// soundEnd returns where in a file of the given size the last complete member ends. It looks from the end for a place
// from where on the file can be read, which in a file of any size is soon found.
func soundEnd(r io.ReaderAt, size int64) (int64, error) {
	if size == 0 {
		return 0, nil
	}
	var magic [2]byte
	if n, err := r.ReadAt(magic[:], 0); n < len(magic) && err != io.EOF {
		return 0, err
	} else if string(magic[:n]) != "\x1f\x8b"[:n] {
		return 0, errNotGzip
	}

	z, scratch := newInflater(r), make([]byte, 64<<10)
	from := int64(0)
	var buf []byte
	for window, tried := int64(1<<20), size; tried > 0 && from == 0; window *= 8 {
		low := max(size-window, 0)
		buf = append(buf[:0], make([]byte, min(tried+memberHeader-1, size)-low)...)
		if _, err := r.ReadAt(buf, low); err != nil {
			return 0, fmt.Errorf("read at %d: %w", low, err)
		}
		for end := len(buf); ; {
			i := bytes.LastIndex(buf[:end], memberStart)
			if i < 0 {
				break
			}
			end = i + len(memberStart) - 1
			if !isMemberStart(buf[i:]) {
				continue
			}
			_, err := z.skip(low+int64(i), scratch)
			if err == nil {
				from = low + int64(i)
				break
			}
			if !z.isDamage() {
				return 0, z.src.err
			}
		}
		tried = low
	}

	// Read on from there, over members of any form of header.
	for at := from; ; {
		if at == size {
			return size, nil
		}
		end, err := z.skip(at, scratch)
		if err == nil {
			at = end
			continue
		}
		if !z.isDamage() {
			return 0, z.src.err
		}
		next, err := findMember(r, at+1, size, false)
		if err != nil {
			return 0, err
		}
		if next < 0 {
			return at, nil
		}
		at = next
	}
}
