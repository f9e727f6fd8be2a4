package stratum

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// Extranonces hands out extranonce1 prefixes. No two live sessions ever hold the same one. Calls may overlap.
type Extranonces interface {
	// Lease returns a prefix that nobody holds, or ErrNoExtranonce.
	Lease(now time.Time) (uint32, error)

	// Release gives a prefix back. It must not be leased again while shares for jobs sent to its last holder are
	// still accepted: a newcomer could replay them. It is called once for each lease, for that of a session which can be
	// resumed only when nobody came back for it.
	Release(prefix uint32, now time.Time)
}

// ErrNoExtranonce is returned when every prefix is in use.
var ErrNoExtranonce = errors.New("stratum: no extranonce prefix is free")

// maxPrefixIndex is the highest of the 16,777,214 indices below one server id, as BTCPool's authors count them.
const maxPrefixIndex = 0xfffffd

// A Prefixes allocator hands out prefixes of one server: its id in the top byte and an index below. It moves on from
// the last one handed out, so a prefix comes round again as late as possible, and never before its quarantine is over.
type Prefixes struct {
	server     uint32
	quarantine time.Duration

	mu     sync.Mutex
	next   uint32
	held   []uint64 // a bit an index: leased or in quarantine
	free   int
	queue  []released // oldest first
	queued int        // entries of queue that are taken off already
}

type released struct {
	prefix uint32
	at     time.Time
}

// NewPrefixes returns an allocator for the server with the given id, 1 to 255. A quarantine of 0 means 10 minutes,
// twice as long as jobs live.
func NewPrefixes(serverID uint8, quarantine time.Duration) *Prefixes {
	if quarantine == 0 {
		quarantine = 10 * time.Minute
	}
	return &Prefixes{server: uint32(serverID) << 24, quarantine: quarantine, held: make([]uint64, (maxPrefixIndex+64)/64), free: maxPrefixIndex + 1}
}

// Lease implements [Extranonces].
func (p *Prefixes) Lease(now time.Time) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endQuarantine(now)
	if p.free == 0 {
		return 0, ErrNoExtranonce
	}
	for {
		i := p.next
		if i%64 == 0 && p.held[i/64] == math.MaxUint64 && i+64 <= maxPrefixIndex {
			p.next += 64
			continue
		}
		if p.next++; p.next > maxPrefixIndex {
			p.next = 0
		}
		if word, bit := &p.held[i/64], uint64(1)<<(i%64); *word&bit == 0 {
			*word |= bit
			p.free--
			return p.server | i, nil
		}
	}
}

// Reserve implements [Reserver].
func (p *Prefixes) Reserve(prefix uint32, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endQuarantine(now)
	i := prefix &^ (0xff << 24)
	if prefix&(0xff<<24) != p.server || i > maxPrefixIndex {
		return fmt.Errorf("stratum: reserve extranonce %08x: it is not of server %d", prefix, p.server>>24)
	}
	word, bit := &p.held[i/64], uint64(1)<<(i%64)
	if *word&bit != 0 {
		return fmt.Errorf("stratum: reserve extranonce %08x: it is in use", prefix)
	}
	*word |= bit
	p.free--
	return nil
}

// position returns the prefix that would be handed out next if it were free.
func (p *Prefixes) position() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server | p.next
}

// moveTo goes on from a position, if it is one of this server id.
func (p *Prefixes) moveTo(prefix uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := prefix &^ (0xff << 24); prefix&(0xff<<24) == p.server && i <= maxPrefixIndex {
		p.next = i
	}
}

// Release implements [Extranonces].
func (p *Prefixes) Release(prefix uint32, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, released{prefix, now})
	p.endQuarantine(now)
}

func (p *Prefixes) endQuarantine(now time.Time) {
	for p.queued < len(p.queue) && now.Sub(p.queue[p.queued].at) >= p.quarantine {
		i := p.queue[p.queued].prefix &^ p.server
		if word, bit := &p.held[i/64], uint64(1)<<(i%64); *word&bit != 0 {
			*word &^= bit
			p.free++
		}
		p.queued++
	}
	if p.queued > len(p.queue)/2 {
		n := copy(p.queue, p.queue[p.queued:])
		p.queue, p.queued = p.queue[:n], 0
	}
}
