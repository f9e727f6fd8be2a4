package block

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/internal/dirlock"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

var (
	// ErrLocked is returned where another process, or this one, has the same files open.
	ErrLocked = dirlock.ErrLocked

	// ErrCorrupt is returned for a file that is not as it was written.
	ErrCorrupt = errors.New("damaged file")

	errClosed = errors.New("closed")
)

// A Pending block is one that the pool still owes to the chain.
type Pending struct {
	// Solution is the solution as it was put, but for its Job, which is not kept.
	Solution share.Solution

	// Block is the serialised block; nil while the job, and with it the transactions, is unknown.
	Block []byte
}

// Hash returns the hash of the block, computed from its header.
func (p *Pending) Hash() chainhash.Hash { return chainhash.DoubleHashH(p.Solution.Header[:]) }

// SpoolOptions tune a [Spool].
type SpoolOptions struct {
	// KeepRejected is how many blocks that every node refused are kept for the operator to look at, the oldest being
	// removed first; 0 means 32, negative none.
	KeepRejected int

	// SetAside is called for every file that was moved out of the way, during OpenSpool and later. It may be nil.
	SetAside func(AsideFile)

	Logger *slog.Logger // nil discards
}

// An AsideFile is a file that the spool could not use. It has been moved, never deleted.
type AsideFile struct {
	Name string // where it is now, with the folder
	Err  error  // why; [ErrCorrupt] matches when it was damaged
}

// A Spool keeps pending blocks on disk, one file for each, from before they are submitted until nodes have ruled on
// them. Its folder holds
//
//	<block hash>.block   pending; the hash as explorers print it
//	aside/               what could not be used, and blocks that were refused or could never be made
//	lock                 held by the process that has the Spool open
//
// A file has three lines: the solution as a JSON object, the block in hexadecimal (empty while its transactions are
// unknown), and the SHA-256 of all that precedes. In an emergency the block can thus be submitted by hand:
// sed -n 2p FILE | bitcoin-cli -stdin submitblock.
//
// All methods may be called concurrently.
type Spool struct {
	dir  string
	opts SpoolOptions

	mu   sync.Mutex // guards the folder and lock
	lock *os.File
}

const (
	spoolExt    = ".block"
	spoolTmpExt = ".block.tmp"
	spoolAside  = "aside"
	spoolLock   = "lock"
	spoolFormat = "poolkit block 1"

	// maxSpoolFile bounds what is read into memory: the hexadecimal form of a block of 32 MB, the largest that a
	// chain of the Bitcoin family has as its default.
	maxSpoolFile = 72 << 20
)

// OpenSpool opens the spool in the folder dir, which is made when it does not exist. It fails with [ErrLocked] when
// another Spool has it open.
//
// Files that are not pending blocks, or damaged ones, are moved to the folder aside within dir and reported through
// SetAside and the log. A file that was complete but had not got its name yet when the process ended is adopted.
func OpenSpool(dir string, opts *SpoolOptions) (*Spool, error) {
	s := &Spool{dir: dir}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.KeepRejected == 0 {
		s.opts.KeepRejected = 32
	}
	if s.opts.Logger == nil {
		s.opts.Logger = slog.New(slog.DiscardHandler)
	}
	fail := func(err error) (*Spool, error) {
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("block: open spool %s: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, spoolAside), 0o755); err != nil {
		return fail(err)
	}
	var err error
	if s.lock, err = dirlock.Lock(filepath.Join(dir, spoolLock)); err != nil {
		return fail(err)
	}
	if err := s.sweep(); err != nil {
		return fail(err)
	}
	return s, nil
}

// sweep looks at every file once.
func (s *Spool) sweep() error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		name := f.Name()
		if f.IsDir() || name == spoolLock {
			continue
		}
		hash, tmp, ok := parseSpoolName(name)
		if !ok {
			if err := s.moveAside(name, "foreign", errors.New("not a file of the spool")); err != nil {
				return err
			}
			continue
		}
		if _, err := s.read(name, hash); err != nil {
			if !errors.Is(err, ErrCorrupt) {
				return err
			}
			if err := s.moveAside(name, "damaged", err); err != nil {
				return err
			}
			continue
		}
		if tmp {
			// The process ended between the last byte and the name. The named file, if any, is the state before.
			if err := os.Rename(filepath.Join(s.dir, name), s.path(hash)); err != nil {
				return err
			}
		}
	}
	return dirlock.SyncDir(s.dir)
}

// parseSpoolName returns the hash in the name of a file, and whether the file has its temporary name.
func parseSpoolName(name string) (hash chainhash.Hash, tmp, ok bool) {
	digits, ok := strings.CutSuffix(name, spoolExt)
	if !ok {
		digits, ok = strings.CutSuffix(name, spoolTmpExt)
		tmp = true
	}
	if !ok || len(digits) != 64 || chainhash.Decode(&hash, digits) != nil || hash.String() != digits {
		return hash, tmp, false
	}
	return hash, tmp, true
}

func (s *Spool) path(hash chainhash.Hash) string { return filepath.Join(s.dir, hash.String()+spoolExt) }

// Put writes a pending block, in place of the one with the same hash if there is any. When it returns nil the block
// survives the process and the machine. Nothing of p is kept.
func (s *Spool) Put(p *Pending) error {
	hash := p.Hash()
	b, err := encodePending(p)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		err = s.write(hash, b)
	}
	if err != nil {
		return fmt.Errorf("block: spool %v: %w", hash, err)
	}
	return nil
}

func (s *Spool) write(hash chainhash.Hash, b []byte) error {
	if s.lock == nil {
		return errClosed
	}
	tmp := filepath.Join(s.dir, hash.String()+spoolTmpExt)
	if err := writeSynced(tmp, b); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, s.path(hash)); err != nil {
		return err
	}
	return dirlock.SyncDir(s.dir)
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// Get reads a pending block. The error matches [fs.ErrNotExist] when there is none with that hash. A file that has been
// damaged since it was written is set aside, and the error matches [ErrCorrupt].
func (s *Spool) Get(hash chainhash.Hash) (*Pending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return nil, fmt.Errorf("block: spool %v: %w", hash, errClosed)
	}
	p, err := s.read(hash.String()+spoolExt, hash)
	if err == nil {
		return p, nil
	}
	if errors.Is(err, ErrCorrupt) {
		err = errors.Join(err, s.moveAside(hash.String()+spoolExt, "damaged", err))
	}
	return nil, fmt.Errorf("block: spool %v: %w", hash, err)
}

func (s *Spool) read(name string, hash chainhash.Hash) (*Pending, error) {
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSpoolFile+1))
	if err != nil {
		return nil, err
	}
	p, err := decodePending(b)
	if err != nil {
		return nil, err
	}
	if got := p.Hash(); got != hash {
		return nil, fmt.Errorf("%w: it holds block %v", ErrCorrupt, got)
	}
	return p, nil
}

// List returns the hashes of all pending blocks, those of the longest standing first.
func (s *Spool) List() ([]chainhash.Hash, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return nil, fmt.Errorf("block: list spool: %w", errClosed)
	}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("block: list spool: %w", err)
	}
	type entry struct {
		hash chainhash.Hash
		at   time.Time
	}
	var list []entry
	for _, f := range files {
		hash, tmp, ok := parseSpoolName(f.Name())
		if !ok || tmp {
			continue
		}
		info, err := f.Info()
		if err != nil {
			return nil, fmt.Errorf("block: list spool: %w", err)
		}
		list = append(list, entry{hash, info.ModTime()})
	}
	slices.SortStableFunc(list, func(a, b entry) int { return a.at.Compare(b.at) })
	hashes := make([]chainhash.Hash, len(list))
	for i := range list {
		hashes[i] = list[i].hash
	}
	return hashes, nil
}

// Remove deletes a pending block that needs no more work. One that is not there is no error.
func (s *Spool) Remove(hash chainhash.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return fmt.Errorf("block: spool: remove %v: %w", hash, errClosed)
	}
	err := os.Remove(s.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = dirlock.SyncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("block: spool: remove %v: %w", hash, err)
	}
	return nil
}

// setAside moves a pending block to where it is kept for the operator only. One that is not there is no error.
func (s *Spool) setAside(hash chainhash.Hash, kind string, reason error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return fmt.Errorf("block: spool: set aside %v: %w", hash, errClosed)
	}
	err := s.moveAside(hash.String()+spoolExt, kind, reason)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = s.pruneAside(kind)
	}
	if err != nil {
		return fmt.Errorf("block: spool: set aside %v: %w", hash, err)
	}
	return nil
}

// moveAside gives a file a name of its own in the folder aside.
func (s *Spool) moveAside(name, kind string, reason error) error {
	to := filepath.Join(s.dir, spoolAside, name+"."+kind)
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		to = filepath.Join(s.dir, spoolAside, fmt.Sprintf("%s.%d.%s", name, i, kind))
	}
	if err := os.Rename(filepath.Join(s.dir, name), to); err != nil {
		return err
	}
	if err := errors.Join(dirlock.SyncDir(filepath.Join(s.dir, spoolAside)), dirlock.SyncDir(s.dir)); err != nil {
		return err
	}
	s.opts.Logger.Warn("block spool: file set aside", "file", to, "reason", reason)
	if s.opts.SetAside != nil {
		s.opts.SetAside(AsideFile{Name: to, Err: reason})
	}
	return nil
}

const (
	asideRejected = "rejected"
	asideLost     = "lost"
)

// pruneAside removes the oldest rejected blocks beyond the number that is kept. Other kinds are never removed.
func (s *Spool) pruneAside(kind string) error {
	if kind != asideRejected {
		return nil
	}
	dir := filepath.Join(s.dir, spoolAside)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var kept []fs.FileInfo
	for _, f := range files {
		if strings.HasSuffix(f.Name(), "."+asideRejected) {
			if info, err := f.Info(); err == nil {
				kept = append(kept, info)
			}
		}
	}
	slices.SortStableFunc(kept, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for len(kept) > max(0, s.opts.KeepRejected) {
		if err := os.Remove(filepath.Join(dir, kept[0].Name())); err != nil {
			return err
		}
		kept = kept[1:]
	}
	return nil
}

// Close releases the folder. Later calls of other methods fail.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return nil
	}
	err := s.lock.Close()
	s.lock = nil
	if err != nil {
		return fmt.Errorf("block: close spool: %w", err)
	}
	return nil
}

// pendingJSON is the first line of a file.
type pendingJSON struct {
	Format   string    `json:"format"`
	Chain    job.Chain `json:"chain,omitempty"`
	JobID    job.ID    `json:"job_id"`
	Height   int32     `json:"height"`
	Header   string    `json:"header"`
	Coinbase string    `json:"coinbase"`
	User     string    `json:"user"`
	Worker   string    `json:"worker"`
	WorkerID int64     `json:"worker_id"`
	UserID   int32     `json:"user_id"`
	Found    time.Time `json:"found"`
}

func encodePending(p *Pending) ([]byte, error) {
	s := &p.Solution
	if len(s.Coinbase) == 0 {
		return nil, errors.New("solution without a coinbase")
	}
	found := s.Found.UTC()
	if y := found.Year(); y < 1 || y > 9999 {
		found = time.Time{} // RFC 3339 has no such year, and a block is not lost over it
	}
	line, err := json.Marshal(pendingJSON{
		Format: spoolFormat, Chain: s.Chain, JobID: s.JobID, Height: s.Height,
		Header: hex.EncodeToString(s.Header[:]), Coinbase: hex.EncodeToString(s.Coinbase),
		User: s.Worker.User, Worker: s.Worker.Name, WorkerID: s.WorkerID, UserID: s.UserID, Found: found,
	})
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(line)+1+2*len(p.Block)+1+2*sha256.Size+1)
	b = append(append(b, line...), '\n')
	b = append(hex.AppendEncode(b, p.Block), '\n')
	sum := sha256.Sum256(b)
	b = append(hex.AppendEncode(b, sum[:]), '\n')
	if len(b) > maxSpoolFile {
		return nil, fmt.Errorf("a block of %d bytes is too large", len(p.Block))
	}
	return b, nil
}

// decodePending reads what encodePending wrote. Every error matches [ErrCorrupt].
func decodePending(b []byte) (*Pending, error) {
	corrupt := func(format string, args ...any) (*Pending, error) {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
	}
	const sumLine = 2*sha256.Size + 1
	if len(b) > maxSpoolFile {
		return corrupt("more than %d bytes", maxSpoolFile)
	}
	if len(b) < sumLine || b[len(b)-1] != '\n' {
		return corrupt("it ends early")
	}
	body := b[:len(b)-sumLine]
	sum := sha256.Sum256(body)
	if !bytes.Equal(hex.AppendEncode(nil, sum[:]), b[len(body):len(b)-1]) {
		return corrupt("checksum mismatch")
	}
	head, rest, ok := bytes.Cut(body, []byte{'\n'})
	if !ok || len(rest) == 0 || bytes.IndexByte(rest, '\n') != len(rest)-1 {
		return corrupt("it does not have three lines")
	}
	var j pendingJSON
	if err := json.Unmarshal(head, &j); err != nil {
		return corrupt("first line: %w", err)
	}
	if j.Format != spoolFormat {
		return corrupt("first line: unknown format %.40q", j.Format)
	}
	p := &Pending{Solution: share.Solution{
		Chain: j.Chain, JobID: j.JobID, Height: j.Height, Worker: share.Worker{User: j.User, Name: j.Worker},
		WorkerID: j.WorkerID, UserID: j.UserID, Found: j.Found,
	}}
	s := &p.Solution
	header, err := hex.DecodeString(j.Header)
	if err != nil || len(header) != len(s.Header) {
		return corrupt("the header is not %d bytes in hexadecimal", len(s.Header))
	}
	copy(s.Header[:], header)
	s.Hash = p.Hash()
	if s.Coinbase, err = hex.DecodeString(j.Coinbase); err != nil || len(s.Coinbase) == 0 {
		return corrupt("the coinbase is not hexadecimal")
	}
	if rest = rest[:len(rest)-1]; len(rest) > 0 {
		p.Block = make([]byte, hex.DecodedLen(len(rest)))
		if _, err := hex.Decode(p.Block, rest); err != nil {
			return corrupt("block: %w", err)
		}
		if !bytes.HasPrefix(p.Block, s.Header[:]) {
			return corrupt("the block has another header than the solution")
		}
	}
	return p, nil
}
