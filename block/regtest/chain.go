package regtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/database"
	_ "github.com/btcsuite/btcd/database/ffldb" // the database
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/internal/dirlock"
	"github.com/poolkit/poolkit/job"
)

// Conditions that callers branch on.
var (
	// ErrClosed is returned by the methods of a closed Chain.
	ErrClosed = errors.New("chain is closed")

	// ErrLocked is returned by Open for a folder that is open already, in this process or another one.
	ErrLocked = errors.New("folder is in use by another process")
)

// Names in the folder.
const (
	settingsName = "chain.json"
	logName      = "blocks.log"
	tornName     = "blocks.torn" // what was cut off the log after a crash
	lockName     = "lock"
	cleanName    = "db.clean" // exists while the database is closed and complete
	dbPrefix     = "db-"      // a number follows, so that a broken database need not be gone before the next one
)

// A Chain is one block chain and the wallet that keeps it busy. All methods may be called at any time and by any
// number of goroutines.
type Chain struct {
	opts     Options
	settings settings
	dir      string
	temp     bool // dir goes away with the Chain
	params   *chaincfg.Params
	address  address.Address
	clock    *clock
	lock     io.Closer
	done     chan struct{} // closed by Close

	genMu sync.Mutex // held while mining, so that calls do not outdate each other

	mu     sync.Mutex // guards all that follows; chain, once set, may be read without
	closed bool
	failed error // the chain cannot go on until it is opened again
	log    *blockLog
	db     database.DB
	dbDir  string
	chain  *blockchain.BlockChain
	wallet *wallet

	connected    []*btcutil.Block // by the block in process
	disconnected bool
	invalid      map[chainhash.Hash]string // blocks that btcd has found invalid after storing them, and why
	invalidOrder []chainhash.Hash

	waiting []*pendingTx
	batches int // of transactions made on this tip
	nextTx  time.Time
	tmpl    *job.Template
	changed chan struct{}
}

// Open opens the chain in a folder, or makes a new one in a folder that is not there or empty; opts may be nil. With
// an empty name the chain lives in a temporary folder that Close removes and nothing is synced to the disk.
//
// A new chain mines its first 108 blocks, so that it has coins to move, which takes a fraction of a second whatever
// Bits are. After a crash the blocks of the last minutes are judged again, or all of them, at some hundred a second.
// Errors match [ErrLocked] when the folder is open already and [ErrCorrupt] when blocks have been lost by other means
// than a crash; a chain made with other Bits or another Seed than opts ask for is refused.
func Open(dir string, opts *Options) (*Chain, error) {
	o, err := opts.complete()
	if err != nil {
		return nil, fmt.Errorf("regtest: options: %w", err)
	}
	c := &Chain{
		opts:    o,
		dir:     dir,
		temp:    dir == "",
		clock:   new(clock),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
		invalid: make(map[chainhash.Hash]string),
	}
	if err := c.open(); err != nil {
		return nil, fmt.Errorf("regtest: open: %w", errors.Join(err, c.close(false)))
	}
	return c, nil
}

func (c *Chain) open() (err error) {
	if c.temp {
		if c.dir, err = os.MkdirTemp("", "poolkit-regtest-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	lock, err := dirlock.Lock(filepath.Join(c.dir, lockName))
	if errors.Is(err, dirlock.ErrLocked) {
		err = ErrLocked
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.dir, err)
	}
	c.lock = lock
	if c.settings, err = loadSettings(c.dir, &c.opts); err != nil {
		return err
	}
	bits, err := c.settings.bits()
	if err != nil {
		return err
	}
	c.opts.Bits, c.opts.Seed = bits, c.settings.Seed
	c.params = newParams(bits)
	if c.address, err = throwawayAddress(c.params, c.opts.Seed); err != nil {
		return err
	}
	switch genesis := c.params.GenesisHash.String(); c.settings.Genesis {
	case "":
		c.settings.Genesis, c.settings.Address = genesis, c.address.String()
		if err := c.settings.save(c.dir); err != nil {
			return err
		}
	case genesis:
	default:
		return fmt.Errorf("%s: the chain begins with block %s, this program would begin it with %s", c.dir,
			c.settings.Genesis, genesis)
	}

	if !c.settings.Ready {
		if err := c.startOver(); err != nil {
			return err
		}
	}
	var torn []byte
	if c.log, torn, err = openBlockLog(filepath.Join(c.dir, logName), c.temp); err != nil {
		return err
	}
	if len(bytes.Trim(torn, "\x00")) > 0 {
		name := filepath.Join(c.dir, tornName)
		c.opts.Logger.Warn("regtest: the last block was not written to its end and is set aside", "file", name,
			"bytes", len(torn))
		if err := writeFile(name, torn); err != nil {
			return err
		}
	}
	if c.wallet, err = newWallet(c.params, c.opts.Seed); err != nil {
		return err
	}
	if err := c.openDatabase(); err != nil {
		return err
	}
	if c.settings.Ready {
		return nil
	}
	c.log.noSync = true // a crash in here is answered by starting over, so nothing needs to be on disk yet
	if err := c.bootstrap(); err != nil {
		return err
	}
	c.log.noSync = c.temp
	if err := c.log.sync(); err != nil {
		return err
	}
	if err := c.checkpoint(); err != nil {
		return err
	}
	c.settings.Ready = true
	return c.settings.save(c.dir)
}

// startOver removes what a crash has left of the first blocks. They will be the same again.
func (c *Chain) startOver() error {
	names, err := filepath.Glob(filepath.Join(c.dir, dbPrefix+"*"))
	if err != nil {
		return err
	}
	for _, name := range append(names, filepath.Join(c.dir, logName), filepath.Join(c.dir, cleanName)) {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// checkpoint brings the database to the disk, which btcd does at its end and every few minutes. Nobody else may be
// using it.
func (c *Chain) checkpoint() error {
	if c.temp {
		return nil
	}
	name := c.dbDir
	err := errors.Join(c.chain.FlushUtxoCache(blockchain.FlushRequired), c.db.Close())
	c.db, c.chain = nil, nil
	if err != nil {
		return err
	}
	return c.startChain(name, false)
}

// A cleanMark is the content of db.clean: which database is complete, and for which log.
type cleanMark struct {
	Database string `json:"database"`
	LogSize  int64  `json:"log_size"`
	Tip      string `json:"tip"`
}

// openDatabase opens the database. One that was closed in good order is complete. After a crash it may be minutes
// behind the log, and is caught up; whenever anything looks wrong with it, a new one is built from the log.
func (c *Chain) openDatabase() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	newest := 0
	for _, e := range entries {
		newest = max(newest, dbNumber(e.Name()))
	}
	mark, err := c.takeCleanMark()
	if err != nil {
		return err
	}
	if newest > 0 {
		err := c.reopenDatabase(fmt.Sprintf("%s%d", dbPrefix, newest), mark)
		if err == nil {
			return nil
		}
		c.opts.Logger.Warn("regtest: the database will be built anew", "error", err)
		if c.db != nil {
			c.db.Close()
			c.db, c.chain = nil, nil
		}
	}
	for _, e := range entries {
		if dbNumber(e.Name()) > 0 {
			// On some systems what a failed attempt left open cannot be removed yet. The next one gets another name.
			if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
				c.opts.Logger.Warn("regtest: an old database stays behind", "error", err)
			}
		}
	}
	if err := c.startChain(fmt.Sprintf("%s%d", dbPrefix, newest+1), true); err != nil {
		return err
	}
	if err := c.replay(); err != nil {
		return err
	}
	return c.rescan()
}

// dbNumber returns the number of a database, 0 for other names.
func dbNumber(name string) int {
	digits, ok := strings.CutPrefix(name, dbPrefix)
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 0 || n > 1<<30 {
		return 0
	}
	return n
}

// takeCleanMark reads db.clean and removes it: from then on the database is not to be trusted, until Close says so
// again. It returns nil when there is none.
func (c *Chain) takeCleanMark() (*cleanMark, error) {
	name := filepath.Join(c.dir, cleanName)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := os.Remove(name); err != nil {
		return nil, err
	}
	mark := new(cleanMark)
	if json.Unmarshal(b, mark) != nil {
		mark = nil
	}
	return mark, dirlock.SyncDir(c.dir)
}

// reopenDatabase opens a database that was used before, brings it to the end of the log and the wallet with it, and
// returns an error if it cannot be trusted.
func (c *Chain) reopenDatabase(name string, mark *cleanMark) error {
	if err := c.startChain(name, false); err != nil {
		return err
	}
	if mark != nil && mark.Database == name && mark.LogSize == c.log.size {
		if c.Tip().String() != mark.Tip {
			return fmt.Errorf("tip %v, want %s", c.Tip(), mark.Tip)
		}
		return c.rescan()
	}
	// btcd stores a block before it connects it, and a crash may have come between the two; then it would never
	// connect it. Blocks on side branches look the same. With either, start over.
	err := c.log.all(func(raw []byte, _ bool) error {
		hash := chainhash.DoubleHashH(raw[:80])
		have, err := c.chain.HaveBlock(&hash)
		if err == nil && have && !c.chain.MainChainHasBlock(&hash) {
			err = fmt.Errorf("block %v is stored but not on the best chain", hash)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := c.replay(); err != nil {
		return err
	}
	if err := c.rescan(); err != nil {
		return err
	}
	for i := range c.wallet.coins {
		switch e, err := c.chain.FetchUtxoEntry(c.wallet.coins[i].op); {
		case err != nil:
			return err
		case e == nil || e.IsSpent():
			return fmt.Errorf("coin %v is not where the blocks left it", c.wallet.coins[i].op)
		}
	}
	return nil
}

// startChain opens or creates the database in a sub-folder and starts btcd's chain on it.
func (c *Chain) startChain(name string, create bool) (err error) {
	defer func() {
		if p := recover(); p != nil { // btcd trusts what it reads
			err = fmt.Errorf("database %s: panic: %v", name, p)
		}
	}()
	open := database.Open
	if create {
		open = database.Create
	}
	db, err := open("ffldb", filepath.Join(c.dir, name), c.params.Net)
	if err != nil {
		return fmt.Errorf("database %s: %w", name, err)
	}
	c.db, c.dbDir = db, name
	chain, err := blockchain.New(&blockchain.Config{
		DB:               db,
		UtxoCacheMaxSize: 4 << 20,
		ChainParams:      c.params,
		TimeSource:       c.clock,
		SigCache:         txscript.NewSigCache(5000), // what checks of templates have found need not be found again
		HashCache:        txscript.NewHashCache(1000),
	})
	if err != nil {
		return fmt.Errorf("database %s: %w", name, err)
	}
	chain.Subscribe(c.notified)
	c.chain = chain
	c.clock.floor.Store(chain.BestSnapshot().MedianTime.Unix())
	return nil
}

// replay judges all blocks of the log that the database does not have.
func (c *Chain) replay() error {
	c.clock.replay.Store(true)
	defer c.clock.replay.Store(false)
	began, n := time.Now(), 0
	var unproven *chainhash.Hash
	err := c.log.all(func(raw []byte, last bool) error {
		hash := chainhash.DoubleHashH(raw[:80])
		if have, err := c.chain.HaveBlock(&hash); err != nil || have {
			return err
		}
		b, err := parseBlock(bytes.Clone(raw))
		if err == nil {
			_, err = c.process(b)
		}
		if rule := (blockchain.RuleError{}); last && errors.As(err, &rule) {
			// The crash came between writing the block and judging it: nobody was told that it is good.
			unproven = &hash
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: block %v: %w", ErrCorrupt, hash, err)
		}
		n++
		return nil
	})
	if err != nil {
		return err
	}
	if unproven != nil {
		if err := c.log.undo(unproven); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	c.opts.Logger.Info("regtest: the database has caught up with the log", "blocks", n, "height", c.Height(),
		"took", time.Since(began))
	return c.checkpoint()
}

// rescan builds the wallet from the best chain.
func (c *Chain) rescan() error {
	c.wallet.reset()
	for height, tip := int32(1), c.Height(); height <= tip; height++ {
		hash, err := c.chain.BlockHashByHeight(height)
		if err != nil {
			return err
		}
		b, err := c.block(hash)
		if err != nil {
			return err
		}
		c.wallet.connect(btcutil.NewBlock(b), height)
	}
	return nil
}

// Close ends all Watch and Generate calls and closes the folder. A second Close does nothing.
func (c *Chain) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	if err := c.close(c.failed == nil); err != nil {
		return fmt.Errorf("regtest: close: %w", err)
	}
	return nil
}

// close gives everything back, as far as it was opened. good says whether the database is what the log says.
func (c *Chain) close(good bool) error {
	c.closed = true
	close(c.done)
	c.announce()
	var errs []error
	if c.chain != nil && good && !c.temp {
		errs = append(errs, c.chain.FlushUtxoCache(blockchain.FlushRequired))
	}
	if c.db != nil {
		errs = append(errs, c.db.Close())
	}
	if c.log != nil {
		if good && !c.temp && errors.Join(errs...) == nil {
			mark, err := json.Marshal(cleanMark{c.dbDir, c.log.size, c.Tip().String()})
			if err == nil {
				err = writeFile(filepath.Join(c.dir, cleanName), mark)
			}
			errs = append(errs, err)
		}
		errs = append(errs, c.log.close())
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	if c.temp && c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// usable returns why the chain can do nothing. c.mu is held.
func (c *Chain) usable() error {
	if c.closed {
		return ErrClosed
	}
	return c.failed
}

// fail stops the chain: it is not known what the database holds. c.mu is held.
func (c *Chain) fail(err error) error {
	c.failed = fmt.Errorf("the chain must be opened anew: %w", err)
	c.announce()
	return c.failed
}

// Params returns the rules of the chain, for checking and making addresses among other things. They are regtest's,
// with another genesis block and target when [Options.Bits] ask for that. They must not be changed.
func (c *Chain) Params() *chaincfg.Params { return c.params }

// Bits returns the compact target of the chain's blocks, in the end that of [Options.Bits].
func (c *Chain) Bits() uint32 { return c.opts.Bits }

// ThrowawayAddress returns an address (P2WPKH) that nobody but the holder of the chain's seed can spend from, for a
// pool that was given none. It is the same whenever the folder is opened, and the chain's own transactions never pay
// it.
func (c *Chain) ThrowawayAddress() address.Address { return c.address }

// Height returns the height of the tip.
func (c *Chain) Height() int32 { return c.chain.BestSnapshot().Height }

// Tip returns the hash of the last block of the best chain.
func (c *Chain) Tip() chainhash.Hash { return c.chain.BestSnapshot().Hash }

// BlockHash returns the block at a height of the best chain, or an error that matches [block.ErrUnknownBlock].
func (c *Chain) BlockHash(height int32) (chainhash.Hash, error) {
	hash, err := c.chain.BlockHashByHeight(height)
	if err != nil {
		return chainhash.Hash{}, fmt.Errorf("regtest: block at height %d of %d: %w", height, c.Height(),
			block.ErrUnknownBlock)
	}
	return *hash, nil
}

// Block returns any block that the chain has taken, on the best chain or not, or an error that matches
// [block.ErrUnknownBlock].
func (c *Chain) Block(hash chainhash.Hash) (*wire.MsgBlock, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.block(&hash)
	if err != nil {
		return nil, fmt.Errorf("regtest: block %v: %w", hash, err)
	}
	return b, nil
}

// block reads a block. c.mu is held.
func (c *Chain) block(hash *chainhash.Hash) (*wire.MsgBlock, error) {
	if *hash == *c.params.GenesisHash {
		return c.params.GenesisBlock.Copy(), nil
	}
	if c.closed {
		return nil, ErrClosed
	}
	raw, err := c.log.read(hash)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, block.ErrUnknownBlock
	}
	b := new(wire.MsgBlock)
	return b, b.Deserialize(bytes.NewReader(raw))
}

// has reports whether the chain has taken a block. c.mu is held.
func (c *Chain) has(hash *chainhash.Hash) bool {
	return *hash == *c.params.GenesisHash || c.log.has(hash)
}

// Confirmations returns how deep a block is: 1 for the tip, -1 for a good block that is not on the best chain, and an
// error that matches [block.ErrUnknownBlock] for one that the chain has never seen or has refused.
func (c *Chain) Confirmations(ctx context.Context, hash chainhash.Hash) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("regtest: confirmations: %w", err)
	}
	c.mu.Lock() // the tip stays where it is
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return 0, fmt.Errorf("regtest: confirmations: %w", err)
	}
	if !c.has(&hash) {
		return 0, fmt.Errorf("regtest: confirmations of %v: %w", hash, block.ErrUnknownBlock)
	}
	height, err := c.chain.BlockHeightByHash(&hash)
	if err != nil {
		return -1, nil
	}
	return int64(c.Height()-height) + 1, nil
}
