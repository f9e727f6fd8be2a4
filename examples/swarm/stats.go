package main

// stats are the counts of one lane, or of all of them merged.
type stats struct {
	dialed    uint64 // connections begun
	connected uint64 // of these, with an open socket (and TLS session)
	loggedIn  uint64 // of these, authorized
	failures  reasons
	closes    reasons // of connections that had logged in

	connect hist // from the start to the open socket, TLS included
	login   hist // from the start to authorized
	work    hist // from the start to the first job

	submits    uint64
	replies    uint64 // to submits
	accepted   uint64
	rejects    map[int]*reject // by code
	latency    hist            // from submit to reply
	staleRaces uint64          // rejects with code 21 for work that a new block had just ended

	heldBack  uint64 // submits that were due while -max-pending were unanswered, or that -real could not hash in time
	missed    uint64 // submits that were due and that this program was too busy to send
	discarded uint64 // real shares found for work that had ended

	lost      uint64 // submits that the end of their connection left unanswered
	abandoned uint64 // submits without a reply because we closed their connection
	untold    uint64 // submits to which no reply was agreed, of agents without the capability
	resent    uint64 // submits sent again on a resumed session
	resentDup uint64 // of these, answered as duplicates: the pool had taken them
	resumed   uint64 // reconnects that got their old extranonce1
	fresh     uint64 // reconnects that got another one
	orders    uint64 // client.reconnect

	jobs      uint64
	clean     uint64
	malformed uint64 // lines and frames that mean nothing
	strange   uint64 // replies to nothing we asked
	requests  uint64 // of the pool: mining.ping, client.get_version
	messages  reasons
	churned   uint64
	redirects uint64 // client.reconnect that named another place, which is not gone to
	received  uint64 // bytes
	sent      uint64 // bytes
}

// A reject counts the refusals with one code.
type reject struct {
	count uint64
	texts reasons
}

// reasons count texts of which there may be any number: only some are kept.
type reasons map[string]uint64

const (
	maxReasons  = 24
	otherReason = "(others)"
)

// add counts a text, which it does not keep unless it is new.
func (r *reasons) add(text []byte) {
	if *r == nil {
		*r = make(reasons)
	}
	if _, ok := (*r)[string(text)]; ok || len(*r) < maxReasons {
		(*r)[string(text[:min(len(text), 120)])]++
		return
	}
	(*r)[otherReason]++
}

func (r *reasons) merge(o reasons) {
	if *r == nil {
		*r = make(reasons)
	}
	for text, n := range o {
		if _, ok := (*r)[text]; !ok && len(*r) >= maxReasons {
			text = otherReason
		}
		(*r)[text] += n
	}
}

func (r reasons) total() (n uint64) {
	for _, k := range r {
		n += k
	}
	return n
}

// maxCodes bounds the table of a pool that makes codes up.
const maxCodes = 64

func (s *stats) refuse(code int, text []byte) {
	if s.rejects == nil {
		s.rejects = make(map[int]*reject)
	}
	r := s.rejects[code]
	if r == nil {
		if len(s.rejects) >= maxCodes {
			code = -1
		}
		if r = s.rejects[code]; r == nil {
			r = new(reject)
			s.rejects[code] = r
		}
	}
	r.count++
	r.texts.add(text)
}

func (s *stats) rejected() (n uint64) {
	for _, r := range s.rejects {
		n += r.count
	}
	return n
}

func (s *stats) merge(o *stats) {
	for _, p := range [...]struct {
		to   *uint64
		from uint64
	}{
		{&s.dialed, o.dialed}, {&s.connected, o.connected}, {&s.loggedIn, o.loggedIn}, {&s.submits, o.submits},
		{&s.replies, o.replies}, {&s.accepted, o.accepted}, {&s.staleRaces, o.staleRaces}, {&s.heldBack, o.heldBack},
		{&s.missed, o.missed}, {&s.discarded, o.discarded}, {&s.lost, o.lost}, {&s.abandoned, o.abandoned},
		{&s.untold, o.untold}, {&s.resent, o.resent}, {&s.resentDup, o.resentDup}, {&s.resumed, o.resumed},
		{&s.fresh, o.fresh}, {&s.orders, o.orders}, {&s.jobs, o.jobs}, {&s.clean, o.clean},
		{&s.malformed, o.malformed}, {&s.strange, o.strange}, {&s.requests, o.requests}, {&s.churned, o.churned},
		{&s.redirects, o.redirects}, {&s.received, o.received}, {&s.sent, o.sent},
	} {
		*p.to += p.from
	}
	s.failures.merge(o.failures)
	s.closes.merge(o.closes)
	s.messages.merge(o.messages)
	s.connect.merge(&o.connect)
	s.login.merge(&o.login)
	s.work.merge(&o.work)
	s.latency.merge(&o.latency)
	for code, r := range o.rejects {
		if s.rejects == nil {
			s.rejects = make(map[int]*reject)
		}
		if s.rejects[code] == nil {
			s.rejects[code] = new(reject)
		}
		s.rejects[code].count += r.count
		s.rejects[code].texts.merge(r.texts)
	}
}
