package job_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
)

// build stands for a Builder: what it makes can be told apart by ID and template. It refuses templates of height 666 and
// makes nothing of height 667.
func build(t *job.Template, id job.ID, now time.Time) (*job.Job, error) {
	if t.Height == 666 {
		return nil, errors.New("coinbase script of 101 bytes")
	}
	if t.Height == 667 {
		return nil, nil
	}
	ids := make([]job.Hash, len(t.Transactions))
	return job.New(job.Job{
		ID: id, TemplateID: t.ID, Template: t, Height: t.Height, PrevHash: t.PrevHash, Bits: 0x207fffff,
		Time: uint32(now.Unix()), Coinb1: make([]byte, 60), Coinb2: make([]byte, 60), Branch: job.MerkleBranch(ids),
	})
}

// tip makes a template that arrives now.
func tip(height int32, transactions int) *job.Template {
	now := time.Now()
	t := &job.Template{
		Height: height, PrevHash: job.Hash{0: byte(height)}, Received: now, Source: "node1",
		Transactions: make([]job.Transaction, transactions),
	}
	t.ID = job.MerkleRoot(fmt.Append(nil, height, transactions, now.UnixNano()), nil)
	return t
}

// A sentJob is a job as it reached the hub's follower, and when.
type sentJob struct {
	*job.Job
	at time.Time
}

// A rig is a Maker that runs in a synctest bubble, from a source that is fed by hand to a hub.
type rig struct {
	source jobtest.Manual
	out    jobtest.Flaky
	hub    *job.Hub
	maker  *job.Maker
	jobs   chan sentJob
	ended  chan error
	stop   context.CancelFunc
	log    bytes.Buffer // read only between synctest.Wait and the next event

	mu     sync.Mutex
	drops  []job.Drop
	hooked []job.ID
	why    []job.SendReason
	errs   []error
}

func newRig(t *testing.T, opts job.MakerOptions, source job.TemplateSource) *rig {
	r := &rig{hub: job.NewHub(nil), jobs: make(chan sentJob, 1000), ended: make(chan error, 1)}
	r.out.Broadcaster = r.hub
	opts.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	opts.Hooks = job.MakerHooks{
		OnJob: func(j *job.Job, why job.SendReason) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.hooked, r.why = append(r.hooked, j.ID), append(r.why, why)
		},
		OnDrop: func(_ *job.Template, why job.Drop) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.drops = append(r.drops, why)
		},
		OnError: func(err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.errs = append(r.errs, err)
		},
	}
	if source == nil {
		source = &r.source
	}
	var err error
	r.maker, err = job.NewMaker(source, build, &r.out, &opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() { r.ended <- r.maker.Run(ctx) }()
	go func() {
		_ = r.hub.Follow(ctx, 0, func(j *job.Job) { r.jobs <- sentJob{j, time.Now()} })
	}()
	synctest.Wait()
	return r
}

// next returns the job that is out now; none is an error of the test.
func (r *rig) next(t *testing.T) sentJob {
	t.Helper()
	synctest.Wait()
	select {
	case j := <-r.jobs:
		return j
	default:
		t.Fatal("no job is out")
		return sentJob{}
	}
}

func (r *rig) none(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case j := <-r.jobs:
		t.Fatalf("job %d of height %d is out", j.ID, j.Height)
	default:
	}
}

// wait lets the bubble's time pass.
func wait(d time.Duration) { <-time.After(d) }

func (r *rig) end(t *testing.T) {
	t.Helper()
	r.stop()
	require.NoError(t, <-r.ended)
	synctest.Wait()
}

func TestMakerSendsNewTipsWithoutDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, job.MakerOptions{ServerID: 7}, nil)
		var lastID job.ID
		for height := int32(100); height < 110; height++ {
			wait(1234567 * time.Microsecond) // in the midst of a tick
			found := time.Now()
			r.source.Put(tip(height, 2))
			j := r.next(t)
			require.Zero(t, j.at.Sub(found), "a new tip costs no time but that of the work itself")
			require.Equal(t, height, j.Height)
			require.True(t, j.Clean)
			require.Equal(t, found.Unix(), j.ID.Time().Unix())
			require.EqualValues(t, 7, j.ID&0xff)
			require.Greater(t, j.ID, lastID)
			lastID = j.ID
			r.none(t)
		}
		r.end(t)
	})
}

func TestMakerRepeatsOnTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, job.MakerOptions{}, nil)
		start := time.Now()
		tmpl := tip(100, 2)
		r.source.Put(tmpl)
		first := r.next(t)
		for n := range 10 {
			wait(20 * time.Second)
			j := r.next(t)
			require.Equal(t, time.Duration(n+1)*20*time.Second, j.at.Sub(start))
			require.False(t, j.Clean, "the same tip")
			require.Equal(t, tmpl.ID, j.TemplateID)
			require.NotEqual(t, first.ID, j.ID)
		}
		r.none(t)
		require.Equal(t, 1, bytes.Count(r.log.Bytes(), []byte("no fresh template")), "an old template is worth one warning")
		require.Equal(t, job.MakerStats{
			Accepted: 1, Jobs: 11, CleanJobs: 1, Height: 100, LastTemplate: start, LastJob: start.Add(200 * time.Second),
		}, r.maker.Stats())
		r.end(t)
	})
}

func TestMakerReplacesAnEmptyJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, job.MakerOptions{}, nil)
		r.source.Put(tip(100, 0))
		require.True(t, r.next(t).Empty())
		wait(300 * time.Millisecond)
		now := time.Now()
		r.source.Put(tip(100, 5))
		j := r.next(t)
		require.False(t, j.Empty())
		require.False(t, j.Clean)
		require.Zero(t, j.at.Sub(now))
		require.Equal(t, []job.SendReason{job.SentFirst, job.SentTransactions}, r.why)
		r.end(t)
	})
}

func TestMakerDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, job.MakerOptions{}, nil)
		good := tip(100, 2)
		r.source.Put(good)
		r.source.Put(good)
		r.source.Put(nil)
		r.source.Put(tip(99, 2))
		old := tip(101, 2)
		late := tip(101, 1)
		wait(3 * time.Second)
		r.source.Put(late)
		wait(57 * time.Second)
		r.source.Put(old)
		synctest.Wait()
		require.Equal(t, []job.Drop{job.DroppedDuplicate, job.DroppedInvalid, job.DroppedLower, job.DroppedOld}, r.drops)
		s := r.maker.Stats()
		require.Equal(t, []uint64{2, 1, 1, 1, 1, 1}, []uint64{s.Accepted, s.Late, s.Duplicate, s.Invalid, s.Lower, s.Old})
		require.Contains(t, r.log.String(), "template is late")
		require.Contains(t, r.log.String(), `why="lower height"`)
		r.end(t)
	})
}

func TestMakerTriesAgainWhenNobodyTakesTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, job.MakerOptions{}, nil)
		r.source.Put(tip(100, 2))
		r.next(t)
		wait(500 * time.Millisecond)

		r.out.Fail(errors.New("no broker"))
		r.source.Put(tip(101, 2))
		wait(4 * time.Second)
		r.none(t)
		require.Equal(t, 5, r.out.Failed(), "one attempt at once and one with each second")
		require.Len(t, r.errs, 5)
		require.ErrorContains(t, r.errs[0], "no broker")
		require.Len(t, r.hooked, 1, "OnJob tells of jobs that went out")
		require.EqualValues(t, 5, r.maker.Stats().Unsent)
		require.EqualValues(t, 100, r.maker.Stats().Height)

		r.out.Fail(nil)
		wait(time.Second)
		j := r.next(t)
		require.EqualValues(t, 101, j.Height)
		require.True(t, j.Clean, "the first on its tip that anybody sees")
		require.Equal(t, r.hooked[1], j.ID)
		r.none(t)
		r.end(t)
	})
}

// stuck is a broadcaster that never answers.
type stuck struct{}

func (stuck) Broadcast(ctx context.Context, _ *job.Job) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestMakerGivesUpOnABroadcasterThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, job.MakerOptions{BroadcastTimeout: 3 * time.Second}, nil)
		r.out.Broadcaster = stuck{}
		r.source.Put(tip(100, 2))
		wait(3 * time.Second)
		synctest.Wait()
		require.Len(t, r.errs, 1)
		require.ErrorIs(t, r.errs[0], context.DeadlineExceeded)
		r.end(t) // in the midst of a call
		require.Len(t, r.errs, 1, "a call that stopped with the Maker is no error")
	})
}

func TestMakerKeepsGoodWorkWhenATemplateCannotBeBuilt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, job.MakerOptions{}, nil)
		r.source.Put(tip(666, 2))
		r.none(t)
		require.Len(t, r.errs, 1, "with nothing to fall back to")
		r.source.Put(tip(600, 2))
		require.EqualValues(t, 600, r.next(t).Height)

		for range 3 {
			wait(5 * time.Second)
			r.source.Put(tip(666, 2))
			r.none(t)
		}
		wait(5 * time.Second)
		require.EqualValues(t, 600, r.next(t).Height, "at the end of the interval the last good one")
		require.Len(t, r.errs, 4, "once for each template")
		require.ErrorContains(t, r.errs[3], `build height 666`)
		require.ErrorContains(t, r.errs[3], `node "node1": coinbase script of 101 bytes`)
		require.EqualValues(t, 4, r.maker.Stats().Unbuilt)
		r.source.Put(tip(667, 2))
		r.none(t)
		require.ErrorContains(t, r.errs[4], "made no job")
		r.end(t)
	})
}

func TestMakerRunEnds(t *testing.T) {
	t.Run("with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, job.MakerOptions{}, nil)
			require.ErrorContains(t, r.maker.Run(t.Context()), "running already")
			r.end(t)
			r.source.Put(tip(100, 2))
			r.none(t)
		})
	})
	t.Run("with a source that can never work", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, job.MakerOptions{}, brokenSource{errors.New("wrong network")})
			require.ErrorContains(t, <-r.ended, "job: maker: wrong network")
			r.stop()
		})
	})
	t.Run("with a source that ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, job.MakerOptions{}, brokenSource{nil})
			require.ErrorContains(t, <-r.ended, "ended by itself")
			r.stop()
		})
	})
	t.Run("and can run again with what it has", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, job.MakerOptions{}, nil)
			r.source.Put(tip(100, 2))
			r.next(t)
			r.stop()
			require.NoError(t, <-r.ended)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { r.ended <- r.maker.Run(ctx) }()
			wait(21 * time.Second)
			require.EqualValues(t, 2, r.maker.Stats().Jobs)
			cancel()
			require.NoError(t, <-r.ended)
		})
	})
}

func TestNewMakerRefuses(t *testing.T) {
	_, err := job.NewMaker(nil, nil, nil, &job.MakerOptions{
		Interval: 999 * time.Millisecond, Lifetime: -1, EmptyLifetime: time.Millisecond, KeyOrder: 2, BroadcastTimeout: -1,
	})
	for _, want := range []string{"template source", "build function", "broadcaster", "Interval", "Lifetime", "EmptyLifetime",
		"key order", "BroadcastTimeout"} {
		require.ErrorContains(t, err, want)
	}
	var m jobtest.Manual
	_, err = job.NewMaker(&m, build, job.NewHub(nil), nil)
	require.NoError(t, err)
}

// A template of every kind goes the whole way through a real Builder.
func TestMakerWithABuilder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := append([]byte{0x00, 0x14}, make([]byte, 20)...)
		builder, err := job.NewBuilder("btc", script, &job.BuilderOptions{Text: "/poolkit/"})
		require.NoError(t, err)
		var source jobtest.Manual
		hub := job.NewHub(nil)
		maker, err := job.NewMaker(&source, builder.Build, hub, nil)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- maker.Run(ctx) }()
		jobs := make(chan *job.Job, 10)
		go func() { _ = hub.Follow(ctx, 0, func(j *job.Job) { jobs <- j }) }()
		synctest.Wait() // it follows, or the first job would come a second time as the one of the interval
		for _, name := range []string{"mainnet-empty", "mainnet", "mainnet-next"} {
			tmpl := jobtest.Template(t, name)
			tmpl.Received = time.Now()
			source.Put(tmpl)
			j := <-jobs
			require.Equal(t, tmpl.ID, j.TemplateID)
			require.Equal(t, tmpl.PrevHash, j.PrevHash)
			require.Equal(t, name != "mainnet", j.Clean, name)
			require.Equal(t, job.Chain("btc"), j.Chain)
		}
		cancel()
		require.NoError(t, <-ended)
		synctest.Wait()
	})
}

func ExampleMaker() {
	var node jobtest.Manual // a job/rpcjob source in a real pool
	hub := job.NewHub(nil)
	builder, err := job.NewBuilder("btc", append([]byte{0x00, 0x14}, make([]byte, 20)...), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	maker, err := job.NewMaker(&node, builder.Build, hub, &job.MakerOptions{Interval: 30 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	tmpl, err := job.ParseTemplate([]byte(`{"result": {
		"version": 536870912, "height": 840000, "bits": "17034219", "curtime": 1713597568,
		"previousblockhash": "0000000000000000000172014ba58d66455762add0512355ad651207918494ab",
		"coinbasevalue": 312500000, "transactions": []
	}}`), time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := maker.Run(ctx); err != nil {
			fmt.Println(err)
		}
	})
	node.Put(tmpl)

	_ = hub.Follow(ctx, 1, func(j *job.Job) {
		fmt.Printf("height %d, clean %v, pays %d satoshi\n", j.Height, j.Clean, j.CoinbaseValue)
		stop()
	})
	running.Wait()
	// Output: height 840000, clean true, pays 312500000 satoshi
}

// From the source's put to the follower's, with the branch of 3,000 transactions built on the way.
func BenchmarkMakerNewTip(b *testing.B) {
	builder, err := job.NewBuilder("btc", append([]byte{0x00, 0x14}, make([]byte, 20)...), nil)
	require.NoError(b, err)
	var source jobtest.Manual
	hub := job.NewHub(nil)
	maker, err := job.NewMaker(&source, builder.Build, hub, nil)
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = maker.Run(ctx) })
	jobs := make(chan *job.Job, 10)
	running.Go(func() { _ = hub.Follow(ctx, 0, func(j *job.Job) { jobs <- j }) })
	mainnet := jobtest.Template(b, "mainnet")
	height := mainnet.Height
	b.ReportAllocs()
	for b.Loop() {
		next := *mainnet
		height++
		next.Height = height
		next.PrevHash[0]++
		next.ID = job.MerkleRoot(fmt.Append(nil, height), nil)
		next.Received = time.Now()
		source.Put(&next)
		<-jobs
	}
	cancel()
	running.Wait()
}
