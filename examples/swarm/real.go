package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// work is what -real needs to know of the job at hand.
type work struct {
	difficulty float64 // of the jobs to come; 0 before the first mining.set_difficulty, which means 1
	job        *stratumtest.Job
	exps       []int16 // of an agent's workers, as they were when the job came
}

// maxHashes is what hashing one share may take. A processor does about 5 million a second.
const maxHashes = 1 << 26

// maxPuzzles bounds the shares that wait to be hashed.
const maxPuzzles = 1 << 18

// setWork reads a mining.notify that was found to be one.
func (c *conn) setWork(params []byte) {
	var n sv1.Notify
	if n.Decode(params) != nil {
		c.lane.stats.malformed++
		c.target.job = nil
		return
	}
	d := c.target.difficulty
	if d == 0 {
		d = 1
	}
	c.target.job = &stratumtest.Job{
		ID: n.JobID, PrevHash: n.PrevHash, Coinb1: n.Coinb1, Coinb2: n.Coinb2, Branch: n.Branch,
		Version: n.Version, Bits: n.Bits, NTime: n.NTime, Clean: n.Clean,
		Extranonce1: []byte(c.en1), Extranonce2Size: c.en2Size, VersionMask: c.mask,
		Difficulty: difficulty.Difficulty(d), Target: difficulty.Difficulty(d).Target(),
	}
	if c.agent != nil {
		c.target.exps = slices.Clone(c.agent.exps)
	}
}

// A puzzle is a share to be hashed.
type puzzle struct {
	conn   *conn
	gen    uint32
	epoch  uint32
	job    *stratumtest.Job
	en2    uint64 // as it goes into the submit
	text   []byte // extranonce2
	bits   uint32 // of the version
	target difficulty.Target
	sid    uint16
}

// solve has a share hashed. It returns false when that cannot be.
func (c *conn) solve() bool {
	l := c.lane
	j := c.target.job
	if j == nil {
		return false
	}
	p := puzzle{conn: c, gen: c.gen, epoch: c.epoch, job: j, target: j.Target}
	d := float64(j.Difficulty)
	if a := c.agent; a != nil {
		i := a.next
		p.sid = uint16(i)
		if e := c.target.exps[i]; e >= 0 {
			d = math.Ldexp(1, int(e))
			p.target = difficulty.Difficulty(d).Target()
		}
		a.next = (a.next + 1) % a.workers
		p.en2 = uint64(a.counters[i])
		a.counters[i]++
		text := btcagent.Extranonce2(p.sid, uint32(p.en2))
		p.text = text[:]
	} else {
		p.en2 = c.counter
		c.counter++
		p.text = make([]byte, c.en2Size)
		putExtranonce2(p.text, p.en2)
	}
	if hashes := d * (1 << 32); hashes > maxHashes/8 {
		l.stats.messages.add(fmt.Appendf(nil, "swarm: difficulty %v takes about %.0f hashes a share, too much for -real; "+
			"have the pool give %v or less", difficulty.Difficulty(d), hashes, difficulty.Difficulty(maxHashes/8)/(1<<32)))
		l.stats.heldBack++
		return false
	}
	if c.mask != 0 {
		p.bits = spreadBits(uint32(p.en2), c.mask)
	}
	select {
	case l.swarm.puzzles <- p:
		c.solving++
		return true
	default:
		l.stats.heldBack++
		return false
	}
}

// hash solves puzzles until ctx ends.
func (s *swarm) hash(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-s.puzzles:
			// What has waited too long is passed over quickly, or a pool with many blocks would have all the hashing
			// done for work that is over.
			var nonce uint32
			ok := p.conn.wants(&p)
			if ok {
				nonce, ok = p.search(ctx)
			}
			p.conn.solved(&p, nonce, ok)
		}
	}
}

func (p *puzzle) search(ctx context.Context) (nonce uint32, ok bool) {
	h := p.job.Header(p.text, p.job.NTime, 0, p.bits)
	for n := range uint32(maxHashes) {
		binary.LittleEndian.PutUint32(h[76:], n)
		first := sha256.Sum256(h[:])
		hash := sha256.Sum256(first[:])
		if p.target.MetBy(&hash) {
			return n, true
		}
		if n&0xfff == 0xfff && ctx.Err() != nil {
			break
		}
	}
	return 0, false
}

// wants reports whether a share would still be submitted.
func (c *conn) wants(p *puzzle) bool {
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	return c.gen == p.gen && c.epoch == p.epoch && c.lane.loading && (c.agent == nil || c.job == p.job.ID)
}

// solved submits a share that was found, unless its work has ended.
func (c *conn) solved(p *puzzle, nonce uint32, ok bool) {
	l := c.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.gen != p.gen || l.stopping {
		return
	}
	c.solving--
	now := l.swarm.now()
	if c.phase != phaseLive || !l.loading {
		return
	}
	if !ok || c.epoch != p.epoch || c.agent != nil && c.job != p.job.ID {
		l.stats.discarded++
	} else {
		f := flight{en2: p.en2, size: uint8(len(p.text)), ntime: p.job.NTime, nonce: nonce, version: p.bits}
		job := c.job
		c.job = p.job.ID
		c.send(f, p.sid, now)
		c.job = job
	}
	c.fill()
	c.flush(now)
}
