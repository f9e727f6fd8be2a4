package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/poolkit/poolkit/internal/dirlock"
)

// FileOptions tune a [File].
type FileOptions struct {
	Logger *slog.Logger // nil discards; damaged lines are warned of
}

// A File is a [Recorder] that keeps everything in one file of JSON lines. Every change of a record is appended as one
// line that holds the whole record, and is on disk when Record returns; the last line of a block counts. The file
// survives a kill at any moment, and can be read with any text tool. All records are held in memory besides.
type File struct {
	path   string
	logger *slog.Logger

	mu    sync.Mutex
	f     *os.File // nil when closed
	lock  *os.File
	size  int64 // of the whole lines; the file may be longer after a failed write
	dirty bool  // the file may be longer than size
	table foundTable
	lines int
	bad   int
}

var _ Recorder = (*File)(nil)

// maxFoundLine bounds a line. Reasons come from nodes and are cut, so that no line of ours is near it.
const (
	maxFoundLine = 1 << 20
	maxReason    = 1000
)

// OpenFile opens the record of found blocks in the file path, which is made when it does not exist, and reads it. It
// fails with [ErrLocked] when another File has it open; the lock is a second file, path with ".lock" appended.
//
// A last line that was cut short, by the end of the process or a full disk, was never acknowledged; it is removed.
// Lines in the middle that cannot be read are warned of and counted (see [File.Damaged]), and left as they are. A file
// in which most lines are out of date is rewritten to the last line of each block; damaged lines are kept.
func OpenFile(path string, opts *FileOptions) (*File, error) {
	r := &File{path: path, logger: slog.New(slog.DiscardHandler)}
	if opts != nil && opts.Logger != nil {
		r.logger = opts.Logger
	}
	fail := func(err error) (*File, error) {
		if r.f != nil {
			r.f.Close()
		}
		if r.lock != nil {
			r.lock.Close()
		}
		return nil, fmt.Errorf("block: open record file %s: %w", path, err)
	}
	var err error
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fail(errors.New("not a regular file"))
	}
	if r.lock, err = dirlock.Lock(path + ".lock"); err != nil {
		return fail(err)
	}
	if r.f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return fail(err)
	}
	if err := r.load(); err != nil {
		return fail(err)
	}
	if err := dirlock.SyncDir(filepath.Dir(path)); err != nil {
		return fail(err)
	}
	if r.lines > 1000 && r.lines > 4*len(r.table.sorted) && r.bad == 0 {
		if err := r.compact(); err != nil {
			return fail(err)
		}
	}
	return r, nil
}

// load reads the file, repairs its end and leaves the offset there.
func (r *File) load() error {
	b, err := io.ReadAll(r.f)
	if err != nil {
		return err
	}
	rest := b
	for len(rest) > 0 {
		line, next, whole := bytes.Cut(rest, []byte{'\n'})
		f, err := decodeFound(line)
		switch {
		case err == nil:
			r.table.set(f)
			r.lines++
		case !whole:
			// The write of the last line was cut short.
		case len(bytes.TrimSpace(line)) > 0:
			r.bad++
			r.logger.Warn("block record: damaged line", "file", r.path, "offset", len(b)-len(rest), "reason", err)
		}
		if !whole {
			r.size = int64(len(b) - len(rest))
			return r.repair(f, err == nil, len(rest))
		}
		rest = next
	}
	r.size = int64(len(b))
	_, err = r.f.Seek(r.size, io.SeekStart)
	return err
}

// repair rewrites or removes a last line that has no end. One that is complete but for the newline is kept.
func (r *File) repair(f Found, complete bool, n int) error {
	r.logger.Warn("block record: last line was cut short", "file", r.path, "bytes", n, "kept", complete)
	r.dirty = true
	if complete {
		return r.append(f)
	}
	return r.truncate()
}

// decodeFound reads one line.
func decodeFound(line []byte) (Found, error) {
	var f Found
	if len(line) > maxFoundLine {
		return f, fmt.Errorf("%d bytes", len(line))
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return Found{}, err
	}
	if f.Hash == (Found{}).Hash {
		return Found{}, errors.New("no hash")
	}
	return f, nil
}

// Record implements [Recorder]. An error of the disk leaves the file as it was, and the next call goes on from there.
func (r *File) Record(ctx context.Context, f *Found) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return fmt.Errorf("block: record %v: %w", f.Hash, errClosed)
	}
	update := *f
	update.Reason, update.Warning = cut(update.Reason), cut(update.Warning)
	next, changed := r.table.merged(&update)
	if !changed {
		return nil
	}
	if err := r.append(next); err != nil {
		return fmt.Errorf("block: record %v: %w", f.Hash, err)
	}
	r.table.set(next)
	return nil
}

// cut keeps a text for people to a length and a form that a line of JSON gives back unchanged.
func cut(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxReason)], "?") }

// append writes one line and syncs it.
func (r *File) append(f Found) error {
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if r.dirty {
		if err := r.truncate(); err != nil {
			return err
		}
	}
	r.dirty = true
	if _, err := r.f.Write(line); err != nil {
		return errors.Join(err, r.truncate())
	}
	if err := r.f.Sync(); err != nil {
		return errors.Join(err, r.truncate())
	}
	r.dirty = false
	r.size += int64(len(line))
	r.lines++
	return nil
}

// truncate cuts off what a failed write may have left.
func (r *File) truncate() error {
	if err := r.f.Truncate(r.size); err != nil {
		return err
	}
	if _, err := r.f.Seek(r.size, io.SeekStart); err != nil {
		return err
	}
	r.dirty = false
	return nil
}

// compact writes one line for each block to a new file and puts that in the place of the old one.
func (r *File) compact() error {
	tmp := r.path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	fail := func(err error) error {
		f.Close()
		os.Remove(tmp)
		return err
	}
	var buf bytes.Buffer
	for i := len(r.table.sorted) - 1; i >= 0; i-- { // the oldest first, as a file that grew
		line, err := json.Marshal(r.table.sorted[i])
		if err != nil {
			return fail(err)
		}
		buf.Write(append(line, '\n'))
	}
	if _, err := f.Write(buf.Bytes()); err != nil {
		return fail(err)
	}
	if err := f.Sync(); err != nil {
		return fail(err)
	}
	// Windows renames no open file.
	f.Close()
	r.f.Close()
	if err := os.Rename(tmp, r.path); err != nil {
		return fail(err)
	}
	if r.f, err = os.OpenFile(r.path, os.O_RDWR, 0o644); err != nil {
		return err
	}
	r.size, r.lines = int64(buf.Len()), len(r.table.sorted)
	if _, err = r.f.Seek(r.size, io.SeekStart); err != nil {
		return err
	}
	return dirlock.SyncDir(filepath.Dir(r.path))
}

// Found implements [Recorder].
func (r *File) Found(ctx context.Context, q Query) ([]Found, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return nil, fmt.Errorf("block: list found blocks: %w", errClosed)
	}
	return r.table.list(q), nil
}

// Damaged returns how many lines could not be read when the file was opened.
func (r *File) Damaged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bad
}

// Close closes the file. Later calls of Record and Found fail.
func (r *File) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return nil
	}
	err := errors.Join(r.f.Close(), r.lock.Close())
	r.f = nil
	if err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("block: close record file %s: %w", r.path, err)
	}
	return nil
}
