package block_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
	"github.com/poolkit/poolkit/share"
)

func openSpool(t testing.TB, dir string, opts *block.SpoolOptions) *block.Spool {
	t.Helper()
	s, err := block.OpenSpool(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// pendingBlock returns a pending block; different extra give different ones.
func pendingBlock(t testing.TB, extra uint64) *block.Pending {
	t.Helper()
	tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 3)
	_, s := blocktest.Solve(tmpl, extra)
	raw, err := block.Assemble(s, tmpl.Transactions)
	require.NoError(t, err)
	return &block.Pending{Solution: *s, Block: raw}
}

func ls(t testing.TB, dir string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, f := range files {
		if !f.IsDir() && f.Name() != "lock" {
			names = append(names, f.Name())
		}
	}
	return names
}

func TestSpool(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "spool")
	s := openSpool(t, dir, nil)
	p := pendingBlock(t, 1)
	p.Solution.Chain = "btc"
	want := *p
	want.Solution.Job = nil
	want.Solution.Found = p.Solution.Found.UTC().Round(0)
	require.NoError(t, s.Put(p))

	got, err := s.Get(p.Hash())
	require.NoError(t, err)
	require.Equal(t, &want, got)
	require.Equal(t, []string{p.Hash().String() + ".block"}, ls(t, dir))

	// The second line is what submitblock takes.
	b, err := os.ReadFile(filepath.Join(dir, p.Hash().String()+".block"))
	require.NoError(t, err)
	require.Equal(t, hex.EncodeToString(p.Block), strings.Split(string(b), "\n")[1])

	parked := pendingBlock(t, 2)
	parked.Block = nil
	require.NoError(t, s.Put(parked))
	got, err = s.Get(parked.Hash())
	require.NoError(t, err)
	require.Nil(t, got.Block)

	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorContains(t, s.Put(p), "closed")
	_, err = s.Get(p.Hash())
	require.ErrorContains(t, err, "closed")
	_, err = s.List()
	require.ErrorContains(t, err, "closed")
	require.ErrorContains(t, s.Remove(p.Hash()), "closed")

	s = openSpool(t, dir, nil)
	list, err := s.List()
	require.NoError(t, err)
	require.ElementsMatch(t, []chainhash.Hash{p.Hash(), parked.Hash()}, list)
	require.NoError(t, s.Remove(p.Hash()))
	require.NoError(t, s.Remove(p.Hash()))
	_, err = s.Get(p.Hash())
	require.ErrorIs(t, err, fs.ErrNotExist)
	list, err = s.List()
	require.NoError(t, err)
	require.Equal(t, []chainhash.Hash{parked.Hash()}, list)
}

func TestSpoolListsOldestFirst(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir, nil)
	var want []chainhash.Hash
	for i := range 6 {
		p := pendingBlock(t, uint64(i))
		require.NoError(t, s.Put(p))
		at := time.Unix(1700000000+int64(i), 0)
		require.NoError(t, os.Chtimes(filepath.Join(dir, p.Hash().String()+".block"), at, at))
		want = append(want, p.Hash())
	}
	list, err := s.List()
	require.NoError(t, err)
	require.Equal(t, want, list)
}

func TestSpoolLocks(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir, nil)
	_, err := block.OpenSpool(dir, nil)
	require.ErrorIs(t, err, block.ErrLocked)
	require.NoError(t, s.Close())
	openSpool(t, dir, nil)
}

func TestSpoolSetsAside(t *testing.T) {
	good := pendingBlock(t, 1)
	name := good.Hash().String() + ".block"
	encoded := func(t *testing.T) []byte {
		dir := t.TempDir()
		require.NoError(t, openSpool(t, dir, nil).Put(good))
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return b
	}(t)
	other := pendingBlock(t, 2).Hash().String() + ".block"
	flipped := bytes.Clone(encoded)
	flipped[len(flipped)/2] ^= 1

	tests := []struct {
		name     string
		file     string
		data     []byte
		aside    string // "" when the file stays
		pending  int
		wantCorr bool
	}{
		{"a good file", name, encoded, "", 1, false},
		{"a file that got no name in time", name + ".tmp", encoded, "", 1, false},
		{"a torn temporary file", name + ".tmp", encoded[:len(encoded)-1], name + ".tmp.damaged", 0, true},
		{"an empty file", name, nil, name + ".damaged", 0, true},
		{"a torn file", name, encoded[:len(encoded)/2], name + ".damaged", 0, true},
		{"a flipped bit", name, flipped, name + ".damaged", 0, true},
		{"the name of another block", other, encoded, other + ".damaged", 0, true},
		{"a foreign file", "README", []byte("hello"), "README.foreign", 0, false},
		{"a name that is no hash", "zz.block", encoded, "zz.block.foreign", 0, false},
		{"upper case digits", strings.ToUpper(name[:64]) + ".block", encoded, strings.ToUpper(name[:64]) + ".block.foreign", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, tt.file), tt.data, 0o644))
			var aside []block.AsideFile
			s := openSpool(t, dir, &block.SpoolOptions{SetAside: func(f block.AsideFile) { aside = append(aside, f) }})
			list, err := s.List()
			require.NoError(t, err)
			require.Len(t, list, tt.pending)
			if tt.pending > 0 {
				got, err := s.Get(good.Hash())
				require.NoError(t, err)
				require.Equal(t, good.Block, got.Block)
			}
			if tt.aside == "" {
				require.Empty(t, aside)
				return
			}
			require.Len(t, aside, 1)
			require.Equal(t, filepath.Join(dir, "aside", tt.aside), aside[0].Name)
			require.Equal(t, tt.wantCorr, errors.Is(aside[0].Err, block.ErrCorrupt))
			b, err := os.ReadFile(aside[0].Name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(tt.data, b), "not a byte is lost")
			require.Empty(t, ls(t, dir))

			// A second one of that name does not replace the first.
			require.NoError(t, s.Close())
			require.NoError(t, os.WriteFile(filepath.Join(dir, tt.file), tt.data, 0o644))
			openSpool(t, dir, nil)
			require.Len(t, ls(t, filepath.Join(dir, "aside")), 2)
		})
	}

	t.Run("damaged while open", func(t *testing.T) {
		dir := t.TempDir()
		s := openSpool(t, dir, nil)
		require.NoError(t, s.Put(good))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), flipped, 0o644))
		_, err := s.Get(good.Hash())
		require.ErrorIs(t, err, block.ErrCorrupt)
		require.Equal(t, []string{name + ".damaged"}, ls(t, filepath.Join(dir, "aside")))
	})
}

func TestSpoolPutFails(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir, nil)
	p := pendingBlock(t, 1)
	// A folder in the place of the temporary file stands for a disk that takes nothing.
	tmp := filepath.Join(dir, p.Hash().String()+".block.tmp")
	require.NoError(t, os.Mkdir(tmp, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tmp, "x"), nil, 0o644))
	require.Error(t, s.Put(p))
	_, err := s.Get(p.Hash())
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.RemoveAll(tmp))
	require.NoError(t, s.Put(p))

	require.Error(t, s.Put(&block.Pending{}), "no coinbase")
	p.Solution.Found = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, s.Put(p), "a clock that is off costs no block")
}

func TestSpoolConcurrent(t *testing.T) {
	s := openSpool(t, t.TempDir(), nil)
	var wg sync.WaitGroup
	for i := range 4 {
		p := pendingBlock(t, uint64(i%2))
		wg.Go(func() {
			for range 5 {
				if err := s.Put(p); err != nil {
					t.Error(err)
				}
				if _, err := s.Get(p.Hash()); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				if _, err := s.List(); err != nil {
					t.Error(err)
				}
				if err := s.Remove(p.Hash()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	list, err := s.List()
	require.NoError(t, err)
	require.Empty(t, list)
}

func BenchmarkSpoolPut(b *testing.B) {
	s := openSpool(b, b.TempDir(), nil)
	p := &block.Pending{
		Solution: share.Solution{Coinbase: make([]byte, 200), Found: time.Unix(1700000000, 0)}, Block: make([]byte, 2<<20),
	}
	b.SetBytes(int64(len(p.Block)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Put(p); err != nil {
			b.Fatal(err)
		}
	}
}
