package regtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/database"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/stretchr/testify/require"
)

// crash gives up the folder as a killed process does: nothing is flushed and nothing said to be clean.
func (c *Chain) crash(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.False(t, c.closed)
	// The database cannot be let go of without its flush, so the folder gets back what was there before.
	saved := t.TempDir()
	db := filepath.Join(c.dir, c.dbDir)
	require.NoError(t, os.CopyFS(saved, os.DirFS(db)))
	require.NoError(t, c.close(false))
	require.NoError(t, os.RemoveAll(db))
	require.NoError(t, os.CopyFS(db, os.DirFS(saved)))
}

func TestReopenGoesOn(t *testing.T) {
	dir := t.TempDir()
	opts := Options{TxInterval: -1, TxsPerBlock: 4, Seed: 5}
	c := openChain(t, dir, opts)
	addr := c.ThrowawayAddress().String()
	mineForeign(t, c)
	mineForeign(t, c)
	_, err := c.GenerateFrom(*c.Params().GenesisHash, 2) // side branch
	require.NoError(t, err)
	tip, height, tmpl, coins := c.Tip(), c.Height(), template(t, c), c.wallet.coins
	require.NoError(t, c.Close())

	for range 2 {
		opts.Seed = 0 // what the folder has
		c = openChain(t, dir, opts)
		require.Equal(t, tip, c.Tip())
		require.Equal(t, height, c.Height())
		require.Equal(t, addr, c.ThrowawayAddress().String())
		require.Equal(t, coins, c.wallet.coins, "the wallet is not what it was")
		require.Equal(t, tmpl.Transactions, template(t, c).Transactions)
		require.NoError(t, c.Close())
	}

	c = openChain(t, dir, opts)
	require.Equal(t, "db-1", c.dbDir, "a database that was closed in good order was built anew")
	for range 3 {
		require.Len(t, template(t, c).Transactions, 4)
		mineForeign(t, c)
	}
	require.Equal(t, height+3, c.Height())
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts Options
		want string
	}{
		{"bits above the limit", Options{Bits: 0x2100ffff}, "easier than regtest allows"},
		{"negative bits", Options{Bits: 0x1d80ffff}, "negative"},
		{"bits not in their shortest form", Options{Bits: 0x1e0000ff}, "shortest form"},
		{"an interval of a nanosecond", Options{TxInterval: 1}, "TxInterval"},
		{"too many transactions", Options{TxsPerBlock: 501}, "TxsPerBlock 501"},
		{"a negative bound", Options{MaxTxs: -1}, "MaxTxs -1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(t.TempDir(), &tt.opts)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "regtest: options: ")
		})
	}

	dir := t.TempDir()
	c := openChain(t, dir, quick)
	_, err := Open(dir, nil)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, dir)
	mineForeign(t, c) // nothing of that has disturbed it
	require.NoError(t, c.Close())

	_, err = Open(dir, &Options{Bits: 0x1e00ffff})
	require.ErrorContains(t, err, "bits 207fffff, not 1e00ffff: use another folder")
	_, err = Open(dir, &Options{Seed: 2})
	require.ErrorContains(t, err, "seed 1, not 2: use another folder")

	name := filepath.Join(dir, settingsName)
	settings, err := os.ReadFile(name)
	require.NoError(t, err)
	for want, content := range map[string]string{
		"version 2":            strings.Replace(string(settings), `"version": 1`, `"version": 2`, 1),
		"begins with block 00": strings.Replace(string(settings), `"genesis": "`, `"genesis": "00`, 1),
		"unexpected end":       string(settings[:20]),
		"bits":                 strings.Replace(string(settings), "207fffff", "317fffff", 1),
	} {
		require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
		_, err = Open(dir, nil)
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, os.Remove(name))
	_, err = Open(dir, nil)
	require.ErrorContains(t, err, "not chain.json")

	require.NoError(t, os.WriteFile(name, settings, 0o644))
	c = openChain(t, dir, quick) // none of the failures has harmed it
	require.EqualValues(t, bootstrapBlocks+1, c.Height())

	_, err = Open(name, nil)
	require.Error(t, err, "a file is no folder")
}

func TestParamsAndAddress(t *testing.T) {
	c := openChain(t, "", quick)
	require.Equal(t, chaincfg.RegressionNetParams.GenesisHash, c.Params().GenesisHash)
	require.Equal(t, "regtest", c.Params().Name)
	addr, err := address.DecodeAddress(c.ThrowawayAddress().String(), c.Params())
	require.NoError(t, err)
	require.IsType(t, (*address.AddressWitnessPubKeyHash)(nil), addr)
	require.True(t, strings.HasPrefix(addr.String(), "bcrt1q"))
	require.NotContains(t, c.wallet.mine, string(foreignScript(t, c)))

	// btcd ties deployments to one chain: two chains must not share any.
	other := openChain(t, "", quick)
	for i := range c.params.Deployments {
		require.NotSame(t, c.params.Deployments[i].DeploymentStarter, other.params.Deployments[i].DeploymentStarter)
		require.NotSame(t, c.params.Deployments[i].DeploymentEnder, other.params.Deployments[i].DeploymentEnder)
	}
	for _, id := range []uint32{chaincfg.DeploymentCSV, chaincfg.DeploymentSegwit, chaincfg.DeploymentTaproot} {
		active, err := c.chain.IsDeploymentActive(id)
		require.NoError(t, err)
		require.True(t, active)
	}
}

// A chain with a harder target: the first blocks are easy, all others are not.
func TestHarderBits(t *testing.T) {
	bits := difficulty.Difficulty(1.0 / (1 << 18)).Target().Bits() // 2^14 hashes
	dir := t.TempDir()
	opts := quick
	opts.Bits = bits
	c := openChain(t, dir, opts)
	require.Equal(t, bits, c.Bits())
	require.EqualValues(t, bootstrapBlocks, c.Height())
	require.NotEqual(t, chaincfg.RegressionNetParams.GenesisHash, c.Params().GenesisHash)

	tmpl := template(t, c)
	require.Equal(t, bits, tmpl.Bits)
	require.Equal(t, bits, tmpl.Target.Bits())
	require.NotEmpty(t, tmpl.Transactions)

	var rejected *block.RejectedError
	easy := buildBlock(t, tmpl, foreignScript(t, c))
	easy.Header.Bits = EasyBits
	require.ErrorAs(t, c.Submit(t.Context(), solve(t, easy)), &rejected)
	require.Equal(t, "bad-diffbits", rejected.Reason)
	b := buildBlock(t, tmpl, foreignScript(t, c))
	solve(t, b)
	require.ErrorAs(t, c.Submit(t.Context(), solveHeader(t, b, false)), &rejected)
	require.Equal(t, "high-hash", rejected.Reason)

	mineForeign(t, c)
	hashes, err := c.Generate(2)
	require.NoError(t, err)
	target := blockchain.CompactToBig(bits)
	for _, hash := range hashes {
		require.LessOrEqual(t, blockchain.HashToBig(&hash).Cmp(target), 0)
	}
	// A branch has to do the same work.
	fork, err := c.BlockHash(bootstrapBlocks)
	require.NoError(t, err)
	branch, err := c.GenerateFrom(fork, 4)
	require.NoError(t, err)
	require.Equal(t, branch[3], c.Tip())
	require.NoError(t, c.Close())

	_, err = Open(dir, &Options{Bits: EasyBits})
	require.ErrorContains(t, err, "use another folder")
	c = openChain(t, dir, quick) // bits of the folder
	require.Equal(t, branch[3], c.Tip())
	require.Equal(t, bits, template(t, c).Bits)
}

// After a month without a block the rule that made the first blocks easy applies once more, and templates know it.
func TestHarderBitsAfterAMonth(t *testing.T) {
	opts := quick
	opts.Bits = difficulty.Difficulty(1.0 / (1 << 20)).Target().Bits()
	c := openChain(t, "", opts)
	for _, tt := range []struct {
		after time.Duration
		bits  uint32
	}{{easyAfter - time.Minute, opts.Bits}, {easyAfter + time.Minute, EasyBits}} {
		tip, err := c.Block(c.Tip())
		require.NoError(t, err)
		c.mu.Lock()
		tmpl, err := c.makeTemplate(c.chain.BestSnapshot(), tip.Header.Timestamp.Add(tt.after))
		c.mu.Unlock()
		require.NoError(t, err)
		require.Equal(t, tt.bits, tmpl.Bits)
	}
}

// However many CPUs search, they find what one would have found: the chain of a seed is one chain.
func TestSearchFindsTheLowestNonce(t *testing.T) {
	c := openChain(t, "", quick)
	target := difficulty.Difficulty(1.0 / (1 << 18)).Target() // two strides
	for i := range 20 {
		h := c.Params().GenesisBlock.Header
		h.MerkleRoot[0] = byte(i)
		want := h
		for want.Nonce = 0; ; want.Nonce++ {
			if hash := want.BlockHash(); target.MetBy((*[32]byte)(&hash)) {
				break
			}
		}
		found, err := c.search(&h, &target, false)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, want.Nonce, h.Nonce)
	}
}

// Close ends a search that would take years.
func TestCloseEndsGenerate(t *testing.T) {
	opts := quick
	opts.Bits = 0x1a00ffff
	c, err := Open("", &opts)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := c.Generate(1)
		done <- err
	}()
	for c.genMu.TryLock() { // until Generate has begun
		c.genMu.Unlock()
		runtime.Gosched()
	}
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-done, ErrClosed)
}

// What a crash or a disk can do to a folder, and what must be there afterwards.
func TestOpenAfterDamage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		clean  bool // closed in good order before the damage
		damage func(t *testing.T, dir string)
		lost   int // blocks
		db     string
	}{
		{"crash", false, func(*testing.T, string) {}, 0, "db-1"},
		{"crash and database gone", false, func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "db-1")))
		}, 0, "db-1"},
		{"database gone", true, func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "db-1")))
		}, 0, "db-1"},
		{"metadata of the database gone", true, func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "db-1", "metadata")))
		}, 0, "db-2"},
		{"blocks of the database cut", true, func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, "db-1", "000000000.fdb"), 1000))
		}, 0, "db-2"},
		{"tables of the database scrambled", true, func(t *testing.T, dir string) {
			tables, err := filepath.Glob(filepath.Join(dir, "db-1", "metadata", "*.ldb"))
			require.NoError(t, err)
			logs, err := filepath.Glob(filepath.Join(dir, "db-1", "metadata", "*.log"))
			require.NoError(t, err)
			require.NotEmpty(t, append(tables, logs...))
			for _, name := range append(tables, logs...) {
				info, err := os.Stat(name)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(name, make([]byte, info.Size()), 0o644))
			}
		}, 0, "db-2"},
		{"coins of the database gone", true, func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, cleanName))) // or the database would be believed
			db, err := database.Open("ffldb", filepath.Join(dir, "db-1"), chaincfg.RegressionNetParams.Net)
			require.NoError(t, err)
			require.NoError(t, db.Update(func(tx database.Tx) error {
				coins := tx.Metadata().Bucket([]byte("utxosetv2"))
				var keys [][]byte
				require.NoError(t, coins.ForEach(func(key, _ []byte) error {
					keys = append(keys, bytes.Clone(key))
					return nil
				}))
				require.NotEmpty(t, keys)
				for _, key := range keys {
					require.NoError(t, coins.Delete(key))
				}
				return nil
			}))
			require.NoError(t, db.Close())
		}, 0, "db-2"},
		{"half a record at the end of the log", false, func(t *testing.T, dir string) {
			name := filepath.Join(dir, logName)
			info, err := os.Stat(name)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(name, info.Size()-1))
		}, 1, "db-1"},
		{"database ahead of the log", true, func(t *testing.T, dir string) {
			name := filepath.Join(dir, logName)
			info, err := os.Stat(name)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(name, info.Size()-1))
		}, 1, "db-2"},
		{"zeros at the end of the log", false, func(t *testing.T, dir string) {
			appendTo(t, dir, make([]byte, 4096))
		}, 0, "db-1"},
		{"rubbish at the end of the log", false, func(t *testing.T, dir string) {
			appendTo(t, dir, []byte("rubbish"))
		}, 0, "db-1"},
		{"clean, but the log has grown", true, func(t *testing.T, dir string) {
			appendTo(t, dir, []byte("rubbish"))
		}, 0, "db-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openChain(t, dir, quick)
			hashes, err := c.Generate(3)
			require.NoError(t, err)
			coins := len(c.wallet.coins)
			if tt.clean {
				require.NoError(t, c.Close())
			} else {
				c.crash(t)
			}
			tt.damage(t, dir)

			c = openChain(t, dir, quick)
			require.Equal(t, hashes[2-tt.lost], c.Tip())
			if tt.lost == 0 {
				require.Len(t, c.wallet.coins, coins)
			}
			require.Equal(t, tt.db, c.dbDir)
			mineForeign(t, c)
			require.NotEmpty(t, template(t, c).Transactions)
			require.NoError(t, c.Close())
			c = openChain(t, dir, quick)
			require.EqualValues(t, bootstrapBlocks+4-tt.lost, c.Height())
		})
	}
}

func appendTo(t *testing.T, dir string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, logName), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.Write(b)
	require.NoError(t, errors.Join(err, f.Close()))
}

// An older copy of the database, which says of itself that it was closed in good order, beside the whole log.
func TestOpenWithOlderDatabase(t *testing.T) {
	dir, saved := t.TempDir(), t.TempDir()
	c := openChain(t, dir, quick)
	require.NoError(t, c.Close())
	require.NoError(t, os.CopyFS(saved, os.DirFS(dir)))
	c = openChain(t, dir, quick)
	tip := mineForeign(t, c)
	require.NoError(t, c.Close())

	whole, err := os.ReadFile(filepath.Join(dir, logName))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(saved, logName), whole, 0o644))
	c = openChain(t, saved, quick)
	require.Equal(t, tip, c.Tip())
	require.Equal(t, "db-1", c.dbDir)
	mineForeign(t, c)
}

// btcd may have stored a block and been killed before it connected it. That looks like a block on a side branch.
func TestOpenAfterCrashWithSideBranch(t *testing.T) {
	dir := t.TempDir()
	c := openChain(t, dir, quick)
	fork := c.Tip()
	tip := mineForeign(t, c)
	side, err := c.GenerateFrom(fork, 1)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, cleanName)))

	c = openChain(t, dir, quick)
	require.Equal(t, "db-2", c.dbDir)
	require.NoDirExists(t, filepath.Join(dir, "db-1"))
	require.Equal(t, tip, c.Tip())
	n, err := c.Confirmations(t.Context(), side[0])
	require.NoError(t, err)
	require.EqualValues(t, -1, n)
	require.NoError(t, c.Close())

	c = openChain(t, dir, quick) // side branches are no reason after a good Close
	require.Equal(t, "db-2", c.dbDir)
}

// The crash came after a block was written and before it was judged: a good one is there afterwards, a bad one not.
func TestOpenAfterCrashBeforeVerdict(t *testing.T) {
	for _, good := range []bool{true, false} {
		t.Run(fmt.Sprintf("good %v", good), func(t *testing.T) {
			dir := t.TempDir()
			c := openChain(t, dir, quick)
			tip := c.Tip()
			b := buildBlock(t, template(t, c), foreignScript(t, c))
			if !good {
				b.Transactions[0].TxOut[0].Value++
			}
			raw, hash := solve(t, b), b.BlockHash()
			require.NoError(t, c.log.append(&hash, raw))
			c.crash(t)

			for range 2 {
				c = openChain(t, dir, quick)
				if good {
					require.Equal(t, hash, c.Tip())
				} else {
					require.Equal(t, tip, c.Tip())
					_, err := c.Confirmations(t.Context(), hash)
					require.ErrorIs(t, err, block.ErrUnknownBlock)
				}
				require.NoError(t, c.Close())
			}
		})
	}
}

// The crash came while the first blocks were being mined: they are mined again, whatever is left of them.
func TestOpenAfterCrashInBootstrap(t *testing.T) {
	dir := t.TempDir()
	c := openChain(t, dir, quick)
	want, err := c.BlockHash(bootstrapBlocks - 1)
	require.NoError(t, err)
	half, err := c.BlockHash(bootstrapBlocks / 2)
	require.NoError(t, err)
	offset := c.log.index[half].offset
	c.settings.Ready = false
	require.NoError(t, c.settings.save(dir))
	c.crash(t)
	name := filepath.Join(dir, logName)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	clear(b[offset : offset+100]) // these blocks are not synced one by one
	require.NoError(t, os.WriteFile(name, b, 0o644))

	c = openChain(t, dir, quick)
	require.EqualValues(t, bootstrapBlocks, c.Height())
	got, err := c.BlockHash(bootstrapBlocks - 1)
	require.NoError(t, err)
	require.Equal(t, want, got)
	mineForeign(t, c)
}

// Damage that no crash explains is not repaired by throwing blocks away.
func TestOpenRefusesDamagedLog(t *testing.T) {
	dir := t.TempDir()
	c := openChain(t, dir, quick)
	_, err := c.Generate(3)
	require.NoError(t, err)
	first, err := c.BlockHash(bootstrapBlocks + 1)
	require.NoError(t, err)
	offset := c.log.index[first].offset
	require.NoError(t, c.Close())

	name := filepath.Join(dir, logName)
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	for what, at := range map[string]int64{"block": offset + 100, "size": offset - 8, "checksum": offset - 2, "begin": 2} {
		b := append([]byte(nil), whole...)
		b[at] ^= 0x40
		require.NoError(t, os.WriteFile(name, b, 0o644))
		_, err := Open(dir, &quick)
		require.ErrorIs(t, err, ErrCorrupt, what)
		after, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, b, after, "the log was changed")
	}
	require.NoError(t, os.WriteFile(name, whole, 0o644))
	c = openChain(t, dir, quick)
	require.EqualValues(t, bootstrapBlocks+3, c.Height())
}

const childFolder = "POOLKIT_REGTEST_CHILD"

// TestMain runs the process that TestKill kills.
func TestMain(m *testing.M) {
	dir := os.Getenv(childFolder)
	if dir == "" {
		os.Exit(m.Run())
	}
	fmt.Println("started")
	c, err := Open(dir, &Options{TxsPerBlock: 1, TxInterval: -1, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	for err == nil {
		var hashes []chainhash.Hash
		if hashes, err = c.Generate(1); err == nil {
			fmt.Println(hashes[0])
		}
	}
	fmt.Println("failed:", err)
	os.Exit(1)
}

// A process that mines as fast as it can is killed at random moments, also while it opens the chain. No block that it
// has reported may be missing.
func TestKill(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	var reported []chainhash.Hash
	for round := range 5 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childFolder+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines, wanted := bufio.NewScanner(out), rand.IntN(15)
		if round == 0 {
			wanted = 0 // while the first blocks are being mined, or before
		}
		kill := func() {
			if wanted--; wanted < 0 {
				cmd.Process.Kill() // what it has written until then is still read
			}
		}
		require.True(t, lines.Scan())
		require.Equal(t, "started", lines.Text())
		for kill(); lines.Scan(); kill() {
			hash, err := chainhash.NewHashFromStr(lines.Text())
			require.NoError(t, err, lines.Text())
			reported = append(reported, *hash)
		}
		require.Error(t, cmd.Wait())
	}

	c := openChain(t, dir, quick)
	t.Logf("%d blocks reported in 5 lives, height %d", len(reported), c.Height())
	for i, hash := range reported {
		n, err := c.Confirmations(t.Context(), hash)
		require.NoError(t, err, "block %d of %d is lost", i, len(reported))
		require.Positive(t, n)
	}
	mineForeign(t, c)
}

func FuzzOpenBlockLog(f *testing.F) {
	dir := f.TempDir()
	c := openChain(f, dir, quick)
	require.NoError(f, c.Close())
	whole, err := os.ReadFile(filepath.Join(dir, logName))
	require.NoError(f, err)
	f.Add(whole[:2000])
	f.Add([]byte(logMagic))
	f.Add([]byte{})
	f.Add(append([]byte(logMagic), make([]byte, 100)...))
	name := filepath.Join(dir, "fuzz.log")
	f.Fuzz(func(t *testing.T, b []byte) {
		require.NoError(t, os.WriteFile(name, b, 0o644))
		l, torn, err := openBlockLog(name, true)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		defer l.close()
		if len(b) >= len(logMagic) {
			require.EqualValues(t, len(b), l.size+int64(len(torn)))
		}
		blocks := 0
		require.NoError(t, l.all(func([]byte, bool) error { blocks++; return nil }))
		require.LessOrEqual(t, len(l.index), blocks)
		hash := chainhash.Hash{1}
		require.NoError(t, l.append(&hash, make([]byte, 100)))
		got, err := l.read(&hash)
		require.NoError(t, err)
		require.Len(t, got, 100)
		require.NoError(t, l.undo(&hash))
		require.Error(t, l.undo(&hash))
	})
}
