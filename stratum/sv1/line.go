package sv1

import (
	"bytes"
	"fmt"
	"io"
)

// NextLine splits the first complete line off buf: everything before the first "\n", without a "\r" right before it.
// n is how many bytes of buf it took, terminator included, and 0 when buf holds no complete line. The line is a part
// of buf and may be empty; empty lines mean nothing and are to be skipped.
func NextLine(buf []byte) (line []byte, n int) {
	i := bytes.IndexByte(buf, '\n')
	if i < 0 {
		return nil, 0
	}
	n = i + 1
	if i > 0 && buf[i-1] == '\r' {
		i--
	}
	return buf[:i:i], n
}

// DefaultMaxLine is the longest line a Reader takes unless told otherwise, in bytes. A mining.notify of a coinbase
// that all firmware copes with is below 4 KiB.
const DefaultMaxLine = 16 << 10

// A Reader reads lines from a connection into one buffer of its own, which grows to the longest line it met and never
// above its limit. It is meant for clients and tests: it holds its buffer even while nothing comes in.
type Reader struct {
	src        io.Reader
	max        int
	buf        []byte
	start, end int // what was read and not yet returned
	scanned    int // how much of that is known to hold no "\n"
	err        error
}

// NewReader returns a Reader of lines of at most max bytes, terminator not counted. A max of 0 or less means
// [DefaultMaxLine]; more than a gigabyte means a gigabyte.
func NewReader(r io.Reader, max int) *Reader {
	if max <= 0 {
		max = DefaultMaxLine
	}
	return &Reader{src: r, max: min(max, 1<<30)}
}

// ReadLine returns the next line that is not empty, without its terminator. The line is part of the buffer and
// good until the next call. After a line above the limit every call fails with [ErrLineTooLong]. The end of the input
// is io.EOF, or io.ErrUnexpectedEOF in the middle of a line. Any other error of the underlying reader, such as a
// deadline, loses nothing: a later call goes on in the middle of the line.
func (r *Reader) ReadLine() ([]byte, error) {
	for {
		pending := r.buf[r.start:r.end]
		if i := bytes.IndexByte(pending[r.scanned:], '\n'); i >= 0 {
			line, n := NextLine(pending)
			if len(line) > r.max {
				return nil, ErrLineTooLong // start does not move, so this repeats
			}
			r.start += n
			r.scanned = 0
			if len(line) != 0 {
				return line, nil
			}
			continue
		}
		r.scanned = len(pending)
		if len(pending) > r.max+1 { // one more than max may yet be a "\r"
			return nil, ErrLineTooLong
		}
		if r.err != nil {
			return nil, r.fail(len(pending))
		}
		r.fill()
	}
}

func (r *Reader) fail(pending int) error {
	switch err := r.err; {
	case err != io.EOF:
		r.err = nil
		return fmt.Errorf("sv1: read line: %w", err)
	case pending != 0:
		return io.ErrUnexpectedEOF
	default:
		return io.EOF
	}
}

// fill reads once, after making room for at least one byte.
func (r *Reader) fill() {
	switch {
	case r.start == r.end:
		r.start, r.end = 0, 0
	case r.end == len(r.buf) && r.start > 0:
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	if r.end == len(r.buf) {
		// A line of max bytes and "\r\n" fits; one byte less is known to be too long.
		size := min(max(1024, 2*len(r.buf)), r.max+2)
		buf := make([]byte, size)
		copy(buf, r.buf[:r.end])
		r.buf = buf
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.end:])
		if n < 0 || n > len(r.buf)-r.end {
			r.err = fmt.Errorf("the reader returned a count of %d", n)
			return
		}
		r.end += n
		r.err = err
		if n != 0 || err != nil {
			return
		}
	}
	r.err = io.ErrNoProgress
}
