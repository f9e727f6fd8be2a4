package stratum

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
)

// A savedServer is what one process leaves to the next, as JSON: a few hundred bytes a session, once in a while, and an
// operator can read it.
type savedServer struct {
	Version  int            `json:"version"`
	Jobs     uint32         `json:"jobs"`
	Next     uint32         `json:"next_extranonce1,omitempty"` // where the allocator was, of servers with one of ours
	Sessions []savedSession `json:"sessions"`
}

const savedVersion = 1

type savedSession struct {
	Prefix     uint32                `json:"extranonce1"`
	Ended      time.Time             `json:"ended"`
	IP         netip.Addr            `json:"ip"`
	Agent      string                `json:"agent,omitempty"`
	User       string                `json:"user"`
	Worker     string                `json:"worker"`
	Difficulty difficulty.Difficulty `json:"difficulty"`
	Hashrate   difficulty.Hashrate   `json:"hashrate,omitempty"`
	Shares     float64               `json:"shares,omitempty"`
	Wish       difficulty.Difficulty `json:"wish,omitempty"`
}

// maxSavedServer bounds what RestoreSessions reads: more sessions than one process can have connections.
const maxSavedServer = 256 << 20

// A Reserver is an Extranonces whose prefixes outlive the process: sessions that are taken over from another one keep
// theirs. Reserve leases a given prefix, and fails when it is leased already or not one of the allocator's.
type Reserver interface {
	Extranonces
	Reserve(prefix uint32, now time.Time) error
}

// SaveSessions writes, as JSON of a few hundred bytes each, what the next process needs for miners to resume their
// sessions in it: the sessions that have ended and can be resumed now, agents not among them. It is to be called after
// Serve has returned.
func (s *Server) SaveSessions(w io.Writer) error {
	saved := savedServer{Version: savedVersion, Jobs: s.jobs.Load(), Sessions: []savedSession{}}
	if p, ok := s.prefixes.(*Prefixes); ok {
		saved.Next = p.position()
	}
	s.mu.Lock()
	for _, p := range s.lot.byPrefix {
		saved.Sessions = append(saved.Sessions, savedSession{
			Prefix: p.prefix, Ended: p.at.UTC(), IP: p.addr, Agent: p.agent,
			User: p.worker.User, Worker: p.worker.Name, Wish: p.wish,
			Difficulty: p.state.Difficulty, Hashrate: p.state.Hashrate, Shares: p.state.Shares,
		})
	}
	s.mu.Unlock()
	if err := json.NewEncoder(w).Encode(&saved); err != nil {
		return fmt.Errorf("stratum: save sessions: %w", err)
	}
	return nil
}

// RestoreSessions reads what SaveSessions of the process before has written, and returns how many sessions can be
// resumed. It is to be called before Serve. Jobs are not taken over: a miner that comes back has its extranonce1 and its
// difficulty, and is sent a new job at once, and a share for an earlier one is answered with code 21. Sessions of another
// server id and those that ended too long ago are left out. It fails when r holds something else, or the server's
// Extranonces are no [Reserver].
func (s *Server) RestoreSessions(r io.Reader) (int, error) {
	var saved savedServer
	if err := json.NewDecoder(io.LimitReader(r, maxSavedServer)).Decode(&saved); err != nil {
		return 0, fmt.Errorf("stratum: restore sessions: %w", err)
	}
	if saved.Version != savedVersion {
		return 0, fmt.Errorf("stratum: restore sessions: version %d is not known", saved.Version)
	}
	reserver, ok := s.prefixes.(Reserver)
	if !ok {
		return 0, errors.New("stratum: restore sessions: the extranonces cannot be reserved")
	}
	// A share for a job of the process before must not be taken for one of ours.
	s.jobs.Store(saved.Jobs)
	if p, ok := s.prefixes.(*Prefixes); ok && saved.Next != 0 {
		// Prefixes that sessions had which cannot be resumed come round as late as if this were the same process.
		p.moveTo(saved.Next)
	}
	now := time.Now()
	// Newest first, should there be more than may be kept.
	slices.SortStableFunc(saved.Sessions, func(a, b savedSession) int { return b.Ended.Compare(a.Ended) })
	var restored []*parkedSession
	for i := range saved.Sessions {
		v := &saved.Sessions[i]
		gone := now.Sub(v.Ended)
		state := difficulty.State{At: now.Add(-max(0, gone)), Difficulty: v.Difficulty, Hashrate: v.Hashrate, Shares: v.Shares}
		if !v.IP.IsValid() || v.User == "" || !state.Valid() || v.Wish != 0 && !v.Wish.Valid() || gone >= s.opts.ResumeTime || len(restored) >= s.opts.MaxParked {
			continue
		}
		if err := reserver.Reserve(v.Prefix, now); err != nil {
			continue // of another server id, as after a change of the configuration
		}
		p := &parkedSession{
			prefix: v.Prefix,
			at:     state.At,
			addr:   v.IP,
			agent:  v.Agent,
			worker: share.Worker{User: v.User, Name: v.Worker},
			state:  state,
			wish:   v.Wish,
		}
		p.validator.Init(&s.opts.Validation)
		restored = append(restored, p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range slices.Backward(restored) { // the lot has the oldest first
		s.lot.add(p)
	}
	return len(restored), nil
}
