package stratum

import (
	"hash/maphash"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/poolkit/poolkit/share"
)

func (g *guard) key(sg *sessionGuard, worker share.Worker) entryKey {
	var h maphash.Hash
	h.SetSeed(g.seed)
	h.WriteString(worker.User)
	h.WriteByte(0)
	h.WriteString(worker.Name)
	return entryKey{sg.network, max(h.Sum64(), 1)}
}

// entry returns the entry with a key, which is made where there is none. The caller settles it.
func (g *guard) entry(key entryKey) *entry {
	e := g.entries[key]
	if e == nil {
		e = &entry{key: key, lastGood: never}
		g.entries[key] = e
	}
	return e
}

// offend puts an entry behind all other offenders.
func (g *guard) offend(e *entry, now int64) {
	g.leave(e)
	g.settle(e, now)
}

// settle puts an entry into the list where it belongs, or forgets it.
func (g *guard) settle(e *entry, now int64) {
	var to *entryList
	switch r := e.record; {
	case r != nil && r.offender():
		to = &g.offenders
		e.forget = later(max(r.last, r.until), offenceMemory)
	case r != nil:
		to = &g.failing
		e.forget = later(r.retry, loginMemory)
	case e.sessions > 0:
	case e.bucket > now || e.keptWell(now):
		to = &g.idle
		e.forget = max(e.bucket, later(e.lastGood, goodMemory))
	default:
		g.leave(e)
		delete(g.entries, e.key)
		return
	}
	if e.list == to {
		return
	}
	g.leave(e)
	if to != nil {
		to.push(e)
		if to.len > g.limits.MaxRemembered {
			g.evict(to.first)
		}
	}
}

// evict drops an entry from its list, with what is held against it.
func (g *guard) evict(e *entry) {
	g.leave(e)
	e.record = nil
	if e.sessions == 0 {
		delete(g.entries, e.key)
	}
}

// sweep forgets what is due. A few at each call are more than can be added by one.
func (g *guard) sweep(now int64) {
	for _, l := range [...]*entryList{&g.idle, &g.failing, &g.offenders} {
		for range 3 {
			if l.first == nil || now < l.first.forget {
				break
			}
			g.evict(l.first)
		}
	}
}

func (g *guard) leave(e *entry) {
	if e.list != nil {
		e.list.remove(e)
	}
}

// An entryList is in order of age.
type entryList struct {
	first, last *entry
	len         int
}

func (l *entryList) push(e *entry) {
	e.list, e.prev, e.next = l, l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	l.len++
}

func (l *entryList) remove(e *entry) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.list, e.prev, e.next = nil, nil, nil
	l.len--
}

// remaining returns how long it is until a time that was set length ahead, and sets it anew when the clock has stepped
// back to before.
func remaining(until *int64, length, now int64) time.Duration {
	if now >= *until {
		return 0
	}
	left := *until - now
	if left < 0 || left > length { // negative: an overflow
		left = length
		*until = now + length
	}
	return time.Duration(left)
}

// elapsed returns how long ago a time was, 0 when it is to come.
func elapsed(from, now int64) int64 {
	switch d := now - from; {
	case now < from:
		return 0
	case d < 0:
		return math.MaxInt64
	default:
		return d
	}
}

func later(t, d int64) int64 {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

func cloneWorker(w share.Worker) share.Worker {
	return share.Worker{User: strings.Clone(w.User), Name: strings.Clone(w.Name)}
}

// nat64 is the well-known prefix of RFC 6052, behind which IPv4 addresses reach a server that has none.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// networkOf returns what counts as one address, and whether it is this machine. An IPv4 address stands in the lower
// half, where no /64 that is routed begins.
func networkOf(addr netip.Addr) (network uint64, local bool) {
	addr = addr.WithZone("").Unmap()
	switch {
	case !addr.IsValid():
		return 0, false
	case addr.IsLoopback():
		return 0x7f000001, true
	case addr.Is4():
		b := addr.As4()
		return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3]), false
	}
	b := addr.As16()
	if nat64.Contains(addr) {
		return uint64(b[12])<<24 | uint64(b[13])<<16 | uint64(b[14])<<8 | uint64(b[15]), false
	}
	for _, c := range b[:8] {
		network = network<<8 | uint64(c)
	}
	return network, false
}

func prefixOf(network uint64) netip.Prefix {
	var b [16]byte
	for i := range 8 {
		b[i] = byte(network >> (56 - 8*i))
	}
	if network>>32 == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[4:8])), 32)
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

func (g *guard) allows(addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap()
	for _, p := range g.limits.AllowList {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// unmapPrefix makes a range of IPv4 addresses written as IPv6 one of IPv4.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
