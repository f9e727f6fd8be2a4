package job

import (
	"fmt"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
)

// A Chain names the block chain that a job belongs to, as the operator's configuration spells it: "btc", "bch",
// "regtest". Servers that mine one chain only may leave it empty.
type Chain string

// An ID names a job across all processes of a pool. The upper 32 bits are the job's Unix time, the next 24 a counter
// within that second and the lowest 8 the id of the job maker, so numeric order is the order of creation.
type ID uint64

// Time returns the second in which the job was made.
func (id ID) Time() time.Time { return time.Unix(int64(id>>32), 0) }

// String returns id in decimal, the form of logs and JSON messages.
func (id ID) String() string { return fmt.Sprintf("%d", uint64(id)) }

// An IDs generator hands out job IDs that only ever grow, even when the clock steps back. The zero value serves maker
// 0; it is not safe for concurrent use.
type IDs struct {
	// Maker tells the job makers of one pool apart; BTCPool hands out 1 to 255.
	Maker uint8

	last ID
}

// Next returns the ID of a job made at now.
func (g *IDs) Next(now time.Time) ID {
	id := ID(uint64(uint32(now.Unix()))<<32 | uint64(g.Maker))
	if id <= g.last {
		// The clock stands still or went back: count on from the last one. The counter's carry into the time needs
		// 2^24 jobs in one second.
		id = g.last + 0x100
	}
	g.last = id
	return id
}

// A Hash is an alias that keeps signatures short; the bytes are in memory order, as SHA-256d returns them, and String
// prints the reverse.
type Hash = chainhash.Hash

// Target is an alias of [difficulty.Target].
type Target = difficulty.Target
