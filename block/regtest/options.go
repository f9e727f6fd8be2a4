package regtest

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// EasyBits is the compact target of plain regtest, which half of all hashes meet.
const EasyBits uint32 = 0x207fffff

// Options tune a Chain. The zero value is plain regtest with a few transactions in every block.
type Options struct {
	// Bits is the compact target of all blocks but the first ones. It is fixed when a folder is first opened; 0 means
	// what the folder has, and EasyBits for a new one. Any target that is not above EasyBits will do:
	// difficulty.Difficulty(0.01).Target().Bits() asks for 43 million hashes a block, half a minute of one CPU core.
	Bits uint32

	// Seed is what the chain's keys and its choice of transactions are made from: chains with the same seed and the
	// same clock are equal, block for block. It is fixed when a folder is first opened; 0 means what the folder has,
	// and 1 for a new one. Whoever knows the seed can spend the coins, which are worth nothing.
	Seed uint64

	// TxInterval is how often one or two new transactions arrive while someone watches; 0 means 5s, negative never.
	TxInterval time.Duration

	// TxsPerBlock is how many transactions are made at once for every new tip; 0 means 8, negative none,
	// at most 500.
	TxsPerBlock int

	// MaxTxs bounds the transactions that wait for a block, at most 500; 0 means 100, or TxsPerBlock if that is more.
	// When there are as many, no new ones are made until a block takes some.
	MaxTxs int

	// Logger hears of repairs; nil discards.
	Logger *slog.Logger
}

const (
	// maxTxsLimit keeps any template below the weight limit: as many transactions of 8 inputs of 149 virtual bytes are
	// 0.6 of a block.
	maxTxsLimit = 500

	// refreshInterval is how often a template is made anew when nothing but the time has changed.
	refreshInterval = 30 * time.Second
)

// complete checks o and fills in the defaults but for Bits and Seed, which depend on the folder.
func (o *Options) complete() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	var errs []error
	if c.Bits != 0 {
		if err := checkBits(c.Bits); err != nil {
			errs = append(errs, err)
		}
	}
	if c.TxInterval == 0 {
		c.TxInterval = 5 * time.Second
	} else if c.TxInterval > 0 && c.TxInterval < time.Millisecond {
		errs = append(errs, fmt.Errorf("TxInterval %v is below 1ms", c.TxInterval))
	}
	if c.TxsPerBlock == 0 {
		c.TxsPerBlock = 8
	}
	c.TxsPerBlock = max(c.TxsPerBlock, 0)
	switch {
	case c.MaxTxs == 0:
		c.MaxTxs = max(100, min(c.TxsPerBlock, maxTxsLimit))
	case c.MaxTxs < 0 || c.MaxTxs > maxTxsLimit:
		errs = append(errs, fmt.Errorf("MaxTxs %d is not between 1 and %d", c.MaxTxs, maxTxsLimit))
	}
	if c.TxsPerBlock > maxTxsLimit {
		errs = append(errs, fmt.Errorf("TxsPerBlock %d is above %d", c.TxsPerBlock, maxTxsLimit))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(errs...)
}

// checkBits reports whether a chain can be made with bits as its target.
func checkBits(bits uint32) error {
	target, err := difficulty.FromBits(bits)
	if err != nil {
		return fmt.Errorf("bits %08x: %w", bits, err)
	}
	if target.Bits() != bits {
		return fmt.Errorf("bits %08x are not in the shortest form, which is %08x", bits, target.Bits())
	}
	if easiest, _ := difficulty.FromBits(EasyBits); target.Cmp(easiest) > 0 {
		return fmt.Errorf("bits %08x are easier than regtest allows, %08x", bits, EasyBits)
	}
	return nil
}
