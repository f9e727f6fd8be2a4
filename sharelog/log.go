package sharelog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/poolkit/poolkit/share"
)

// A Log keeps shares and gives them back. Every Log
//   - KeepsOrder: the shares of a day come back in the order of Append, and days in theirs;
//   - SortsByDay: a share belongs to the UTC day of its own time, however late it is appended;
//   - IsDurable: what Append has stored is there after a restart;
//   - ResumesExactly: a Cursor opened at the Position of another one goes on where that one was, with no share twice
//     and none left out, whatever has been appended in between;
//   - FollowsAppends: a Cursor that has reached the end goes on when there is more;
//   - AllowsConcurrentCalls, of Append and Scan; a Cursor is for one goroutine at a time.
//
// Append takes a batch and makes each day's part of it durable as a whole or not at all. A [*PartialError] says that it
// failed for some days and which ones are stored: the others, and only they, may be appended again. After any other
// error nothing is stored, with one exception: an error about invalid shares alone, see [share.OnlyInvalid], comes
// after all others were stored. Append keeps nothing of the slice.
//
// Scan returns a Cursor at from, and up to the end of day to, or without end when to is 0. A range that has come to
// hold no day at all is an error that wraps [io/fs.ErrNotExist] when to is given.
type Log interface {
	Append(ctx context.Context, shares []share.Share) error
	Scan(from Position, to Day) (Cursor, error)
}

// A Cursor reads shares from a [Log], one goroutine at a time. It must be closed.
type Cursor interface {
	// Read sets dst[:n] to the next n shares; n is at least 1 unless there is an error or dst is empty. At the end of
	// what there is it returns io.EOF, and when it is called again and the log has grown, it goes on.
	//
	// A [*DamageError] reports that something cannot be read, and is returned once: the Cursor stands behind the
	// damage and goes on with the next call. After any other error it stands where it stood.
	Read(ctx context.Context, dst []share.Share) (n int, err error)

	// Position returns the place behind the last share read.
	Position() Position

	// Close frees what the Cursor holds.
	Close() error
}

var (
	// ErrCorrupt is the kind of a [DamageError] for bytes that were altered, and of an error of [DecodeRecord] for a
	// record that cannot be read.
	ErrCorrupt = errors.New("sharelog: corrupt")

	// ErrTruncated is the kind of a [DamageError] for a log that ends too early, within a member or record or before
	// the position to go on from, and of an error of [DecodeRecord] for the beginning of a record.
	ErrTruncated = errors.New("sharelog: truncated")
)

// A DamageError reports a part of a log that cannot be read, or is not there. What follows it can be read.
type DamageError struct {
	Kind     error    // ErrCorrupt or ErrTruncated
	File     string   // name of the file, where there are files
	Position Position // where the damage begins
	Bytes    int64    // of the log that are passed over, as far as that is known
	Cause    error    // what was found
}

// Error says what is damaged, where, and how.
func (e *DamageError) Error() string {
	where := e.Position.String()
	if e.File != "" {
		where += " of " + e.File
	}
	return fmt.Sprintf("%v at %s: %d bytes passed over: %v", e.Kind, where, e.Bytes, e.Cause)
}

// Unwrap returns the kind and the cause.
func (e *DamageError) Unwrap() []error { return []error{e.Kind, e.Cause} }

// A PartialError is returned by [Log.Append] when the shares of some days were stored and those of others were not.
type PartialError struct {
	Stored []Day // whose shares must not be appended again
	Err    error // why the others were not
}

// Error says what was stored and why the rest was not.
func (e *PartialError) Error() string {
	return fmt.Sprintf("sharelog: append: stored the shares of %v only: %v", e.Stored, e.Err)
}

// Unwrap returns the cause.
func (e *PartialError) Unwrap() error { return e.Err }

// AppendRecord appends s as it stands in the files, its length in 4 bytes little-endian and then the record of
// [share.Share.AppendBinary], and returns the extended slice. An invalid share is an error that wraps
// [share.ErrInvalid], and dst is returned as it was.
func AppendRecord(dst []byte, s *share.Share) ([]byte, error) {
	start := len(dst)
	b, err := s.AppendBinary(append(dst, 0, 0, 0, 0))
	if err != nil {
		return dst, err
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b, nil
}

// DecodeRecord sets s to the first record of b, as [AppendRecord] wrote it, and returns how many bytes that has. The
// error wraps [ErrTruncated] when b ends before the record does, and [ErrCorrupt] when the length makes no sense or
// the share is invalid; n then is where the next record begins, or 0 when that is not known.
func DecodeRecord(b []byte, s *share.Share) (n int, err error) {
	n, err = recordSize(b)
	if err != nil {
		return 0, err
	}
	if err := s.UnmarshalBinary(b[4:n]); err != nil {
		return n, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return n, nil
}

// errNoRecord and the like are made once, for they are met at the end of each member.
var errNoRecord = fmt.Errorf("%w: the record is incomplete", ErrTruncated)

// recordSize returns the size of the first record of b, length included.
func recordSize(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, errNoRecord
	}
	size := binary.LittleEndian.Uint32(b)
	switch {
	case size == 0x00010003:
		return 0, fmt.Errorf("%w: the records are of format V2, which this package does not read", ErrCorrupt)
	case size == 0 || size > share.MaxRecordSize:
		return 0, fmt.Errorf("%w: record of %d bytes", ErrCorrupt, size)
	case uint64(size) > uint64(len(b)-4):
		return 0, errNoRecord
	}
	return 4 + int(size), nil
}
