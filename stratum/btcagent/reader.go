package btcagent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// DefaultMaxLine is the longest line a Reader takes unless told otherwise, in bytes, as sv1.DefaultMaxLine is.
const DefaultMaxLine = 16 << 10

// ErrLineTooLong is a line above the limit of a Reader.
var ErrLineTooLong = errors.New("btcagent: line too long")

// A Reader reads lines and frames, mixed in any way, from a connection into one buffer of its own, which grows to the
// largest message it met: at most [MaxFrame] or its limit of a line, whichever is larger. It is meant for agents and
// tests: it holds its buffer even while nothing comes in.
type Reader struct {
	src        io.Reader
	max        int
	buf        []byte
	start, end int // what was read and not yet returned
	scanned    int // how much of that is known to hold no "\n", when it is a line
	err        error
}

// NewReader returns a Reader of lines of at most maxLine bytes, terminator not counted. A maxLine of 0 or less means
// [DefaultMaxLine]; more than a gigabyte means a gigabyte.
func NewReader(r io.Reader, maxLine int) *Reader {
	if maxLine <= 0 {
		maxLine = DefaultMaxLine
	}
	return &Reader{src: r, max: min(maxLine, 1<<30)}
}

// Read returns the next message: a line that is not empty, without its "\n" or "\r\n", or, when line is nil, a frame.
// Both are part of the buffer and good until the next call. After [ErrLength] and [ErrLineTooLong] every call fails in
// the same way. The end of the input is io.EOF, or io.ErrUnexpectedEOF in the middle of a message. Any other error of
// the underlying reader, such as a deadline, loses nothing: a later call goes on in the middle of the message.
func (r *Reader) Read() (line []byte, f Frame, err error) {
	for {
		line, f, n, err := r.split(r.buf[r.start:r.end])
		switch {
		case err != nil:
			return nil, Frame{}, err // start does not move, so this repeats
		case n > 0:
			r.start += n
			r.scanned = 0
			if line == nil || len(line) > 0 {
				return line, f, nil
			}
		case r.err != nil:
			return nil, Frame{}, r.fail()
		default:
			r.fill()
		}
	}
}

// split takes one message off b, or none and n is 0. A line is never nil.
func (r *Reader) split(b []byte) (line []byte, f Frame, n int, err error) {
	if len(b) > 0 && b[0] == Magic {
		f, n, err = Next(b)
		return nil, f, n, err
	}
	i := bytes.IndexByte(b[r.scanned:], '\n')
	if i < 0 {
		r.scanned = len(b)
		if len(b) > r.max+1 { // one more than max may yet be a "\r"
			err = ErrLineTooLong
		}
		return nil, Frame{}, 0, err
	}
	i += r.scanned
	line = bytes.TrimSuffix(b[:i:i], []byte("\r"))
	if len(line) > r.max {
		r.scanned = i // so that this repeats
		return nil, Frame{}, 0, ErrLineTooLong
	}
	return line, Frame{}, i + 1, nil
}

func (r *Reader) fail() error {
	switch err := r.err; {
	case err != io.EOF:
		r.err = nil
		return fmt.Errorf("btcagent: read: %w", err)
	case r.start != r.end:
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
		// The largest frame fits, and so does a line of max bytes with "\r\n"; of a longer one enough to know it.
		size := min(max(1024, 2*len(r.buf)), max(MaxFrame, r.max+2))
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
		if n > 0 || err != nil {
			r.err = err
			return
		}
	}
	r.err = io.ErrNoProgress
}
