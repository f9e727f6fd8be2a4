package stratum

import (
	"bufio"
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
	"slices"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
)

// DifficultyFileOptions tune a DifficultyFile. The zero value is sound.
type DifficultyFileOptions struct {
	MaxWorkers int           // as of DifficultyMemoryOptions
	Interval   time.Duration // between writes of the file, while something changes; 0 or less means 1m
	Logger     *slog.Logger  // nil discards
}

// A DifficultyFile is a DifficultyMemory that is kept in a file, for the next process: of one that is killed what was
// saved up to an interval before.
type DifficultyFile struct {
	*DifficultyMemory
	path    string
	opts    DifficultyFileOptions
	written uint64 // saves that are in the file
}

// OpenDifficulties returns a store with what the file at path holds, which need not be there. Lines that are not
// understood are left out, and a warning says how many: a pool does not stand still for them. It fails when there is
// something that cannot be read. One process may have the file at a time; nothing is written before Run.
func OpenDifficulties(path string, opts *DifficultyFileOptions) (*DifficultyFile, error) {
	d := &DifficultyFile{path: path}
	if opts != nil {
		d.opts = *opts
	}
	if d.opts.Interval <= 0 {
		d.opts.Interval = time.Minute
	}
	if d.opts.Logger == nil {
		d.opts.Logger = slog.New(slog.DiscardHandler)
	}
	d.DifficultyMemory = NewDifficultyMemory(&DifficultyMemoryOptions{MaxWorkers: d.opts.MaxWorkers})
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stratum: open difficulties: %w", err)
	}
	defer f.Close()
	bad, err := d.read(f)
	if err != nil {
		return nil, fmt.Errorf("stratum: read difficulties %s: %w", path, err)
	}
	if bad > 0 {
		d.opts.Logger.Warn("the file of difficulties is damaged, some workers start as if they were new", "file", path,
			"lines", bad)
	}
	d.written = d.saved()
	return d, nil
}

// Run keeps the file up to date until ctx ends, and then once more: it is to be stopped after the server. A write that
// fails is logged and tried again; the last one's error is returned.
func (d *DifficultyFile) Run(ctx context.Context) error {
	tick := time.NewTicker(d.opts.Interval)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-tick.C:
			err := d.write()
			if err != nil && !failed {
				d.opts.Logger.Error("the difficulties cannot be kept for the next start", "error", err)
			}
			failed = err != nil
		case <-ctx.Done():
			return d.write()
		}
	}
}

// A difficultyLine is one worker's in the file, as JSON: an operator can read it.
type difficultyLine struct {
	User       string                `json:"user"`
	Worker     string                `json:"worker"`
	At         time.Time             `json:"at"`
	Difficulty difficulty.Difficulty `json:"difficulty"`
	Hashrate   difficulty.Hashrate   `json:"hashrate,omitempty"`
	Shares     float64               `json:"shares,omitempty"`
}

// maxDifficultyLine bounds a line: names are at most 148 bytes.
const maxDifficultyLine = 1 << 10

// read saves what a file holds, and counts the lines that are not understood.
func (m *DifficultyMemory) read(r io.Reader) (bad int, err error) {
	in := bufio.NewReaderSize(r, maxDifficultyLine)
	long := false
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = true // and what follows belongs to it
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return bad, err
		}
		if line = bytes.TrimSpace(line); long || len(line) > 0 && !m.readLine(line) {
			bad++
		}
		long = false
		if err != nil {
			return bad, nil
		}
	}
}

func (m *DifficultyMemory) readLine(line []byte) bool {
	var l difficultyLine
	if json.Unmarshal(line, &l) != nil {
		return false
	}
	w := share.Worker{User: l.User, Name: l.Worker}
	state := difficulty.State{At: l.At, Difficulty: l.Difficulty, Hashrate: l.Hashrate, Shares: l.Shares}
	if w.User == "" || len(w.User) > share.MaxUserName || len(w.Name) > share.MaxWorkerName ||
		share.FilterName(w.User) != w.User || share.FilterName(w.Name) != w.Name || !state.Valid() {
		return false
	}
	m.Save(w, state)
	return true
}

// write writes everything to a new file that then takes the place of the old one, if something has changed.
func (d *DifficultyFile) write() (err error) {
	if d.saved() == d.written {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(d.path), filepath.Base(d.path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("stratum: write difficulties: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("stratum: write difficulties: %w", err)
		}
	}()
	kept, saves := d.all()
	// The newest last: they are what remains when the file is read into a smaller memory.
	slices.SortFunc(kept, func(a, b keptDifficulty) int { return a.state.At.Compare(b.state.At) })
	b := bufio.NewWriterSize(f, 64<<10)
	for _, k := range kept {
		if !k.state.Valid() {
			continue // JSON has no word for it
		}
		line, err := json.Marshal(difficultyLine{User: k.worker.User, Worker: k.worker.Name, At: k.state.At.UTC(),
			Difficulty: k.state.Difficulty, Hashrate: k.state.Hashrate, Shares: k.state.Shares})
		if err != nil {
			continue // a year beyond 9999
		}
		b.Write(append(line, '\n'))
	}
	if err := b.Flush(); err != nil { // of all the writes above
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), d.path); err != nil {
		return err
	}
	d.written = saves
	return nil
}
