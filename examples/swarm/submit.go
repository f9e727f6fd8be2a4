package main

import (
	"encoding/hex"
	"math/bits"
	"strconv"
	"time"
)

// startLoad begins to submit on a connection that has logged in. Those at a rate start at moments spread over their
// interval, so that together they make an even stream.
func (c *conn) startLoad(now int64) {
	cfg := c.lane.swarm.cfg
	if cfg.rate > 0 {
		c.due = now + c.lane.rng.Int64N(c.interval()+1)
		c.lane.schedule(c, c.due)
	}
	c.fill()
}

// interval is the time between submits.
func (c *conn) interval() int64 {
	rate := c.lane.swarm.cfg.rate
	if c.agent != nil {
		rate *= float64(c.agent.workers)
	}
	return int64(max(float64(time.Second)/rate, 1))
}

// submitDue sends what -rate demands by now.
func (c *conn) submitDue(now int64) {
	l := c.lane
	if !l.loading || l.swarm.cfg.rate == 0 {
		return
	}
	interval := c.interval()
	if behind := (now - int64(time.Second) - c.due) / interval; behind > 0 {
		// More than a second late, which is this program's fault; a burst would only hide that.
		l.stats.missed += uint64(behind)
		c.due += behind * interval
	}
	for ; c.due <= now; c.due += interval {
		if c.canSubmit() {
			c.submit(now)
		}
	}
	l.schedule(c, c.due)
}

// fill brings the submits in flight up to -inflight.
func (c *conn) fill() {
	l := c.lane
	n := l.swarm.cfg.inflight
	if n == 0 || !l.loading || !c.canSubmit() {
		return
	}
	if c.agent != nil && !c.agent.subres {
		return // nothing would ever say that one has landed
	}
	for now := l.swarm.now(); c.flights.open+c.solving < n; {
		if !c.submit(now) {
			return
		}
	}
}

func (c *conn) canSubmit() bool {
	return c.phase == phaseLive && c.job != "" && (c.agent == nil || c.agent.hasJob)
}

// submit makes a share and sends it, or has it hashed first. It returns false when it cannot.
func (c *conn) submit(now int64) bool {
	if c.lane.swarm.cfg.real {
		return c.solve()
	}
	n := c.counter
	c.counter++
	// An odd factor makes the nonces unlike each other, and the first 2^32 all different.
	f := flight{en2: n, size: uint8(c.en2Size), ntime: c.ntime, nonce: uint32(n)*2654435761 + uint32(c.lane.swarm.cfg.seed)}
	if c.mask != 0 {
		f.version = spreadBits(uint32(n), c.mask)
	}
	sid := uint16(0)
	if a := c.agent; a != nil {
		sid = uint16(a.next)
		f.en2 = uint64(a.counters[a.next])
		a.counters[a.next]++
		a.next = (a.next + 1) % a.workers
	}
	return c.send(f, sid, now)
}

// send submits a share, and keeps it until the reply.
func (c *conn) send(f flight, sid uint16, now int64) bool {
	l := c.lane
	if c.agent != nil && !c.agent.subres {
		l.stats.submits++
		l.stats.untold++
		c.flights.first, c.flights.next = c.flights.next+1, c.flights.next+1 // the pool counts it all the same
		l.out = c.appendFrame(l.out, sid, &f)
		return true
	}
	fl, number := c.flights.push(l.swarm.cfg.maxPending)
	if fl == nil {
		l.stats.heldBack++
		return false
	}
	f.at, f.job, f.epoch, f.open = now, c.job, c.epoch, true
	*fl = f
	l.open++
	l.stats.submits++
	if c.agent != nil {
		l.out = c.appendFrame(l.out, sid, &f)
	} else {
		l.out = c.appendSubmit(l.out, number, fl)
	}
	return true
}

// appendSubmit appends mining.submit. The text is put together by hand: at 200,000 a second an encoder shows.
func (c *conn) appendSubmit(dst []byte, number uint32, f *flight) []byte {
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendUint(dst, uint64(number)+firstSubmit, 10)
	dst = append(dst, `,"method":"mining.submit","params":[`...)
	dst = append(dst, c.user...)
	dst = append(dst, `,"`...)
	dst = append(dst, f.job...)
	dst = append(dst, `","`...)
	dst = appendExtranonce2(dst, f.en2, int(f.size))
	dst = append(dst, `","`...)
	dst = appendHex32(dst, f.ntime)
	dst = append(dst, `","`...)
	dst = appendHex32(dst, f.nonce)
	if c.mask != 0 {
		dst = append(dst, `","`...)
		dst = appendHex32(dst, f.version)
	}
	return append(dst, "\"]}\n"...)
}

// putExtranonce2 writes a counter into the size bytes of an extranonce2, big-endian.
func putExtranonce2(dst []byte, n uint64) {
	clear(dst)
	for i := len(dst) - 1; i >= 0 && n != 0; i-- {
		dst[i] = byte(n)
		n >>= 8
	}
}

func appendExtranonce2(dst []byte, n uint64, size int) []byte {
	var b [maxExtranonce2]byte
	putExtranonce2(b[:size], n)
	return hex.AppendEncode(dst, b[:size])
}

func appendHex32(dst []byte, v uint32) []byte {
	const digits = "0123456789abcdef"
	return append(dst, digits[v>>28], digits[v>>24&15], digits[v>>20&15], digits[v>>16&15],
		digits[v>>12&15], digits[v>>8&15], digits[v>>4&15], digits[v&15])
}

// spreadBits puts the low bits of n where mask has ones.
func spreadBits(n, mask uint32) (v uint32) {
	for ; mask != 0 && n != 0; mask &= mask - 1 {
		v |= n & 1 << bits.TrailingZeros32(mask)
		n >>= 1
	}
	return v
}
