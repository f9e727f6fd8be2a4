package sharetest

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// Memory is a [share.Sink] that keeps all shares. The zero value is empty and ready for use.
type Memory struct {
	mu      sync.Mutex
	shares  []share.Share
	batches []int
}

// Put keeps a copy of shares.
func (m *Memory) Put(ctx context.Context, shares []share.Share) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shares = append(m.shares, shares...)
	m.batches = append(m.batches, len(shares))
	return nil
}

// Shares returns a copy of all shares, oldest first.
func (m *Memory) Shares() []share.Share {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.shares)
}

// Batches returns the sizes of the batches that were put, oldest first.
func (m *Memory) Batches() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.batches)
}

// Flaky is a [share.Sink] that passes shares on to another one, and fails on command. Its methods may be called while
// Put runs.
type Flaky struct {
	next share.Sink

	mu      sync.Mutex
	err     error // of the failures to come
	fails   int   // how many; below 0 until Heal
	after   bool  // fail after having passed the shares on
	blocked chan struct{}
	calls   int
}

// NewFlaky returns a Flaky in front of next that works until it is told otherwise.
func NewFlaky(next share.Sink) *Flaky { return &Flaky{next: next} }

// FailNext makes the next n calls of Put fail with err before any share is passed on; below 0 means all until
// [Flaky.Heal].
func (f *Flaky) FailNext(n int, err error) { f.fail(n, err, false) }

// LoseReplies makes the next n calls of Put pass their shares on and fail with err all the same, as when a connection
// breaks before the answer; below 0 means all until [Flaky.Heal].
func (f *Flaky) LoseReplies(n int, err error) { f.fail(n, err, true) }

func (f *Flaky) fail(n int, err error, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails, f.err, f.after = n, err, after
}

// Block makes Put wait, until [Flaky.Heal] or the end of its context.
func (f *Flaky) Block() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blocked == nil {
		f.blocked = make(chan struct{})
	}
}

// Heal ends all failing and blocking.
func (f *Flaky) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = 0
	if f.blocked != nil {
		close(f.blocked)
		f.blocked = nil
	}
}

// Calls returns how often Put was called.
func (f *Flaky) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Put passes shares on, or does what it was told to do instead.
func (f *Flaky) Put(ctx context.Context, shares []share.Share) error {
	f.mu.Lock()
	f.calls++
	blocked := f.blocked
	f.mu.Unlock()
	if blocked != nil {
		select {
		case <-blocked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	fails, after, err := f.fails != 0, f.after, f.err
	if f.fails > 0 {
		f.fails--
	}
	f.mu.Unlock()
	if fails && !after {
		return err
	}
	if nextErr := f.next.Put(ctx, shares); nextErr != nil {
		return nextErr
	}
	if fails {
		return err
	}
	return nil
}

func numbered(i int) share.Share {
	const start = 1_700_000_000 // 2023-11-14
	worker := i % 25
	s := share.Share{
		JobID:       job.ID(uint64(start-30+i/1000)<<32 | 0x101),
		WorkerID:    workerIDs[worker],
		UserID:      int32(1 + worker/5),
		Verdict:     share.Accepted,
		Time:        time.Unix(start+int64(i/100), 0).UTC(),
		IP:          netip.AddrFrom4([4]byte{10, 1, byte(worker), byte(1 + i%250)}),
		Difficulty:  difficulty.Difficulty(uint64(8192) << (worker % 4)),
		Bits:        0x17034219,
		Height:      840000,
		Nonce:       uint32(i) * 2654435761, // a bijection, so all differ
		SessionID:   0x01000000 + uint32(worker),
		VersionBits: uint32(i*40503%65536) << 13,
		BitsReached: 0x1903ffff - uint32(i%1000),
	}
	if i%7 == 6 {
		s.Verdict = share.LowDifficulty
	}
	if i%11 == 10 {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint32(a[12:], uint32(worker)+1)
		s.IP = netip.AddrFrom16(a)
	}
	return s
}

// workerIDs are those of machines riga to rigy.
var workerIDs = func() (ids [25]int64) {
	for i := range ids {
		ids[i] = share.Worker{Name: "rig" + string(rune('a'+i))}.ID()
	}
	return ids
}()
