package regtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/poolkit/poolkit/internal/dirlock"
)

// settings is the content of chain.json: what a chain is and remains.
type settings struct {
	Version int    `json:"version"`
	Bits    string `json:"bits"` // 8 hexadecimal digits
	Seed    uint64 `json:"seed"`
	Genesis string `json:"genesis"`
	Address string `json:"address"` // the throw-away address, for whoever looks into the folder
	Ready   bool   `json:"ready"`   // whether the first blocks are there; if not, mining them begins again
}

const settingsVersion = 1

// loadSettings reads chain.json, or returns the settings of a new chain, and checks them against what opts demand.
// dir is the folder's name for error messages.
func loadSettings(dir string, opts *Options) (settings, error) {
	name := filepath.Join(dir, settingsName)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, logName)); err == nil {
			return settings{}, fmt.Errorf("%s holds %s but not %s, which says how to read it", dir, logName, settingsName)
		}
		s := settings{Version: settingsVersion, Seed: 1, Bits: fmt.Sprintf("%08x", EasyBits)}
		if opts.Seed != 0 {
			s.Seed = opts.Seed
		}
		if opts.Bits != 0 {
			s.Bits = fmt.Sprintf("%08x", opts.Bits)
		}
		return s, nil
	}
	if err != nil {
		return settings{}, err
	}
	var s settings
	if err := json.Unmarshal(b, &s); err != nil {
		return settings{}, fmt.Errorf("%s: %w", name, err)
	}
	if s.Version != settingsVersion {
		return settings{}, fmt.Errorf("%s: version %d, this program knows %d", name, s.Version, settingsVersion)
	}
	bits, err := s.bits()
	if err != nil {
		return settings{}, fmt.Errorf("%s: %w", name, err)
	}
	if opts.Bits != 0 && opts.Bits != bits {
		return settings{}, fmt.Errorf("%s keeps a chain with bits %08x, not %08x: use another folder", dir, bits, opts.Bits)
	}
	if opts.Seed != 0 && opts.Seed != s.Seed {
		return settings{}, fmt.Errorf("%s keeps a chain with seed %d, not %d: use another folder", dir, s.Seed, opts.Seed)
	}
	return s, nil
}

func (s *settings) bits() (uint32, error) {
	v, err := strconv.ParseUint(s.Bits, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("bits: %w", err)
	}
	return uint32(v), checkBits(uint32(v))
}

// save writes chain.json so that a crash leaves the old one or the new one.
func (s *settings) save(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, settingsName), append(b, '\n'))
}

// writeFile replaces the named file, atomically and durably.
func writeFile(name string, b []byte) (err error) {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	return dirlock.SyncDir(filepath.Dir(name))
}
