package stratumtest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/bits"
	"sync"
	"time"

	"github.com/poolkit/poolkit/difficulty"
)

// work is what Run's threads search at the moment.
type work struct {
	job      *Job          // nil before the first
	epoch    uint64        // counts the clean jobs so far
	replaced chan struct{} // closed when there is newer work
}

// chunk is how many hashes a thread does before it looks up: about a millisecond's worth.
const chunk = 4096

// A unit is 2^32 headers that differ in the nonce.
type unit struct {
	job         *Job
	extranonce2 []byte
	versionBits uint32
	header      [80]byte
}

// newUnit returns headers that no other unit of this miner has: unit n has n in extranonce2 and, spread over the mask,
// in the version bits. After the first one, rolled versions are the rule.
func (m *Miner) newUnit(j *Job) *unit {
	n := m.units.Add(1) - 1
	u := &unit{job: j, extranonce2: make([]byte, j.Extranonce2Size), versionBits: spread(uint32(n), j.VersionMask)}
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], n)
	size := min(len(u.extranonce2), len(counter))
	copy(u.extranonce2[len(u.extranonce2)-size:], counter[len(counter)-size:])
	u.header = j.Header(u.extranonce2, j.NTime, 0, u.versionBits)
	return u
}

// spread puts the low bits of n where mask has ones.
func spread(n, mask uint32) (v uint32) {
	for ; mask != 0; mask &= mask - 1 {
		v |= n & 1 << bits.TrailingZeros32(mask)
		n >>= 1
	}
	return v
}

// search tries count nonces from the given one on, at most up to the last there is.
func (u *unit) search(from uint32, count uint64, target difficulty.Target) (nonce uint32, found bool) {
	h := u.header // on the stack
	for n := uint64(from); n < uint64(from)+count && n <= math.MaxUint32; n++ {
		binary.LittleEndian.PutUint32(h[76:], uint32(n))
		first := sha256.Sum256(h[:])
		hash := sha256.Sum256(first[:])
		if target.MetBy(&hash) {
			return uint32(n), true
		}
	}
	return 0, false
}

func (u *unit) share(nonce uint32) Share {
	return u.job.Share(u.extranonce2, u.job.NTime, nonce, u.versionBits)
}

// Run logs in unless Handshake did, and then mines: it submits every share that meets its job's target, goes on to new
// jobs as they come, and after a clean one submits nothing of the work before. When ctx ends it waits up to two seconds
// for the replies still due, closes the miner and returns nil. It returns an error when the login is refused or the
// connection ends.
//
// Without a limit of the hashrate it uses [MinerOptions.Threads] processors up. Inside a testing/synctest bubble the
// limit is needed: time passes there only while everything waits.
func (m *Miner) Run(ctx context.Context) error {
	defer m.Close()
	if err := m.Handshake(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	hashing, stop := context.WithCancel(ctx)
	defer stop()
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx)) // outlives hashing, to finish what was begun
	defer stopWriting()
	var threads sync.WaitGroup
	for range m.opts.Threads {
		threads.Go(func() { m.mine(hashing, writing) })
	}
	select {
	case <-ctx.Done():
	case <-m.done:
	}
	stop()
	defer time.AfterFunc(drainTimeout, stopWriting).Stop()
	threads.Wait()
	if ctx.Err() == nil {
		return m.err
	}
	m.drain(writing)
	return nil
}

// drain waits until no submit is without a reply.
func (m *Miner) drain(ctx context.Context) {
	for range cap(m.slots) {
		select {
		case m.slots <- struct{}{}:
		case <-m.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// mine is one thread. It takes up new work between chunks, and ends with ctx; writing ends later.
func (m *Miner) mine(ctx, writing context.Context) {
	rate := float64(m.opts.Hashrate) / float64(m.opts.Threads)
	p := pacer{rate: rate}
	step := uint64(chunk)
	if rate > 0 {
		step = uint64(min(max(rate/10, 1), chunk))
	}
	var w *work
	var u *unit
	var nonce uint64
	for p.wait(ctx) {
		if now := m.current.Load(); now != w || nonce > math.MaxUint32 {
			w, u, nonce = now, nil, 0
			if w.job == nil {
				select {
				case <-w.replaced:
				case <-ctx.Done():
				}
				continue
			}
			u = m.newUnit(w.job)
		}
		n, found := u.search(uint32(nonce), step, u.job.Target)
		done := step
		if found {
			done = uint64(n) - nonce + 1
		}
		nonce += done
		m.hashes.Add(done)
		p.spend(done)
		if found && !m.submitFound(ctx, writing, w, u.share(n)) {
			return
		}
	}
}

// submitFound writes a share and does not wait for the reply. It returns false when the miner must stop.
func (m *Miner) submitFound(ctx, writing context.Context, w *work, s Share) bool {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	case <-m.done:
		return false
	}
	if m.current.Load().epoch != w.epoch || ctx.Err() != nil {
		<-m.slots // the job became stale, or it is time to stop
		return true
	}
	c := m.submission(&s)
	c.slot = true
	if _, err := m.send(writing, c, m.submitRequest(&s)); err != nil {
		return false
	}
	return true
}

// A pacer holds a thread to a number of hashes per second.
type pacer struct {
	rate float64 // 0: no limit
	next time.Time
}

// wait returns false when ctx has ended.
func (p *pacer) wait(ctx context.Context) bool {
	if p.rate > 0 {
		if d := time.Until(p.next); d > 0 {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		}
	}
	return ctx.Err() == nil
}

func (p *pacer) spend(hashes uint64) {
	if p.rate <= 0 {
		return
	}
	if now := time.Now(); p.next.Before(now.Add(-time.Second)) {
		p.next = now // what was missed for more than a second is not made up for
	}
	p.next = p.next.Add(time.Duration(float64(hashes) / p.rate * float64(time.Second)))
}
