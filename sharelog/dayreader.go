package sharelog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// wholeMember is how much of a member is held before its records are given out, in bytes of records. Those of a larger
// member, which writers do not make but an operator's gzip does, are given out before the member's checksum is seen.
const wholeMember = 32 << 20

// A dayReader reads the file of one day, and goes on when the file has grown.
//
// A place in the file is a unit and an index in it. A unit is a member, or several of which all but the last end within
// a record.
type dayReader struct {
	day   Day
	chain job.Chain
	path  string
	f     *os.File
	z     *inflater
	whole int // wholeMember

	unit  int64 // where the unit begins
	index int   // records of the unit that were given out, or passed over
	skip  int   // records that are still to be passed over, to get back to index

	// raw[r:] are the bytes not yet given out. The first carry bytes of raw come from members before the one at after;
	// the record that they begin is still to be seen.
	raw   []byte
	r     int
	carry int
	after int64

	member   int64 // where the member begins that raw ends with
	next     int64 // where the one behind it does
	inMember bool  // raw ends within a member

	stuck    fileState // of a file that ends in something that cannot be read
	reported fileState // for which tail was told
}

// fileState tells a file from its later self.
type fileState struct {
	size     int64
	modified time.Time
	cause    error // what cannot be read
}

func (s *fileState) is(info os.FileInfo) bool {
	return s.cause != nil && s.size == info.Size() && s.modified.Equal(info.ModTime())
}

// openDay opens the file of mark.Day at mark. When the file ends before mark the reader stands where the file's last
// member ends, and the damage is returned beside it.
func openDay(path string, mark Mark, chain job.Chain) (*dayReader, *DamageError, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	r := &dayReader{day: mark.Day, chain: chain, path: path, f: f, z: newInflater(f), whole: wholeMember,
		unit: mark.Offset, index: mark.Index, skip: mark.Index, next: mark.Offset}
	info, err := f.Stat()
	if err == nil && info.Size() < mark.Offset {
		var end int64
		if end, err = soundEnd(f, info.Size()); err == errNotGzip {
			end, err = info.Size(), nil // there is nothing to read in it either way
		}
		if err == nil {
			d := r.damage(ErrTruncated, mark.Offset-end, errors.New("the file ends before the position to go on from"))
			r.unit, r.index, r.skip, r.next = end, 0, 0, end
			return r, d, nil
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return r, nil, nil
}

// mark returns the place behind the last record given out, which behind the last one of a unit is the next unit.
func (r *dayReader) mark() Mark {
	if r.usedUp() && r.skip == 0 {
		return Mark{r.day, r.next, 0}
	}
	return Mark{r.day, r.unit, r.index}
}

// usedUp reports whether there was a unit and all of it has been read.
func (r *dayReader) usedUp() bool { return r.r == len(r.raw) && !r.inMember && r.next > r.unit }

// damage describes something at the place where the reader stands. The cursor completes the position.
func (r *dayReader) damage(kind error, bytes int64, cause error) *DamageError {
	return &DamageError{Kind: kind, File: filepath.Base(r.path), Bytes: bytes, Cause: cause,
		Position: Position{Day: r.day, Offset: r.unit, Index: r.index}}
}

// read fills dst as Cursor.Read does.
func (r *dayReader) read(dst []share.Share) (n int, err error) {
	for n < len(dst) {
		if r.usedUp() {
			if r.skip > 0 {
				if n > 0 {
					return n, nil
				}
				d := r.damage(ErrCorrupt, 0, fmt.Errorf("there are %d records fewer than the position to go on from says",
					r.skip))
				r.begin(r.next)
				return 0, d
			}
			r.begin(r.next)
		}
		b := r.raw[r.r:]
		size, err := recordSize(b)
		switch {
		case err == errNoRecord:
			if n > 0 {
				return n, nil
			}
			if err := r.fill(); err != nil {
				return 0, err
			}
			continue
		case err != nil && n > 0:
			return n, nil
		case err != nil && r.r < r.carry:
			return 0, r.dropCarry(err)
		case err != nil:
			return 0, r.dropMember(err)
		}
		if r.skip > 0 {
			r.skip--
			r.advance(size)
			continue
		}
		s := &dst[n]
		if err := s.UnmarshalBinary(b[4:size]); err != nil {
			if n > 0 {
				return n, nil
			}
			if r.r < r.carry {
				return 0, r.dropCarry(err)
			}
			d := r.damage(ErrCorrupt, int64(size), err)
			r.index++
			r.advance(size)
			return 0, d
		}
		s.Chain = r.chain
		n++
		r.index++
		r.advance(size)
	}
	return n, nil
}

// advance passes over size bytes of raw.
func (r *dayReader) advance(size int) {
	if r.r += size; r.r >= r.carry {
		r.carry = 0
	}
}

// begin makes the member at off the current unit.
func (r *dayReader) begin(off int64) {
	r.unit, r.index, r.skip, r.next = off, 0, 0, off
	r.raw, r.r, r.carry, r.inMember = r.raw[:0], 0, 0, false
	if cap(r.raw) > 2*r.whole {
		r.raw = nil
	}
}

// rewind goes back to the beginning of the unit, to read again up to index when asked.
func (r *dayReader) rewind() {
	index := r.index
	r.begin(r.unit)
	r.index, r.skip = index, index
}

// dropCarry gives up the beginning of a record at the end of a member, because what follows does not complete it, and
// begins anew with the member that follows.
func (r *dayReader) dropCarry(cause error) error {
	d := r.damage(ErrCorrupt, int64(r.carry-r.r), cause)
	r.unit, r.index, r.skip = r.after, 0, 0
	r.r, r.carry = r.carry, 0
	return d
}

// dropMember gives up the rest of a member whose records cannot be told apart.
func (r *dayReader) dropMember(cause error) error {
	d := r.damage(ErrCorrupt, int64(len(r.raw)-r.r), cause)
	for r.inMember {
		r.raw, r.r = r.raw[:0], 0
		switch err := r.fill(); {
		case errors.As(err, new(*DamageError)):
			return d // the member's end cannot be read either; the reader stands behind it
		case err == io.EOF:
			return d // nor is there one
		case err != nil:
			return err
		}
		d.Bytes += int64(len(r.raw))
	}
	r.begin(r.next)
	return d
}

// fill appends records to raw: a member, or another piece of a large one. It returns io.EOF when there is no more, and
// a DamageError when it has passed over something.
func (r *dayReader) fill() error {
	first := !r.inMember
	if first {
		info, err := r.f.Stat()
		if err != nil {
			return err
		}
		if r.next >= info.Size() || r.stuck.is(info) {
			return io.EOF
		}
	}
	r.raw = r.raw[:copy(r.raw, r.raw[r.r:])]
	if r.carry > 0 {
		r.carry -= r.r
	}
	r.r = 0
	base := len(r.raw)
	var err error
	if first {
		if base > 0 && r.carry == 0 {
			r.carry, r.after = base, r.next
		}
		r.member = r.next
		err = r.z.start(r.member)
	}
	for err == nil {
		if len(r.raw)-base >= r.whole {
			r.inMember = true
			return nil
		}
		r.raw = slices.Grow(r.raw, 32<<10)
		var n int
		n, err = r.z.Read(r.raw[len(r.raw):cap(r.raw)])
		r.raw = r.raw[:len(r.raw)+n]
		if err == io.EOF {
			r.inMember = false
			r.next = r.z.offset()
			r.stuck = fileState{}
			return nil
		}
	}
	return r.failed(err, base)
}

// failed finds out how to go on after the member at r.member could not be read. raw[:base] are bytes before it, or,
// when the member is a large one, of it.
func (r *dayReader) failed(cause error, base int) error {
	large := r.inMember
	r.inMember = false
	r.raw = r.raw[:base]
	if !r.z.isDamage() {
		err := r.z.src.err
		r.rewind()
		return fmt.Errorf("sharelog: read %s: %w", r.path, err)
	}
	info, err := r.f.Stat()
	if err != nil {
		r.rewind()
		return err
	}
	if cause == io.EOF { // the file has shrunk just now
		r.rewind()
		return io.EOF
	}
	// A member that the end of the file cuts off may be one that is being written. One that was cut off, and written
	// behind, is found out by the sound members behind it.
	cut := errors.Is(cause, io.ErrUnexpectedEOF)
	next, err := findMember(r.f, r.member+1, info.Size(), !cut)
	if err != nil {
		r.rewind()
		return fmt.Errorf("sharelog: read %s: %w", r.path, err)
	}
	if next < 0 {
		if large {
			r.rewind()
		} else if r.carry == base { // leave what is there of the record for when the file has grown
			r.carry = 0
		}
		r.stuck = fileState{info.Size(), info.ModTime(), cause}
		return io.EOF
	}
	d := r.damage(ErrCorrupt, next-r.member, cause)
	r.begin(next)
	return d
}

// tail describes what is left at the end of the file and cannot be read, once; nil when there is nothing.
func (r *dayReader) tail() *DamageError {
	info, err := r.f.Stat()
	if err != nil {
		return nil
	}
	var d *DamageError
	cause := errors.New("the last record is incomplete")
	switch left := info.Size() - r.next; {
	case left > 0 && r.stuck.cause != nil && errors.Is(r.stuck.cause, io.ErrUnexpectedEOF):
		d = r.damage(ErrTruncated, left, errors.New("the last member is incomplete"))
	case left > 0 && r.stuck.cause != nil:
		d = r.damage(ErrCorrupt, left, r.stuck.cause)
	case len(r.raw) > r.r:
		d = r.damage(ErrTruncated, int64(len(r.raw)-r.r), cause)
	default:
		return nil
	}
	if r.reported.is(info) {
		return nil
	}
	r.reported = fileState{info.Size(), info.ModTime(), cause}
	return d
}

func (r *dayReader) close() error { return r.f.Close() }
