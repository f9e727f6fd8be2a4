package block_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/block"
	"github.com/poolkit/poolkit/block/blocktest"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// A bench is a Maker with everything around it.
type bench struct {
	t     testing.TB
	dir   string
	spool *block.Spool
	node  blocktest.FlakySubmitter
	chain blocktest.Node
	rec   blocktest.FlakyRecorder
	maker *block.Maker
}

func newBench(t testing.TB, opts *block.MakerOptions) *bench {
	t.Helper()
	b := &bench{t: t, dir: filepath.Join(t.TempDir(), "spool")}
	b.spool = openSpool(t, b.dir, nil)
	b.node.Submitter = &b.chain
	b.rec.Recorder = new(block.Memory)
	b.restart(opts)
	return b
}

// restart replaces the Maker, as a new process would.
func (b *bench) restart(opts *block.MakerOptions) {
	b.t.Helper()
	require.NoError(b.t, b.spool.Close())
	b.spool = openSpool(b.t, b.dir, nil)
	var err error
	b.maker, err = block.NewMaker(b.spool, &b.node, &b.rec, opts)
	require.NoError(b.t, err)
}

// run starts the Maker and returns what stops it and waits for it.
func (b *bench) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	maker := b.maker
	go func() { done <- maker.Run(ctx) }()
	return func() {
		b.t.Helper()
		cancel()
		require.NoError(b.t, <-done)
	}
}

func (b *bench) found() []block.Found { return foundList(b.t, b.rec.Recorder, block.Query{}) }

func (b *bench) pending() []string { return ls(b.t, b.dir) }

func (b *bench) aside() []string { return ls(b.t, filepath.Join(b.dir, "aside")) }

// solution returns a block on top of nothing; different extra give different ones.
func solution(extra uint64) *share.Solution {
	_, s := blocktest.Solve(blocktest.NewTemplate(chainhash.Hash{}, 1, 3), extra)
	return s
}

var errDown = errors.New("connection refused")

func TestMaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []string
		event := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, s)
		}
		b := newBench(t, &block.MakerOptions{Hooks: block.MakerHooks{
			Taken: func(f block.Found) { event("taken") },
			Ruled: func(f block.Found) { event("ruled " + f.Outcome.String()) },
		}})
		stop := b.run()
		synctest.Wait()
		time.Sleep(time.Hour) // the record is made when it is, whatever the header says
		s := solution(1)
		s.Chain = "btc"
		put := *s
		require.NoError(t, b.maker.PutSolution(t.Context(), &put))
		clear(put.Coinbase[:0]) // nothing of it is kept
		put = share.Solution{}
		synctest.Wait()

		tip, height := b.chain.Tip()
		require.Equal(t, s.Hash, tip)
		require.EqualValues(t, 1, height)
		tmpl := s.Job.Template
		raw, err := block.Assemble(s, tmpl.Transactions)
		require.NoError(t, err)
		require.Equal(t, []block.Found{{
			Chain: "btc", Hash: s.Hash, UserID: 42, WorkerID: s.WorkerID, WorkerName: "alice.rig1", JobID: s.JobID,
			Height: 1, PrevHash: tmpl.PrevHash, Bits: tmpl.Bits, Version: tmpl.Version,
			Nonce:      binary.LittleEndian.Uint32(s.Header[76:]),
			Difficulty: tmpl.Target.Difficulty(), Rewards: tmpl.CoinbaseValue, Size: len(raw), Outcome: block.Accepted,
			FoundAt: s.Found.UTC().Round(0), CreatedAt: time.Now().UTC().Round(0),
		}}, b.found())
		require.Empty(t, b.pending())
		require.Empty(t, b.aside())
		mu.Lock()
		require.Equal(t, []string{"taken", "ruled accepted"}, events)
		mu.Unlock()
		require.Equal(t, block.MakerStats{Taken: 1, Attempts: 1, Accepted: 1}, b.maker.Stats())
		stop()
	})
}

func TestMakerOutcomes(t *testing.T) {
	reject := &block.RejectedError{Node: "main", Reason: "bad-cb-amount"}
	tests := []struct {
		name    string
		answer  error
		outcome block.Outcome
		reason  string
		aside   bool
	}{
		{"taken", nil, block.Accepted, "", false},
		{"known", block.ErrDuplicate, block.Accepted, "already", false},
		{"stale", fmt.Errorf("node main: %w", block.ErrStale), block.Stale, "not on the best chain", false},
		{"refused", reject, block.Rejected, "bad-cb-amount", true},
		{"refused by all", errors.Join(reject, &block.RejectedError{Reason: "high-hash"}), block.Rejected, "high-hash", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				b.node.Submitter = nil
				b.node.FailAll(tt.answer)
				stop := b.run()
				s := solution(1)
				require.NoError(t, b.maker.PutSolution(t.Context(), s))
				synctest.Wait()
				require.Equal(t, 1, b.node.Calls())
				list := b.found()
				require.Len(t, list, 1)
				require.Equal(t, tt.outcome, list[0].Outcome)
				require.Equal(t, block.Candidate, list[0].State)
				require.Contains(t, list[0].Reason, tt.reason)
				require.Empty(t, b.pending())
				if tt.aside {
					require.Equal(t, []string{s.Hash.String() + ".block.rejected"}, b.aside())
				} else {
					require.Empty(t, b.aside())
				}
				stop()
			})
		})
	}
}

func TestMakerKeepsFewRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		require.NoError(t, b.spool.Close())
		b.spool = openSpool(t, b.dir, &block.SpoolOptions{KeepRejected: 2})
		maker, err := block.NewMaker(b.spool, says(&block.RejectedError{Reason: "no"}), &b.rec, nil)
		require.NoError(t, err)
		b.maker = maker
		stop := b.run()
		for i := range 5 {
			require.NoError(t, b.maker.PutSolution(t.Context(), solution(uint64(i))))
			synctest.Wait()
		}
		require.Len(t, b.aside(), 2)
		require.Len(t, b.found(), 5)
		stop()
	})
}

// The block is on disk before any node sees it, and PutSolution has returned by then.
func TestMakerWritesBeforeItSubmits(t *testing.T) {
	b := newBench(t, nil)
	s := solution(1)
	require.NoError(t, b.maker.PutSolution(t.Context(), s))
	require.Equal(t, []string{s.Hash.String() + ".block"}, b.pending())
	require.Zero(t, b.node.Calls(), "Run has not started")

	seen := make(chan []string, 1)
	maker, err := block.NewMaker(b.spool, block.SubmitterFunc(func(ctx context.Context, raw []byte) error {
		seen <- b.pending()
		return nil
	}), &b.rec, nil)
	require.NoError(t, err)
	b.maker = maker
	stop := b.run()
	require.Equal(t, []string{s.Hash.String() + ".block"}, <-seen)
	stop()
}

func TestMakerRetriesWithoutVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		b := newBench(t, nil)
		started := time.Now()
		answer := errDown
		var mu sync.Mutex
		b.node.Submitter = block.SubmitterFunc(func(context.Context, []byte) error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(started))
			return answer
		})
		stop := b.run()
		s := solution(1)
		require.NoError(t, b.maker.PutSolution(t.Context(), s))
		time.Sleep(2*time.Minute + time.Second)
		synctest.Wait()
		mu.Lock()
		sec := time.Second
		require.Equal(t, []time.Duration{0, 1 * sec, 3 * sec, 7 * sec, 15 * sec, 31 * sec, 61 * sec, 91 * sec, 121 * sec}, at)
		answer = nil
		mu.Unlock()
		require.Equal(t, []string{s.Hash.String() + ".block"}, b.pending())
		list := b.found()
		require.Len(t, list, 1)
		require.Equal(t, block.Unsubmitted, list[0].Outcome)
		require.Equal(t, "no verdict yet: connection refused", list[0].Reason)
		require.Equal(t, block.MakerStats{Taken: 1, Attempts: 9, NoVerdict: 9, Pending: 1}, b.maker.Stats())

		time.Sleep(31 * time.Second)
		synctest.Wait()
		require.Empty(t, b.pending())
		list = b.found()
		require.Equal(t, block.Accepted, list[0].Outcome)
		require.Empty(t, list[0].Reason)
		require.True(t, list[0].CreatedAt.Equal(started), "the record is that of the beginning")
		stop()
	})
}

func TestMakerSurvivesRecorderFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.rec.FailAll(errors.New("database is down"))
		stop := b.run()
		s := solution(1)
		require.NoError(t, b.maker.PutSolution(t.Context(), s))
		synctest.Wait()
		tip, _ := b.chain.Tip()
		require.Equal(t, s.Hash, tip, "submission does not wait for the record")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Equal(t, 1, b.node.Calls())
		require.LessOrEqual(t, b.rec.Calls(), 30)
		require.Len(t, b.pending(), 1, "it stays until it is on record")
		b.rec.FailAll(nil)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		require.Empty(t, b.pending())
		require.Equal(t, block.Accepted, b.found()[0].Outcome)
		require.True(t, b.found()[0].CreatedAt.After(b.found()[0].FoundAt.Add(10*time.Minute)), "the time of insertion")
		stop()
	})
}

// A recorder that hangs holds nothing up either.
func TestMakerSubmitsBesideHangingRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		maker, err := block.NewMaker(b.spool, &b.node, hangingRecorder{}, nil)
		require.NoError(t, err)
		b.maker = maker
		b.node.FailNext(errDown, errDown, errDown)
		stop := b.run()
		require.NoError(t, b.maker.PutSolution(t.Context(), solution(1)))
		time.Sleep(8 * time.Second)
		synctest.Wait()
		require.Equal(t, 4, b.node.Calls())
		started := time.Now()
		stop()
		require.Equal(t, 3*time.Second, time.Since(started))
		require.Len(t, b.pending(), 1)
	})
}

type hangingRecorder struct{}

func (hangingRecorder) Record(ctx context.Context, _ *block.Found) error {
	<-ctx.Done()
	return ctx.Err()
}

func (hangingRecorder) Found(context.Context, block.Query) ([]block.Found, error) { return nil, nil }

// Solutions that come over a bus have no job; the captured ones need theirs, except that an empty block needs none.
func TestMakerFindsTransactions(t *testing.T) {
	tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 5)
	tmplOther := blocktest.NewTemplate(chainhash.Hash{}, 1, 4)
	j, full := blocktest.Solve(tmpl, 1)
	bare := *full
	bare.Job = nil
	noTemplate := *j
	noTemplate.Template = nil
	wrong := noTemplate
	wrong.TemplateID = tmplOther.ID
	withJob := *full
	withJob.Job = &noTemplate
	_, empty := blocktest.Solve(blocktest.NewTemplate(chainhash.Hash{}, 1, 0), 2)
	empty.Job = nil

	tests := []struct {
		name  string
		s     *share.Solution
		given func(m *block.Maker)
		parks bool
	}{
		{"the job comes along with its template", full, func(*block.Maker) {}, false},
		{"the job comes along, the template is remembered", &withJob, func(m *block.Maker) { m.AddTemplate(tmpl) }, false},
		{"job with template remembered", &bare, func(m *block.Maker) { m.AddJob(j) }, false},
		{"job and template remembered", &bare, func(m *block.Maker) { m.AddTemplate(tmpl); m.AddJob(&noTemplate) }, false},
		{"only the template remembered", &bare, func(m *block.Maker) { m.AddTemplate(tmplOther); m.AddTemplate(tmpl) }, false},
		{"the job names another template", &bare, func(m *block.Maker) {
			m.AddTemplate(tmpl)
			m.AddTemplate(tmplOther)
			m.AddJob(&wrong)
		}, false},
		{"a block without transactions", empty, func(*block.Maker) {}, false},
		{"nothing known", &bare, func(*block.Maker) {}, true},
		{"only the job known", &bare, func(m *block.Maker) { m.AddJob(&noTemplate) }, true},
		{"the job comes along, the template is unknown", &withJob, func(*block.Maker) {}, true},
		{"nil is nothing", &bare, func(m *block.Maker) { m.AddJob(nil); m.AddTemplate(nil) }, true},
		{"a template that does not fit", &bare, func(m *block.Maker) { m.AddTemplate(tmplOther) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				tt.given(b.maker)
				stop := b.run()
				require.NoError(t, b.maker.PutSolution(t.Context(), tt.s))
				synctest.Wait()
				tip, _ := b.chain.Tip()
				list := b.found()
				require.Len(t, list, 1)
				require.Empty(t, list[0].Warning)
				if !tt.parks {
					require.Equal(t, tt.s.Hash, tip)
				} else {
					require.Zero(t, b.node.Calls())
					require.Zero(t, list[0].Size)
					require.EqualValues(t, tmpl.CoinbaseValue, list[0].Rewards)
					require.Equal(t, 1, b.maker.Stats().Parked)
					require.Len(t, b.pending(), 1)
				}
				stop()
			})
		})
	}
}

func TestMakerParks(t *testing.T) {
	tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 5)
	j, s := blocktest.Solve(tmpl, 1)
	s.Job = nil
	bare := *j
	bare.Template = nil

	t.Run("until the job and then the template come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			parked := make(chan block.Found, 1)
			b := newBench(t, &block.MakerOptions{Hooks: block.MakerHooks{Parked: func(f block.Found) { parked <- f }}})
			stop := b.run()
			require.NoError(t, b.maker.PutSolution(t.Context(), s))
			require.Equal(t, s.Hash, (<-parked).Hash)
			time.Sleep(5 * time.Minute)
			b.maker.AddJob(&bare)
			synctest.Wait()
			require.Zero(t, b.node.Calls())
			time.Sleep(4*time.Minute + 59*time.Second)
			b.maker.AddTemplate(tmpl)
			synctest.Wait()
			tip, _ := b.chain.Tip()
			require.Equal(t, s.Hash, tip)
			require.Empty(t, b.pending())
			require.Positive(t, b.found()[0].Size)
			require.Equal(t, block.Accepted, b.found()[0].Outcome)
			stop()
		})
	})
	t.Run("until the same comes with its job", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			stop := b.run()
			require.NoError(t, b.maker.PutSolution(t.Context(), s))
			synctest.Wait()
			again := *s
			again.Job = j
			require.NoError(t, b.maker.PutSolution(t.Context(), &again))
			synctest.Wait()
			tip, _ := b.chain.Tip()
			require.Equal(t, s.Hash, tip)
			stop()
		})
	})
	t.Run("across a restart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			stop := b.run()
			require.NoError(t, b.maker.PutSolution(t.Context(), s))
			synctest.Wait()
			stop()
			b.restart(nil)
			stop = b.run()
			synctest.Wait()
			require.Equal(t, 1, b.maker.Stats().Parked)
			require.EqualValues(t, 1, b.maker.Stats().Resumed)
			b.maker.AddJob(j)
			synctest.Wait()
			tip, _ := b.chain.Tip()
			require.Equal(t, s.Hash, tip)
			require.Len(t, b.found(), 1)
			require.Empty(t, b.pending())
			stop()
		})
	})
	t.Run("and gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, &block.MakerOptions{ParkFor: time.Minute})
			stop := b.run()
			require.NoError(t, b.maker.PutSolution(t.Context(), s))
			time.Sleep(59 * time.Second)
			synctest.Wait()
			require.Len(t, b.pending(), 1)
			time.Sleep(time.Second)
			synctest.Wait()
			require.Empty(t, b.pending())
			require.Equal(t, []string{s.Hash.String() + ".block.lost"}, b.aside())
			require.Equal(t, block.Lost, b.found()[0].Outcome)
			require.Contains(t, b.found()[0].Reason, s.JobID.String())
			require.Zero(t, b.node.Calls())
			stop()
		})
	})
}

func TestMakerForgetsOldJobs(t *testing.T) {
	park := func(t *testing.T, b *bench, s *share.Solution) bool {
		before := b.node.Calls()
		require.NoError(t, b.maker.PutSolution(t.Context(), s))
		synctest.Wait()
		return b.node.Calls() == before
	}
	t.Run("the oldest of 100 templates", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			var sols []*share.Solution
			for i := range 101 {
				tmpl := blocktest.NewTemplate(chainhash.Hash{}, int32(i+1), 1)
				b.maker.AddTemplate(tmpl)
				b.maker.AddTemplate(tmpl) // known ones do not push others out
				_, s := blocktest.Solve(tmpl, 1)
				s.Job = nil
				sols = append(sols, s)
			}
			stop := b.run()
			require.True(t, park(t, b, sols[0]))
			require.False(t, park(t, b, sols[1]))
			require.False(t, park(t, b, sols[100]))
			stop()
		})
	})
	t.Run("the lowest of 120 job ids", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			// The template does not fit by its root, so that only the job leads to it.
			b := newBench(t, nil)
			tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 2)
			j, s := blocktest.Solve(tmpl, 1)
			odd := *s
			odd.Job = nil
			odd.Coinbase = bytes.Clone(s.Coinbase)
			odd.Coinbase[50] ^= 1
			var ids []job.ID
			for i := range 121 {
				k := *j
				k.ID = job.ID(1000 - i) // the highest first
				b.maker.AddJob(&k)
				ids = append(ids, k.ID)
			}
			stop := b.run()
			try := func(id job.ID, nonce byte) bool {
				o := odd
				o.JobID = id
				o.Header[79] = nonce
				return park(t, b, &o)
			}
			require.True(t, try(ids[120], 1), "the lowest of 121")
			require.False(t, try(ids[119], 2))
			require.False(t, try(ids[0], 3))
			stop()
		})
	})
}

// What looks wrong is submitted all the same, and the node decides.
func TestMakerSubmitsAgainstItsOwnAdvice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		advice := make(chan error, 1)
		b := newBench(t, &block.MakerOptions{Hooks: block.MakerHooks{Advisory: func(f block.Found, err error) { advice <- err }}})
		b.node.Submitter = nil // takes everything
		s := solution(1)
		s.Coinbase[50] ^= 1
		stop := b.run()
		require.NoError(t, b.maker.PutSolution(t.Context(), s))
		synctest.Wait()
		require.ErrorIs(t, <-advice, block.ErrMerkleRoot)
		require.Equal(t, 1, b.node.Calls())
		require.Equal(t, block.Accepted, b.found()[0].Outcome)
		require.Contains(t, b.found()[0].Warning, "merkle root mismatch")
		require.EqualValues(t, 1, b.maker.Stats().Advisories)
		stop()
	})
}

func TestMakerRefusesWhatIsNoSolution(t *testing.T) {
	b := newBench(t, nil)
	require.ErrorContains(t, b.maker.PutSolution(t.Context(), nil), "no coinbase")
	require.ErrorContains(t, b.maker.PutSolution(t.Context(), &share.Solution{}), "no coinbase")
	require.Empty(t, b.pending())
}

// A miner that hangs up, and a server that stops, cost no block.
func TestMakerIgnoresEndedContext(t *testing.T) {
	b := newBench(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, b.maker.PutSolution(ctx, solution(1)))
	require.Len(t, b.pending(), 1)
}

func TestMakerTakesRepeatedSolutions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := b.maker.PutSolution(t.Context(), solution(1)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, b.maker.Stats().Taken)
		require.EqualValues(t, 7, b.maker.Stats().Repeated)
		stop := b.run()
		synctest.Wait()
		require.Equal(t, 1, b.node.Calls())
		// Long after, when nobody remembers: a bus that replays.
		require.NoError(t, b.maker.PutSolution(t.Context(), solution(1)))
		synctest.Wait()
		require.Equal(t, 2, b.node.Calls())
		require.Len(t, b.found(), 1)
		require.Equal(t, block.Accepted, b.found()[0].Outcome)
		require.Empty(t, b.pending())
		stop()
	})
}

// Blocks found close together do not wait for one another.
func TestMakerSubmitsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := newBench(t, nil)
		b.node.Submitter = block.SubmitterFunc(func(ctx context.Context, _ []byte) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		stop := b.run()
		for i := range 32 {
			require.NoError(t, b.maker.PutSolution(t.Context(), solution(uint64(i))))
		}
		synctest.Wait()
		require.Equal(t, 32, b.node.Calls())
		close(release)
		synctest.Wait()
		require.Empty(t, b.pending())
		stop()
	})
}

// However many there are, memory is bounded and none is dropped.
func TestMakerBoundsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &block.MakerOptions{MaxSubmitting: 2, MaxPending: 5})
		var mu sync.Mutex
		now, most := 0, 0
		seen := map[chainhash.Hash]int{}
		b.node.Submitter = block.SubmitterFunc(func(ctx context.Context, raw []byte) error {
			mu.Lock()
			now++
			most = max(most, now)
			seen[chainhash.DoubleHashH(raw[:80])]++
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		})
		const total = 40
		for i := range 10 { // before Run
			require.NoError(t, b.maker.PutSolution(t.Context(), solution(uint64(i))))
		}
		require.LessOrEqual(t, b.maker.Stats().Pending, 5)
		stop := b.run()
		var wg sync.WaitGroup
		for i := range total - 10 {
			wg.Go(func() {
				if err := b.maker.PutSolution(t.Context(), solution(uint64(10+i))); err != nil {
					t.Error(err)
				}
				if n := b.maker.Stats().Pending; n > 5+total {
					t.Errorf("%d in memory", n)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		require.LessOrEqual(t, b.maker.Stats().Pending, 5)
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		require.Len(t, seen, total)
		require.Equal(t, 2, most)
		mu.Unlock()
		require.Empty(t, b.pending())
		require.Len(t, b.found(), total)
		stop()
	})
}

// A disk that takes nothing: the caller hears of it, and the block is submitted nonetheless.
func TestMakerSubmitsFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		troubles := make(chan string, 100)
		b := newBench(t, &block.MakerOptions{MaxUnsaved: 2, Hooks: block.MakerHooks{
			Trouble: func(_ chainhash.Hash, doing string, _ error) { troubles <- doing },
		}})
		b.node.FailNext(errDown, errDown)
		var tmps []string
		block3 := func(i uint64) *share.Solution {
			s := solution(i)
			tmp := filepath.Join(b.dir, s.Hash.String()+".block.tmp")
			require.NoError(t, os.MkdirAll(filepath.Join(tmp, "x"), 0o755))
			tmps = append(tmps, tmp)
			return s
		}
		one, two, three := block3(1), block3(2), block3(3)
		require.ErrorContains(t, b.maker.PutSolution(t.Context(), one), "from memory only")
		require.Equal(t, "write block to spool", <-troubles)
		require.ErrorContains(t, b.maker.PutSolution(t.Context(), two), "from memory only")
		require.Equal(t, 2, b.maker.Stats().Unsaved)
		require.ErrorContains(t, b.maker.PutSolution(t.Context(), three), "lost")
		require.Equal(t, 2, b.maker.Stats().Pending)

		stop := b.run()
		synctest.Wait()
		require.Equal(t, 2, b.node.Calls())
		require.Equal(t, 2, b.maker.Stats().Unsaved)

		// Stopped and started within the process, they are still there.
		stop()
		require.Equal(t, 2, b.maker.Stats().Unsaved)
		b.node.FailNext(errDown, errDown)
		stop = b.run()
		synctest.Wait()
		require.Equal(t, 4, b.node.Calls())

		// When the disk is back, they are written in the next pause.
		for _, tmp := range tmps {
			require.NoError(t, os.RemoveAll(tmp))
		}
		b.node.FailNext(errDown, errDown)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Zero(t, b.maker.Stats().Unsaved)
		require.ElementsMatch(t, []string{one.Hash.String() + ".block", two.Hash.String() + ".block"}, b.pending())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, b.pending())
		require.Len(t, b.found(), 2)
		require.Equal(t, block.MakerStats{}.Unsaved, b.maker.Stats().Unsaved)
		stop()
	})
}

func TestMakerStops(t *testing.T) {
	t.Run("after what is under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			b.node.Submitter = block.SubmitterFunc(func(ctx context.Context, _ []byte) error {
				select {
				case <-time.After(2 * time.Second):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			stop := b.run()
			require.NoError(t, b.maker.PutSolution(t.Context(), solution(1)))
			synctest.Wait()
			started := time.Now()
			stop()
			require.Equal(t, 2*time.Second, time.Since(started))
			require.Empty(t, b.pending())
			require.Equal(t, block.Accepted, b.found()[0].Outcome)
		})
	})
	t.Run("within its bound", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			b.node.Submitter = hangs()
			stop := b.run()
			require.NoError(t, b.maker.PutSolution(t.Context(), solution(1)))
			synctest.Wait()
			started := time.Now()
			stop()
			require.Equal(t, 3*time.Second, time.Since(started))
			require.Len(t, b.pending(), 1)
		})
	})
	t.Run("at once in a pause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			b.node.FailAll(errDown)
			stop := b.run()
			require.NoError(t, b.maker.PutSolution(t.Context(), solution(1)))
			time.Sleep(20 * time.Second)
			synctest.Wait()
			started := time.Now()
			stop()
			require.Zero(t, time.Since(started))
			require.Len(t, b.pending(), 1)
		})
	})
	t.Run("and takes solutions afterwards", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			b.run()()
			require.NoError(t, b.maker.PutSolution(t.Context(), solution(1)))
			require.Len(t, b.pending(), 1)
			stop := b.run()
			synctest.Wait()
			require.Empty(t, b.pending())
			stop()
		})
	})
	t.Run("and runs once at a time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, nil)
			stop := b.run()
			synctest.Wait()
			require.ErrorContains(t, b.maker.Run(t.Context()), "running already")
			stop()
			require.NoError(t, b.spool.Close())
			require.ErrorContains(t, b.maker.Run(t.Context()), "closed")
		})
	})
}

// copyDir copies the files of a folder and of the folders in it, again when one disappears meanwhile.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	err := os.CopyFS(to, os.DirFS(from))
	for errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, os.RemoveAll(to))
		err = os.CopyFS(to, os.DirFS(from))
	}
	require.NoError(t, err)
}

// waitFor looks again and again until done says so.
func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not happen")
		}
	}
}

// The process may end at any step. A snapshot of the disk is taken at each, and a new process goes on from it: the
// chain must end up with the block, and the books with exactly one record of it.
func TestMakerIsKilledAtEveryStep(t *testing.T) {
	for _, parked := range []bool{false, true} {
		t.Run(fmt.Sprintf("parked %v", parked), func(t *testing.T) {
			root := t.TempDir()
			live := filepath.Join(root, "live")
			require.NoError(t, os.Mkdir(live, 0o755))
			var mu sync.Mutex
			var steps []string
			snapshot := func(step string) {
				mu.Lock()
				defer mu.Unlock()
				name := filepath.Join(root, fmt.Sprintf("%02d %s", len(steps), step))
				copyDir(t, live, name)
				steps = append(steps, name)
			}

			tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 3)
			j, s := blocktest.Solve(tmpl, 1)
			if parked {
				s.Job = nil
			}
			spool := openSpool(t, filepath.Join(live, "spool"), nil)
			file := openFile(t, filepath.Join(live, "found.jsonl"))
			var chain blocktest.Node
			submit := block.SubmitterFunc(func(ctx context.Context, raw []byte) error {
				snapshot("before submit")
				defer snapshot("after submit")
				return chain.Submit(ctx, raw)
			})
			maker, err := block.NewMaker(spool, submit, snapshotRecorder{file, snapshot}, &block.MakerOptions{
				Hooks: block.MakerHooks{
					Parked: func(block.Found) { snapshot("parked") },
					Ruled:  func(block.Found) { snapshot("ruled") },
				},
			})
			require.NoError(t, err)
			require.NoError(t, maker.PutSolution(t.Context(), s))
			snapshot("put")
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- maker.Run(ctx) }()
			if parked {
				waitFor(t, func() bool { return maker.Stats().Parked == 1 })
				maker.AddJob(j)
			}
			waitFor(t, func() bool { return maker.Stats().Pending == 0 })
			cancel()
			require.NoError(t, <-done)
			snapshot("done")

			mu.Lock()
			defer mu.Unlock()
			require.GreaterOrEqual(t, len(steps), 7)
			for _, dir := range steps {
				if strings.Contains(dir, "put") {
					require.Len(t, ls(t, filepath.Join(dir, "spool")), 1)
				}
				synctest.Test(t, func(t *testing.T) {
					spool := openSpool(t, filepath.Join(dir, "spool"), nil)
					file := openFile(t, filepath.Join(dir, "found.jsonl"))
					maker, err := block.NewMaker(spool, &chain, file, nil)
					require.NoError(t, err)
					maker.AddJob(j)
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan error, 1)
					go func() { done <- maker.Run(ctx) }()
					synctest.Wait()
					cancel()
					require.NoError(t, <-done)
					list := foundList(t, file, block.Query{})
					require.Len(t, list, 1, dir)
					require.Equal(t, s.Hash, list[0].Hash)
					require.Equal(t, block.Accepted, list[0].Outcome, dir)
					require.Positive(t, list[0].Size, dir)
					require.Empty(t, ls(t, filepath.Join(dir, "spool")), dir)
					for _, name := range ls(t, filepath.Join(dir, "spool", "aside")) {
						require.True(t, strings.HasSuffix(name, ".tmp.damaged"), "%s: %s", dir, name) // torn by the end
					}
					require.NoError(t, spool.Close())
					require.NoError(t, file.Close())
				})
				tip, height := chain.Tip()
				require.Equal(t, s.Hash, tip)
				require.EqualValues(t, 1, height)
			}
		})
	}
}

type snapshotRecorder struct {
	block.Recorder
	snapshot func(step string)
}

func (r snapshotRecorder) Record(ctx context.Context, f *block.Found) error {
	r.snapshot("before record")
	defer r.snapshot("after record")
	return r.Recorder.Record(ctx, f)
}

// Everything at once, for the race detector.
func TestMakerConcurrent(t *testing.T) {
	b := newBench(t, &block.MakerOptions{
		RetryMin: time.Millisecond, RetryMax: 4 * time.Millisecond, MaxSubmitting: 3, MaxPending: 10,
	})
	for range 20 {
		b.node.FailNext(errDown, nil)
		b.rec.FailNext(nil, errDown)
	}
	const total = 60
	stop := b.run()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range total / 4 {
				tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, i%3)
				j, s := blocktest.Solve(tmpl, uint64(w*1000+i))
				j.ID = job.ID(w*1000 + i)
				if i%2 == 1 {
					s.Job, s.JobID = nil, j.ID
					defer b.maker.AddJob(j)
				}
				if err := b.maker.PutSolution(t.Context(), s); err != nil {
					t.Error(err)
				}
				b.maker.AddTemplate(tmpl)
				b.maker.Stats()
			}
		})
	}
	wg.Wait()
	waitFor(t, func() bool { return b.maker.Stats().Pending == 0 && len(b.pending()) == 0 })
	stop()
	require.Len(t, b.found(), total)
	for _, f := range b.found() {
		require.Contains(t, []block.Outcome{block.Accepted, block.Stale}, f.Outcome)
	}
}

func TestNewMakerReportsEverything(t *testing.T) {
	_, err := block.NewMaker(nil, nil, nil, &block.MakerOptions{ParkFor: 59 * time.Second, Templates: -1, Jobs: -1,
		RetryMin: time.Minute, RetryMax: time.Second, AttemptTimeout: -1, MaxUnsaved: -1})
	for _, want := range []string{"no spool", "no submitter", "no recorder", "ParkFor 59s is less than 60s",
		"Templates is negative", "Jobs is negative", "RetryMax 1s is below RetryMin 1m0s", "AttemptTimeout is negative",
		"MaxUnsaved is negative"} {
		require.ErrorContains(t, err, want)
	}
}

// From the solution to the submission, disk included.
func BenchmarkMakerPutSolution(b *testing.B) {
	tmpl := blocktest.NewTemplate(chainhash.Hash{}, 1, 4000)
	for i := range tmpl.Transactions {
		tmpl.Transactions[i].Data = append(tmpl.Transactions[i].Data, make([]byte, 400)...)
	}
	_, s := blocktest.Solve(tmpl, 1)
	submitted := make(chan struct{})
	spool := openSpool(b, b.TempDir(), nil)
	maker, err := block.NewMaker(spool, block.SubmitterFunc(func(context.Context, []byte) error {
		submitted <- struct{}{}
		return nil
	}), new(block.Memory), nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- maker.Run(ctx) }()
	b.ReportAllocs()
	nonce := 0
	for b.Loop() {
		nonce++
		s.Header[76], s.Header[77], s.Header[78] = byte(nonce), byte(nonce>>8), byte(nonce>>16)
		if err := maker.PutSolution(ctx, s); err != nil {
			b.Fatal(err)
		}
		<-submitted
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
