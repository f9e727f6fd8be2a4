package stratum

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
)

// A DifficultyStore remembers what is known of workers while they are away, so that one that comes back, perhaps to
// another process, starts where it was. Every DifficultyStore
//   - KeepsTheLatest: Load returns the State that was saved last for that worker, to the microsecond and the last bit of
//     its numbers, until the store forgets it. It may forget any worker at any time, and must in order to stay bounded;
//     what Load returns then is false, and the worker starts as one that nobody knows;
//   - KeepsWorkersApart: a worker is its user and its name, to the letter;
//   - NeverBlocks: both are called where a thousand others wait, so neither waits for a disk or a network;
//   - AllowsConcurrentCalls.
//
// A state that is too old to count is the caller's to tell.
type DifficultyStore interface {
	Load(w share.Worker) (s difficulty.State, ok bool)
	Save(w share.Worker, s difficulty.State)
}

// DifficultyMemoryOptions tune a DifficultyMemory. The zero value suits a server.
type DifficultyMemoryOptions struct {
	// MaxWorkers is how many workers are remembered, of which a little more than half are those saved last; 0 or less
	// means 262,144. Each takes about 200 bytes.
	MaxWorkers int
}

// A DifficultyMemory is a DifficultyStore that ends with the process.
type DifficultyMemory struct {
	seed   maphash.Seed
	half   int // of a shard
	shards []difficultyShard
}

// A difficultyShard has two maps, so that what was not saved for long can be forgotten in one step: when the new one is
// full it becomes the old one.
type difficultyShard struct {
	mu       sync.Mutex
	new, old map[share.Worker]difficulty.State
	saves    uint64
}

const difficultyShards = 64

// NewDifficultyMemory returns an empty memory; nil means default options.
func NewDifficultyMemory(opts *DifficultyMemoryOptions) *DifficultyMemory {
	most, shards := 1<<18, difficultyShards
	if opts != nil && opts.MaxWorkers > 0 {
		most = opts.MaxWorkers
	}
	if most < 64*difficultyShards {
		shards = 1 // it would be uneven
	}
	m := &DifficultyMemory{seed: maphash.MakeSeed(), half: most / 2 / shards, shards: make([]difficultyShard, shards)}
	for i := range m.shards {
		m.shards[i].new = make(map[share.Worker]difficulty.State)
	}
	return m
}

func (m *DifficultyMemory) shard(w share.Worker) *difficultyShard {
	return &m.shards[maphash.Comparable(m.seed, w)%uint64(len(m.shards))]
}

// Load implements [DifficultyStore].
func (m *DifficultyMemory) Load(w share.Worker) (difficulty.State, bool) {
	s := m.shard(w)
	s.mu.Lock()
	defer s.mu.Unlock()
	state, ok := s.new[w]
	if !ok {
		state, ok = s.old[w]
	}
	return state, ok
}

// Save implements [DifficultyStore].
func (m *DifficultyMemory) Save(w share.Worker, state difficulty.State) {
	s := m.shard(w)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saves++
	if _, known := s.new[w]; !known && len(s.new) >= max(m.half, 1) {
		s.old, s.new = s.new, make(map[share.Worker]difficulty.State)
		if m.half == 0 {
			s.old = nil
		}
	}
	delete(s.old, w)
	s.new[w] = state
}

// Len returns how many workers are remembered.
func (m *DifficultyMemory) Len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.new) + len(s.old)
		s.mu.Unlock()
	}
	return n
}

// A keptDifficulty is one worker's.
type keptDifficulty struct {
	worker share.Worker
	state  difficulty.State
}

// all returns everything that is remembered, in no order, and the number of calls of Save that went into it. No call
// waits for more than a shard.
func (m *DifficultyMemory) all() (kept []keptDifficulty, saves uint64) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		saves += s.saves
		for w, state := range s.old {
			kept = append(kept, keptDifficulty{w, state})
		}
		for w, state := range s.new {
			kept = append(kept, keptDifficulty{w, state})
		}
		s.mu.Unlock()
	}
	return kept, saves
}

// saved returns how often Save was called.
func (m *DifficultyMemory) saved() (saves uint64) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		saves += s.saves
		s.mu.Unlock()
	}
	return saves
}

// keepEvery is how often the difficulties of sessions at work are saved, for a process that is killed.
const keepEvery = 5 * time.Minute

// known returns what is known of a worker from before.
func (s *Server) known(w share.Worker, now time.Time) *difficulty.State {
	if s.difficulties == nil {
		return nil
	}
	state, ok := s.difficulties.Load(w)
	if !ok || !state.Valid() || now.Sub(state.At) >= s.opts.KeepDifficulty {
		return nil
	}
	if state.At.After(now) { // another process's clock, or this one before it was set
		state.At = now
	}
	return &state
}

// goOn has a policy go on from what another one knew.
func (s *Server) goOn(m *miner, state *difficulty.State, now time.Time) {
	if k, ok := difficulty.As[difficulty.Keeper](m.policy); ok {
		k.Restore(now, *state)
	} else if r, ok := difficulty.As[difficulty.Resetter](m.policy); ok {
		r.Reset(s.assignable(state.Difficulty, m.floor()))
	}
}

// state returns what is known of a machine, whose jobs go out with difficulty sent.
func (m *miner) state(sent difficulty.Difficulty, now time.Time) difficulty.State {
	state := difficulty.State{At: now, Difficulty: sent}
	if k, ok := difficulty.As[difficulty.Keeper](m.policy); ok && m.fixed == 0 {
		if s := k.State(now); s.Valid() {
			state, state.At = s, now
		}
	}
	return state
}

// keepDifficulties saves what is known of the session's miner, or of its machines: of a session that has ended once, at
// its end.
func (s *Session) keepDifficulties(now time.Time, atEnd bool) {
	store := s.srv.difficulties
	if store == nil {
		return
	}
	for _, k := range s.knownDifficulties(now, atEnd) {
		store.Save(k.worker, k.state)
	}
}

func (s *Session) knownDifficulties(now time.Time, atEnd bool) (kept []keptDifficulty) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.learned = s.learned && kept == nil }()
	switch {
	case s.ended != atEnd || !s.learned && !atEnd || s.miner.policy == nil || s.sentDiff == 0 || len(s.sent) == 0: // it was never given one
	case s.agents != nil:
		for _, w := range s.agents.workers {
			kept = append(kept, w.known(now))
		}
	default:
		kept = append(kept, keptDifficulty{s.miner.worker, s.miner.state(s.sentDiff, now)})
	}
	return kept
}

// known returns what is to be kept of a machine. Session.mu is held.
func (w *agentWorker) known(now time.Time) keptDifficulty {
	return keptDifficulty{w.worker, w.state(w.history[len(w.history)-1].difficulty, now)}
}
