package regtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// ErrCorrupt matches errors about a block log that is damaged elsewhere than at its end, where a crash may leave half
// a record. Nothing is repaired then, since blocks would be lost.
var ErrCorrupt = errors.New("damaged block log")

// A blockLog is a file of blocks in the order in which the chain took them.
//
//	8 bytes   "PKCHAIN1"
//	then for each block, integers little-endian:
//	4 bytes   size of the block
//	4 bytes   CRC-32C of the size and the block
//	n bytes   the block as it stands in messages, with witnesses
type blockLog struct {
	f       *os.File
	noSync  bool
	size    int64 // bytes that hold whole records
	index   map[chainhash.Hash]record
	scratch []byte
}

// A record says where a block is. The order of offsets is the order of arrival.
type record struct {
	offset int64
	size   uint32
}

const (
	logMagic      = "PKCHAIN1"
	recordHeader  = 8
	maxBlockBytes = 4_000_000 // no valid block is larger (BIP 141)
	minBlockBytes = 81        // header and an empty list
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openBlockLog opens or creates the named log. Half a record at its end, which a crash can leave, is cut off and
// returned.
func openBlockLog(name string, noSync bool) (_ *blockLog, torn []byte, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, nil, err
	}
	l := &blockLog{f: f, noSync: noSync, index: make(map[chainhash.Hash]record)}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	size := info.Size()

	magic := make([]byte, min(size, int64(len(logMagic))))
	if _, err := f.ReadAt(magic, 0); err != nil && err != io.EOF {
		return nil, nil, err
	}
	if size < int64(len(logMagic)) && bytes.HasPrefix([]byte(logMagic), bytes.TrimRight(magic, "\x00")) {
		// New, or a crash came before the first block.
		if err := f.Truncate(0); err != nil {
			return nil, nil, err
		}
		if _, err := f.WriteAt([]byte(logMagic), 0); err != nil {
			return nil, nil, err
		}
		l.size = int64(len(logMagic))
		return l, nil, l.sync()
	}
	if string(magic) != logMagic {
		return nil, nil, fmt.Errorf("%s: %w: it does not begin with %q", name, ErrCorrupt, logMagic)
	}

	l.size = int64(len(logMagic))
	r := newLogReader(f, l.size, size)
	for {
		block, err := r.next()
		if err == io.EOF {
			return l, nil, nil
		}
		if err != nil && !errors.Is(err, errBadRecord) {
			return nil, nil, err
		}
		if err != nil {
			// Every record is synced before the next one begins: a crash can spoil only the last one.
			if size-l.size > recordHeader+maxBlockBytes {
				return nil, nil, fmt.Errorf("%s: %w at byte %d of %d: %w", name, ErrCorrupt, l.size, size, err)
			}
			if torn, err = cutTail(f, l.size, size, name); err != nil {
				return nil, nil, err
			}
			return l, torn, l.sync()
		}
		l.index[chainhash.DoubleHashH(block[:80])] = record{l.size + recordHeader, uint32(len(block))}
		l.size += recordHeader + int64(len(block))
	}
}

// cutTail shortens the file to end and returns what was behind, unless a whole good record hides in it: then the
// record before was not the last one, and no crash explains the damage.
func cutTail(f *os.File, end, size int64, name string) ([]byte, error) {
	tail := make([]byte, size-end)
	if _, err := f.ReadAt(tail, end); err != nil {
		return nil, err
	}
	for i := 1; i+recordHeader+minBlockBytes <= len(tail); i++ {
		n := binary.LittleEndian.Uint32(tail[i:])
		if n < minBlockBytes || int64(n) > int64(len(tail)-i-recordHeader) {
			continue
		}
		if checksum(tail[i:i+4], tail[i+recordHeader:][:n]) == binary.LittleEndian.Uint32(tail[i+4:]) {
			return nil, fmt.Errorf("%s: %w between bytes %d and %d", name, ErrCorrupt, end, end+int64(i))
		}
	}
	if err := f.Truncate(end); err != nil {
		return nil, err
	}
	return tail, nil
}

func checksum(size, block []byte) uint32 {
	return crc32.Update(crc32.Checksum(size, castagnoli), castagnoli, block)
}

// has reports whether the log holds a block.
func (l *blockLog) has(hash *chainhash.Hash) bool {
	_, ok := l.index[*hash]
	return ok
}

// append adds a block at the end, on the disk when it returns. After an error the log is as before.
func (l *blockLog) append(hash *chainhash.Hash, block []byte) error {
	if len(block) < minBlockBytes || len(block) > maxBlockBytes {
		return fmt.Errorf("block of %d bytes", len(block))
	}
	b := binary.LittleEndian.AppendUint32(l.scratch[:0], uint32(len(block)))
	b = binary.LittleEndian.AppendUint32(b, checksum(b[:4], block))
	b = append(b, block...)
	l.scratch = b
	_, err := l.f.WriteAt(b, l.size)
	if err == nil {
		err = l.sync()
	}
	if err != nil {
		return errors.Join(err, l.f.Truncate(l.size))
	}
	l.index[*hash] = record{l.size + recordHeader, uint32(len(block))}
	l.size += int64(len(b))
	return nil
}

// undo removes the block that was appended last.
func (l *blockLog) undo(hash *chainhash.Hash) error {
	r, ok := l.index[*hash]
	if !ok || r.offset+int64(r.size) != l.size {
		return fmt.Errorf("block %v is not the last one", hash)
	}
	if err := l.f.Truncate(r.offset - recordHeader); err != nil {
		return err
	}
	delete(l.index, *hash)
	l.size = r.offset - recordHeader
	return nil
}

// read returns a block, or nil when the log does not have it.
func (l *blockLog) read(hash *chainhash.Hash) ([]byte, error) {
	r, ok := l.index[*hash]
	if !ok {
		return nil, nil
	}
	b := make([]byte, r.size)
	if _, err := l.f.ReadAt(b, r.offset); err != nil {
		return nil, err
	}
	return b, nil
}

// all calls f with every block, in order of arrival. The bytes are valid during the call only.
func (l *blockLog) all(f func(block []byte, last bool) error) error {
	r := newLogReader(l.f, int64(len(logMagic)), l.size)
	for {
		block, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(block, r.left == 0); err != nil {
			return err
		}
	}
}

func (l *blockLog) sync() error {
	if l.noSync {
		return nil
	}
	return l.f.Sync()
}

func (l *blockLog) close() error { return l.f.Close() }

// errBadRecord is wrapped by errors about bytes that are not a record.
var errBadRecord = errors.New("not a record")

// A logReader reads records one after another.
type logReader struct {
	r    io.Reader
	left int64
	buf  []byte
}

func newLogReader(f io.ReaderAt, from, to int64) *logReader {
	return &logReader{r: bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), 1<<16), left: to - from}
}

// next returns the next block, io.EOF at the end, an error that wraps errBadRecord where there is something else, and
// other errors where reading failed. The block is valid until the next call.
func (r *logReader) next() ([]byte, error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	if r.left < recordHeader {
		return nil, fmt.Errorf("%w: %d bytes", errBadRecord, r.left)
	}
	var head [recordHeader]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n < minBlockBytes || n > maxBlockBytes || n > r.left-recordHeader {
		return nil, fmt.Errorf("%w: size %d, %d bytes left", errBadRecord, n, r.left-recordHeader)
	}
	if int64(cap(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return nil, err
	}
	if got, want := checksum(head[:4], r.buf), binary.LittleEndian.Uint32(head[4:]); got != want {
		return nil, fmt.Errorf("%w: checksum %08x, want %08x", errBadRecord, got, want)
	}
	r.left -= recordHeader + n
	return r.buf, nil
}
