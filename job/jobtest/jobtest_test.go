package jobtest_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
)

// Every byte of every reply: the captured ones as their node's pool knew them, the generated ones as they have been
// since they were first generated.
func TestRepliesNeverChange(t *testing.T) {
	ids := map[string]string{
		"regtest-102":       "44d3d7058708265832677da36bd0d9a71d4d1b6bac8f2a5cc6e6f7047bf53059",
		"regtest-102-later": "d52d547a01276ef31364a24bdaf441d13fa5f9e46aebee0e10b9759b945f506d",
		"regtest-103":       "2f4cc468afcdf4edbf96a96692ad55591d5d3e66a1843175bccbe74b0c703f50",
		"mainnet":           "4996be332dfbc1a956698f5ae17f08c63ed5ba0533c9b416cb3b33e1d95ca239",
		"mainnet-empty":     "ccc5c0c963f0d2044c74cafec1bc1d14687bdc52df2c4be105da35f7e7149f5d",
		"mainnet-later":     "52c4ee08dc7e9f7adac6a26f5ed6edd5aa58a015e459fd9d7ab16821bf016f48",
		"mainnet-next":      "3aa0ff370d508985c534f1a9181f450f96972232a10d30bd6d33856960fdccf3",
		"mainnet-small":     "6c1da230a1d90d759f5d542f079d10ea0e4160fe13c447ee8382cc78e68b59ee",
	}
	require.Len(t, jobtest.Names(), len(ids))
	require.True(t, slices.IsSorted(jobtest.Names()))
	for _, name := range jobtest.Names() {
		tmpl := jobtest.Template(t, name)
		require.Equal(t, ids[name], tmpl.ID.String(), name)
		require.Equal(t, int64(tmpl.CurTime), tmpl.Received.Unix())
	}
}

func TestMainnetIsOfMainnetSize(t *testing.T) {
	body, tmpl := jobtest.Reply(t, "mainnet"), jobtest.Template(t, "mainnet")
	require.Greater(t, len(body), 2_500_000)
	require.Less(t, len(body), 3_500_000)
	require.Len(t, tmpl.Transactions, 3000)

	ids := make([]job.Hash, len(tmpl.Transactions))
	var fees, weight, size int64
	segwit, dependent, large := 0, 0, 0
	for i, tx := range tmpl.Transactions {
		ids[i] = tx.TxID
		fees += tx.Fee
		weight += tx.Weight
		size += int64(len(tx.Data))
		if tx.TxID != tx.WTxID {
			segwit++
		}
		if len(tx.Depends) > 0 {
			dependent++
			parent := tmpl.Transactions[tx.Depends[0]-1].TxID
			require.Contains(t, string(tx.Data), string(parent[:]), "it spends from what it depends on")
		}
		if len(tx.Data) > 4000 {
			large++
		}
	}
	require.Len(t, job.MerkleBranch(ids), 12)
	require.InDelta(t, 2000, segwit, 150)
	require.InDelta(t, 500, dependent, 100)
	require.Greater(t, large, 20)
	require.Less(t, weight, tmpl.WeightLimit)
	require.Less(t, size, tmpl.SizeLimit)
	require.Equal(t, 312500000+fees, tmpl.CoinbaseValue)

	// The generator's plain merkle tree over the rows of the whole block, against job's branch.
	require.Equal(t, hex.EncodeToString(tmpl.WitnessCommitment), hex.EncodeToString(job.WitnessCommitment(tmpl.Transactions)))
}

func TestTemplatesOfOneTipShareItsTransactions(t *testing.T) {
	mainnet := jobtest.Template(t, "mainnet")
	for _, name := range []string{"mainnet-empty", "mainnet-small", "mainnet-later"} {
		other := jobtest.Template(t, name)
		require.Equal(t, mainnet.PrevHash, other.PrevHash, name)
		require.Equal(t, mainnet.Height, other.Height, name)
		n := min(len(mainnet.Transactions), len(other.Transactions))
		require.Equal(t, mainnet.Transactions[:n], other.Transactions[:n], name)
	}
	require.Len(t, jobtest.Template(t, "mainnet-later").Transactions, 3010)
	require.True(t, jobtest.Template(t, "mainnet-empty").Empty())
	next := jobtest.Template(t, "mainnet-next")
	require.Equal(t, mainnet.Height+1, next.Height)
	require.NotEqual(t, mainnet.PrevHash, next.PrevHash)
	require.NotEqual(t, jobtest.Template(t, "regtest-102").PrevHash, jobtest.Template(t, "regtest-103").PrevHash)
}

func TestEveryCallReturnsItsOwn(t *testing.T) {
	body := jobtest.Reply(t, "mainnet-small")
	clear(body)
	tmpl := jobtest.Template(t, "mainnet-small")
	tmpl.Transactions[0].Data[0] = 99
	tmpl.Height = 1
	require.EqualValues(t, 840123, jobtest.Template(t, "mainnet-small").Height)
	require.EqualValues(t, 2, jobtest.Template(t, "mainnet-small").Transactions[0].Data[0])
}

// A recorder is a testing.TB that only remembers why it failed.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestUnknownNameFailsTheTest(t *testing.T) {
	r := new(recorder)
	done := make(chan struct{})
	go func() {
		defer close(done)
		jobtest.Template(r, "mainet")
		t.Error("Template returned")
	}()
	<-done
	require.Contains(t, r.fatal, `no template "mainet", there are ["mainnet"`)
}

// A fallible source has a node that can be down.
type fallible struct {
	jobtest.Manual
	givesUp bool

	mu sync.Mutex
	up chan struct{} // closed while the node is up; nil means that too
}

func (f *fallible) setDown(_ *testing.T, down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case down:
		f.up = make(chan struct{})
	case f.up != nil:
		close(f.up)
		f.up = nil
	}
}

func (f *fallible) Watch(ctx context.Context, put func(*job.Template)) error {
	f.mu.Lock()
	up := f.up
	f.mu.Unlock()
	if up != nil {
		if f.givesUp {
			return errors.New("connection refused")
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil
		}
	}
	return f.Manual.Watch(ctx, put)
}

// newNode is a source that is fed by hand with a chain behind it.
func newNode(*testing.T) jobtest.Node {
	m := &fallible{givesUp: os.Getenv("JOBTEST_BROKEN") == "source gives up while its node is down"}
	height, transactions := int32(100), 0
	put := func() {
		tmpl := &job.Template{
			ID:           job.MerkleRoot(fmt.Append(nil, height, transactions), nil),
			Received:     time.Now(),
			Height:       height,
			PrevHash:     job.Hash{0: byte(height)},
			Bits:         0x207fffff,
			Target:       [4]uint64{3: 0x7fffff0000000000},
			CurTime:      1,
			Transactions: make([]job.Transaction, transactions),
		}
		m.Put(tmpl)
	}
	put()
	return jobtest.Node{
		Source:          m,
		NewBlock:        func(*testing.T) { height++; transactions = 0; put() },
		NewTransactions: func(*testing.T) { transactions++; put() },
		SetDown:         m.setDown,
		Patience:        patience(),
	}
}

// patience is short where a test is expected to fail.
func patience() time.Duration {
	if os.Getenv("JOBTEST_BROKEN") != "" {
		return 300 * time.Millisecond
	}
	return 0
}

func TestManual(t *testing.T) { jobtest.TestSource(t, newNode) }

func TestFlaky(t *testing.T) {
	hub := job.NewHub(nil)
	f := &jobtest.Flaky{Broadcaster: hub}
	jobtest.TestBroadcaster(t, func(*testing.T) jobtest.Bus {
		hub := job.NewHub(nil)
		return jobtest.Bus{Broadcaster: &jobtest.Flaky{Broadcaster: hub}, Feed: hub}
	})
	down := errors.New("down")
	f.Fail(down)
	require.ErrorIs(t, f.Broadcast(t.Context(), &job.Job{}), down)
	require.Equal(t, 1, f.Failed())
	require.Zero(t, hub.Stats().Jobs)
	f.Fail(nil)
	require.NoError(t, f.Broadcast(t.Context(), &job.Job{}))
	require.EqualValues(t, 1, hub.Stats().Jobs)
	require.Equal(t, 1, f.Failed())
}

// brokenBus changes what passes through a hub.
type brokenBus struct {
	*job.Hub
	broadcast func(b *brokenBus, ctx context.Context, j *job.Job) error
	follow    func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error

	mu   sync.Mutex
	held *job.Job
	subs []chan *job.Job
}

func (b *brokenBus) Broadcast(ctx context.Context, j *job.Job) error {
	if b.broadcast != nil {
		return b.broadcast(b, ctx, j)
	}
	return b.Hub.Broadcast(ctx, j)
}

func (b *brokenBus) Follow(ctx context.Context, last int, put func(*job.Job)) error {
	if b.follow != nil {
		return b.follow(b, ctx, last, put)
	}
	return b.Hub.Follow(ctx, last, put)
}

// edit passes jobs on through f.
func edit(f func(j job.Job) *job.Job) *brokenBus {
	return &brokenBus{follow: func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error {
		return b.Hub.Follow(ctx, last, func(j *job.Job) { put(f(*j)) })
	}}
}

// Buses that break a promise, and the subtest that has to see it.
var brokenBuses = []struct {
	name string
	bus  func() *brokenBus
	want string
}{
	{"swaps two jobs", func() *brokenBus {
		return &brokenBus{follow: func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error {
			var held *job.Job
			n := 0
			return b.Hub.Follow(ctx, last, func(j *job.Job) {
				switch n++; {
				case n == 5:
					held = j
				case held != nil:
					put(j)
					put(held)
					held = nil
				default:
					put(j)
				}
			})
		}}
	}, "RemembersRecent"},
	{"loses clean marks", func() *brokenBus {
		seen := job.ID(0)
		return edit(func(j job.Job) *job.Job {
			if j.ID>>32 != seen>>32+1 && (j.ID>>32)%10 != 8 { // after a gap, but for the first jobs of a tip
				j.Clean = false
			}
			seen = j.ID
			return &j
		})
	}, "NeverWaits"},
	{"marks too many jobs clean", func() *brokenBus {
		return edit(func(j job.Job) *job.Job { j.Clean = true; return &j })
	}, "KeepsOrder"},
	{"waits for followers", func() *brokenBus {
		return &brokenBus{
			broadcast: func(b *brokenBus, ctx context.Context, j *job.Job) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				for _, s := range b.subs {
					select {
					case s <- j:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return b.Hub.Broadcast(ctx, j)
			},
			follow: func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error {
				jobs := make(chan *job.Job)
				b.mu.Lock()
				b.subs = append(b.subs, jobs)
				b.mu.Unlock()
				once, stop := context.WithCancel(ctx)
				_ = b.Hub.Follow(once, last, func(j *job.Job) { put(j); stop() })
				stop()
				for {
					select {
					case j := <-jobs:
						put(j)
					case <-ctx.Done():
						return nil
					}
				}
			},
		}
	}, "NeverWaits"},
	{"remembers half", func() *brokenBus {
		return &brokenBus{follow: func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error {
			return b.Hub.Follow(ctx, min(last, 60), put)
		}}
	}, "RemembersRecent"},
	{"replays what nobody asked for", func() *brokenBus {
		return &brokenBus{follow: func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error {
			return b.Hub.Follow(ctx, max(last, 1), put)
		}}
	}, "FollowsFromNow"},
	{"drops a field", func() *brokenBus {
		return edit(func(j job.Job) *job.Job { j.MaxTime, j.WitnessCommitment = 0, nil; return &j })
	}, "CarriesEveryField"},
	{"returns an error when its context ends", func() *brokenBus {
		return &brokenBus{follow: func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error {
			_ = b.Hub.Follow(ctx, last, put)
			return ctx.Err()
		}}
	}, "StopsWithContext"},
	{"does not stop", func() *brokenBus {
		return &brokenBus{follow: func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error {
			return b.Hub.Follow(context.WithoutCancel(ctx), last, put)
		}}
	}, "StopsWithContext"},
	{"overlaps calls", func() *brokenBus {
		return &brokenBus{follow: func(b *brokenBus, ctx context.Context, last int, put func(*job.Job)) error {
			return b.Hub.Follow(ctx, last, func(j *job.Job) { go put(j); put(j) })
		}}
	}, "KeepsOrder"},
	{"changes what is broadcast", func() *brokenBus {
		return &brokenBus{broadcast: func(b *brokenBus, ctx context.Context, j *job.Job) error {
			j.Clean = true
			return b.Hub.Broadcast(ctx, j)
		}}
	}, "KeepsOrder"},
}

// brokenSource changes what a Manual does.
type brokenSource struct {
	job.TemplateSource
	watch func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error
}

func (s brokenSource) Watch(ctx context.Context, put func(*job.Template)) error {
	return s.watch(s.TemplateSource, ctx, put)
}

var brokenSources = []struct {
	name  string
	watch func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error
	want  string
}{
	{"waits for a change", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		first := true
		return inner.Watch(ctx, func(t *job.Template) {
			if !first {
				put(t)
			}
			first = false
		})
	}, "PutsAtOnce"},
	{"misses changes", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		first := true
		return inner.Watch(ctx, func(t *job.Template) {
			if first {
				put(t)
			}
			first = false
		})
	}, "PutsChanges"},
	{"looks at tips only", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		var tip job.Hash
		return inner.Watch(ctx, func(t *job.Template) {
			if t.PrevHash != tip {
				put(t)
			}
			tip = t.PrevHash
		})
	}, "PutsChanges"},
	{"has no ids", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		return inner.Watch(ctx, func(t *job.Template) { c := *t; c.ID = job.Hash{}; put(&c) })
	}, "PutsAtOnce"},
	{"tells no time", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		return inner.Watch(ctx, func(t *job.Template) { c := *t; c.Received = time.Time{}; put(&c) })
	}, "PutsAtOnce"},
	{"returns an error at the end", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		_ = inner.Watch(ctx, put)
		return ctx.Err()
	}, "StopsWithContext"},
	{"does not stop", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		return inner.Watch(context.WithoutCancel(ctx), put)
	}, "StopsWithContext"},
	{"gives up", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		once, stop := context.WithCancel(ctx)
		defer stop()
		_ = inner.Watch(once, func(t *job.Template) { put(t); stop() })
		return errors.New("connection refused")
	}, "PutsChanges"},
	{"gives up while its node is down", job.TemplateSource.Watch, "SurvivesFailures"},
	{"puts after it has returned", func(inner job.TemplateSource, ctx context.Context, put func(*job.Template)) error {
		go func() { _ = inner.Watch(context.WithoutCancel(ctx), put) }()
		<-ctx.Done()
		return nil
	}, "NeverOverlaps"},
}

// TestBroken runs the suites against one broken implementation, in the process that TestSuitesSeeWhatIsBroken starts.
func TestBroken(t *testing.T) {
	name := os.Getenv("JOBTEST_BROKEN")
	if name == "" {
		return // run by TestSuitesSeeWhatIsBroken
	}
	for _, b := range brokenBuses {
		if name == "bus "+b.name {
			jobtest.TestBroadcaster(t, func(*testing.T) jobtest.Bus {
				bus := b.bus()
				bus.Hub = job.NewHub(nil)
				return jobtest.Bus{Broadcaster: bus, Feed: bus, Patience: patience()}
			})
		}
	}
	for _, b := range brokenSources {
		if name == "source "+b.name {
			jobtest.TestSource(t, func(t *testing.T) jobtest.Node {
				n := newNode(t)
				n.Source = brokenSource{n.Source, b.watch}
				return n
			})
		}
	}
}

func TestSuitesSeeWhatIsBroken(t *testing.T) {
	if os.Getenv("JOBTEST_BROKEN") != "" {
		return
	}
	check := func(kind, name, want string) {
		t.Run(kind+" "+name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestBroken$/^"+want+"$", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), "JOBTEST_BROKEN="+kind+" "+name)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "the suite passes")
			require.True(t, strings.Contains(string(out), "--- FAIL: TestBroken/"+want), "want %s to fail:\n%s", want, out)
			require.NotContains(t, string(out), "panic:")
		})
	}
	for _, b := range brokenBuses {
		check("bus", b.name, b.want)
	}
	for _, b := range brokenSources {
		check("source", b.name, b.want)
	}
}

func ExampleTestBroadcaster() {
	// In a test file of a backend:
	_ = func(t *testing.T) {
		jobtest.TestBroadcaster(t, func(t *testing.T) jobtest.Bus {
			bus := job.NewHub(nil) // your backend here
			return jobtest.Bus{Broadcaster: bus, Feed: bus}
		})
	}
}
