package sharelog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/poolkit/poolkit/internal/dirlock"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

var (
	// ErrLocked is returned by [OpenDir] when the folder is open for writing already, here or in another process.
	ErrLocked = dirlock.ErrLocked

	// ErrReadOnly is returned by Append of a [Dir] that was opened for reading.
	ErrReadOnly = errors.New("sharelog: the folder was opened for reading only")

	// ErrClosed is returned by Append of a [Dir] that was closed.
	ErrClosed = errors.New("sharelog: the folder was closed")
)

// NoCompression is the Level of [DirOptions] that only frames what it writes.
const NoCompression = -3

// memberRecords bounds the records of one gzip member, so that readers need not hold more than a few megabytes.
const memberRecords = 1 << 15

// keptBuffer is how large a buffer may be to be kept for the next batch, in bytes.
const keptBuffer = 8 << 20

// DirOptions tune a [Dir]. The zero value is for a pool with one chain.
type DirOptions struct {
	// ChainTag stands behind "sharelog" in the names of the files: "BTC" for sharelogBTC-2026-11-21.bin. It consists of
	// letters, digits and "_" and may be empty. Logs with different tags can share a folder.
	ChainTag string

	// Chain is what the shares that are read say their chain is; records do not carry it.
	Chain job.Chain

	// Level is how hard to compress, from 1 (fast) to 9 (small), or [NoCompression]. 0 and -1 mean 1: higher levels
	// take twice the time and more to save six percent.
	Level int

	// MaxHandles is how many files are kept open for writing; 0 means 3. Beyond that the oldest day is closed.
	MaxHandles int

	// NoSync leaves it to the operating system when what was written reaches the disk. Shares then survive the end of
	// the process, but not that of the machine.
	NoSync bool

	// ReadOnly opens the folder for reading only, beside any writer: it is not created, not locked and not changed.
	ReadOnly bool

	// Logger hears of repairs; nil discards.
	Logger *slog.Logger
}

// A Dir is a [Log] in a folder of the file system, with one file for each day in the format of BTCPool's sharelogger.
// One Dir at a time can write to the folder, any number can read.
type Dir struct {
	path string
	opts DirOptions
	lock *os.File
	open func(name string) (dayFile, error) // what tests replace

	mu     sync.Mutex
	closed bool
	files  map[Day]*dayWriter
	sizes  map[Day]int64 // of files that could not be cut back to them after a failed write
	zw     *gzip.Writer
	raw    []byte      // records
	out    memberBuf   // the same, compressed
	order  []orderedBy // scratch for batches of several days
	stats  DirStats
}

// DirStats are counts since the folder was opened.
type DirStats struct {
	Shares   uint64 // written
	Members  uint64 // gzip members written
	Bytes    uint64 // written to the files, compressed
	Failures uint64 // writes that failed and were undone
	Open     int    // files open for writing now
	Cut      int64  // bytes of incomplete members that were cut off before writing on
}

// A dayFile is what a Dir needs of an [os.File] opened to append.
type dayFile interface {
	io.Writer
	io.ReaderAt
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

type dayWriter struct {
	f    dayFile
	size int64 // up to here it is sound
}

type orderedBy struct {
	day   Day
	index int
}

// memberBuf is a bytes.Buffer of which the Dir can take the bytes away.
type memberBuf []byte

func (b *memberBuf) Write(p []byte) (int, error) { *b = append(*b, p...); return len(p), nil }

// OpenDir opens the log in folder path, which is created if need be, and locks it against other writers. The error
// wraps [ErrLocked] when it is locked already. Nil options are all defaults.
func OpenDir(path string, opts *DirOptions) (*Dir, error) {
	d := &Dir{path: path, files: make(map[Day]*dayWriter), sizes: make(map[Day]int64)}
	if opts != nil {
		d.opts = *opts
	}
	o := &d.opts
	var errs []error
	if strings.ContainsFunc(o.ChainTag, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		errs = append(errs, fmt.Errorf("sharelog: open folder: chain tag %q is not of letters, digits and _", o.ChainTag))
	}
	if o.Level == 0 || o.Level == -1 {
		o.Level = gzip.BestSpeed
	}
	level := o.Level
	if level == NoCompression {
		level = gzip.NoCompression
	} else if level < 1 || level > 9 {
		errs = append(errs, fmt.Errorf("sharelog: open folder: compression level %d is not within 1 and 9", level))
	}
	if o.MaxHandles == 0 {
		o.MaxHandles = 3
	}
	if o.MaxHandles < 0 {
		errs = append(errs, fmt.Errorf("sharelog: open folder: MaxHandles %d is negative", o.MaxHandles))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	d.open = func(name string) (dayFile, error) {
		return os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	}
	if o.ReadOnly {
		if info, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("sharelog: open folder: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("sharelog: open folder: %s is not a folder", path)
		}
		return d, nil
	}
	var err error
	if d.zw, err = gzip.NewWriterLevel(&d.out, level); err != nil {
		return nil, fmt.Errorf("sharelog: open folder: %w", err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("sharelog: create folder: %w", err)
	}
	if d.lock, err = dirlock.Lock(filepath.Join(path, ".sharelog"+o.ChainTag+".lock")); err != nil {
		return nil, fmt.Errorf("sharelog: lock folder %s: %w", path, err)
	}
	return d, nil
}

// Close closes all files and gives up the lock. Cursors remain usable.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var errs []error
	for day := range d.files {
		errs = append(errs, d.closeDay(day))
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// Path returns the name of the file of day, with the folder. The file need not exist.
func (d *Dir) Path(day Day) string { return filepath.Join(d.path, d.name(day)) }

func (d *Dir) name(day Day) string { return "sharelog" + d.opts.ChainTag + "-" + day.String() + ".bin" }

// Days returns the days that have a file, oldest first.
func (d *Dir) Days() ([]Day, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("sharelog: list folder: %w", err)
	}
	var days []Day
	for _, e := range entries {
		date, ok := strings.CutPrefix(e.Name(), "sharelog"+d.opts.ChainTag+"-")
		if !ok {
			continue
		}
		if date, ok = strings.CutSuffix(date, ".bin"); !ok {
			continue
		}
		if day, err := ParseDay(date); err == nil {
			days = append(days, day)
		}
	}
	slices.Sort(days) // a formality: dates sort as text
	return days, nil
}

// Stats returns counts since the folder was opened.
func (d *Dir) Stats() DirStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Open = len(d.files)
	return s
}

// Append writes shares to the files of their days, each day's in one write of one gzip member, or of several where
// there are very many. A write that fails is undone. See [Log.Append] for what its errors mean.
func (d *Dir) Append(ctx context.Context, shares []share.Share) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.opts.ReadOnly:
		return ErrReadOnly
	case d.closed:
		return ErrClosed
	}
	if err := ctx.Err(); err != nil || len(shares) == 0 {
		return err
	}

	// Sort by day. Nearly every batch is of one, and is written as it stands.
	var invalid []error
	same := true
	for i := range shares {
		if err := shares[i].Check(); err != nil {
			invalid = append(invalid, fmt.Errorf("sharelog: append share %d of %d: %w", i, len(shares), err))
		}
		same = same && DayOf(shares[i].Time) == DayOf(shares[0].Time)
	}
	if same && invalid == nil {
		return d.appendDay(DayOf(shares[0].Time), shares, nil)
	}
	d.order = d.order[:0]
	for i := range shares {
		if shares[i].Check() == nil {
			d.order = append(d.order, orderedBy{DayOf(shares[i].Time), i})
		}
	}
	slices.SortFunc(d.order, func(a, b orderedBy) int {
		return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.index, b.index))
	})
	var failed []error
	var stored []Day
	for rest := d.order; len(rest) > 0; {
		day, n := rest[0].day, 1
		for n < len(rest) && rest[n].day == day {
			n++
		}
		err := ctx.Err()
		if err == nil {
			err = d.appendDay(day, shares, rest[:n])
		}
		if err != nil {
			failed = append(failed, err)
		} else {
			stored = append(stored, day)
		}
		rest = rest[n:]
	}
	if cap(d.order) > 1<<20 {
		d.order = nil
	}
	switch err := errors.Join(failed...); {
	case err == nil:
		return errors.Join(invalid...)
	case len(stored) == 0:
		return err
	default:
		return &PartialError{Stored: stored, Err: err}
	}
}

// appendDay writes the shares that order names, or all when it is nil, to the file of day, or nothing.
func (d *Dir) appendDay(day Day, shares []share.Share, order []orderedBy) error {
	n := len(shares)
	if order != nil {
		n = len(order)
	}
	d.out = d.out[:0]
	members := uint64(0)
	for i := 0; i < n; members++ {
		d.raw = d.raw[:0]
		for end := min(n, i+memberRecords); i < end; i++ {
			s := &shares[i]
			if order != nil {
				s = &shares[order[i].index]
			}
			var err error
			if d.raw, err = AppendRecord(d.raw, s); err != nil {
				return fmt.Errorf("sharelog: append: %w", err)
			}
		}
		d.zw.Reset(&d.out)
		d.zw.ModTime = time.Unix(0, 0) // written as 0; the zero Time is not
		_, err := d.zw.Write(d.raw)
		if err = errors.Join(err, d.zw.Close()); err != nil {
			return fmt.Errorf("sharelog: compress: %w", err)
		}
	}
	if cap(d.raw) > keptBuffer {
		d.raw = nil
	}
	out := d.out
	if cap(d.out) > keptBuffer {
		d.out = nil
	}

	w, err := d.file(day)
	if err != nil {
		return err
	}
	_, err = w.f.Write(out)
	if err == nil && !d.opts.NoSync {
		err = w.f.Sync()
	}
	if err != nil {
		d.stats.Failures++
		err = fmt.Errorf("sharelog: write %d shares to %s: %w", n, d.Path(day), err)
		if undo := w.f.Truncate(w.size); undo != nil {
			// The next attempt opens the file anew and cuts it back first.
			d.sizes[day] = w.size
			err = errors.Join(err, fmt.Errorf("sharelog: undo that: %w", undo), d.closeDay(day))
		}
		return err
	}
	w.size += int64(len(out))
	d.stats.Shares += uint64(n)
	d.stats.Members += members
	d.stats.Bytes += uint64(len(out))
	d.closeOldest()
	return nil
}

// closeOldest closes days while too many are open.
func (d *Dir) closeOldest() {
	for len(d.files) > d.opts.MaxHandles {
		oldest := maxDay
		for day := range d.files {
			oldest = min(oldest, day)
		}
		if err := d.closeDay(oldest); err != nil {
			d.opts.Logger.Warn("a share log was not closed properly", "file", d.Path(oldest), "err", err)
		}
	}
}

func (d *Dir) closeDay(day Day) error {
	w := d.files[day]
	delete(d.files, day)
	return w.f.Close()
}

// file returns the file of day, ready for writing at its end.
func (d *Dir) file(day Day) (*dayWriter, error) {
	name := d.Path(day)
	if w := d.files[day]; w != nil {
		// Somebody may have moved the file away or written to it in spite of the lock.
		here, err := w.f.Stat()
		if err == nil && here.Size() == w.size {
			var there os.FileInfo
			if there, err = os.Stat(name); err == nil && os.SameFile(here, there) {
				return w, nil
			}
		}
		d.opts.Logger.Warn("a share log was changed by someone else and is opened again", "file", name, "err", err)
		if err := d.closeDay(day); err != nil {
			d.opts.Logger.Warn("a share log was not closed properly", "file", name, "err", err)
		}
	}
	_, err := os.Stat(name)
	created := errors.Is(err, fs.ErrNotExist)
	f, err := d.open(name)
	if err != nil {
		return nil, fmt.Errorf("sharelog: open for writing: %w", err)
	}
	size, err := d.repair(f, day)
	if err == nil && created && !d.opts.NoSync {
		err = syncFolder(d.path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	w := &dayWriter{f, size}
	d.files[day] = w
	return w, nil
}

// repair cuts off what is incomplete at the end of a file and returns its size then.
func (d *Dir) repair(f dayFile, day Day) (int64, error) {
	name := d.Path(day)
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("sharelog: open for writing: %w", err)
	}
	size, known := d.sizes[day]
	if !known || size > info.Size() {
		if size, err = soundEnd(f, info.Size()); err == nil {
			err = ofOurFormat(f)
		}
		if err != nil {
			return 0, fmt.Errorf("sharelog: look for the end of %s: %w", name, err)
		}
	}
	if cut := info.Size() - size; cut > 0 {
		if !known {
			d.keep(f, name, size, cut)
			d.opts.Logger.Warn("an incomplete member was cut off the end of a share log", "file", name, "bytes", cut,
				"at", size)
			d.stats.Cut += cut
		}
		if err := f.Truncate(size); err != nil {
			return 0, fmt.Errorf("sharelog: cut %d bytes of an incomplete member off %s: %w", cut, name, err)
		}
	}
	delete(d.sizes, day)
	return size, nil
}

// ofOurFormat returns an error when a file begins with records of another format, to which none must be added.
func ofOurFormat(f io.ReaderAt) error {
	z := newInflater(f)
	if z.start(0) != nil {
		return nil // empty, or damaged: its records are not known
	}
	var size [4]byte
	if _, err := io.ReadFull(z, size[:]); err != nil {
		return nil
	}
	if _, err := recordSize(size[:]); err != nil && err != errNoRecord {
		return fmt.Errorf("it holds something else than share records: %w", err)
	}
	return nil
}

// keep saves what is about to be cut off beside the file: it is no share log any more, but all there is. That it
// cannot be saved is no reason to stop.
func (d *Dir) keep(f io.ReaderAt, name string, at, n int64) {
	aside := fmt.Sprintf("%s.cut-%d", name, at)
	out, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = io.Copy(out, io.NewSectionReader(f, at, n))
		err = errors.Join(err, out.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		d.opts.Logger.Warn("what is cut off a share log could not be saved", "file", aside, "err", err)
	}
}

// syncFolder makes the name of a new file durable. Systems that cannot do that for folders have nothing to say.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sharelog: sync folder: %w", err)
	}
	_ = f.Sync()
	return f.Close()
}

var _ Log = (*Dir)(nil)
