package jobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/poolkit/poolkit/job"
)

// A Bus is a Broadcaster under test and the Feed at its other end.
type Bus struct {
	Broadcaster job.Broadcaster
	Feed        job.Feed

	// Patience is how long a test waits for what must happen; 0 means 10 s.
	Patience time.Duration
}

func (b Bus) patience() time.Duration {
	if b.Patience > 0 {
		return b.Patience
	}
	return 10 * time.Second
}

// TestBroadcaster checks the promises of [job.Broadcaster] and [job.Feed]. open returns an empty bus, which nobody else
// uses, and cleans up with t.Cleanup.
func TestBroadcaster(t *testing.T, open func(t *testing.T) Bus) {
	t.Run("KeepsOrder", func(t *testing.T) { testKeepsOrder(t, open(t)) })
	t.Run("NeverWaits", func(t *testing.T) { testNeverWaits(t, open(t)) })
	t.Run("RemembersRecent", func(t *testing.T) { testRemembersRecent(t, open(t)) })
	t.Run("CarriesEveryField", func(t *testing.T) { testCarriesEveryField(t, open(t)) })
	t.Run("FollowsFromNow", func(t *testing.T) { testFollowsFromNow(t, open(t)) })
	t.Run("StopsWithContext", func(t *testing.T) { testStopsWithContext(t, open(t)) })
}

// testJob returns the job with number n of a chain that finds a block after every tenth.
func testJob(t testing.TB, n int) *job.Job {
	t.Helper()
	tip := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n/10)))
	step := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("step"), uint64(n)))
	j, err := job.New(job.Job{
		ID:                job.ID(uint64(1713597568+n)<<32 | 1),
		Chain:             "btc",
		TemplateID:        sha256.Sum256(tip[:]),
		Height:            int32(840000 + n/10),
		PrevHash:          tip,
		Version:           0x20000000,
		Bits:              0x17034219,
		Time:              uint32(1713597568 + n),
		MinTime:           1713590000,
		MaxTime:           uint32(1713604768 + n),
		Coinb1:            bytes.Repeat([]byte{byte(n), 1}, 30),
		Coinb2:            bytes.Repeat([]byte{byte(n), 2}, 40),
		Branch:            []job.Hash{step, tip},
		CoinbaseValue:     312500000 + int64(n),
		WitnessCommitment: append([]byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed}, step[:]...),
		Clean:             n%10 == 0,
	})
	if err != nil {
		t.Fatalf("jobtest: %v", err)
	}
	return j
}

// broadcast sends jobs from to to-1 and fails the test when a call takes too long.
func (b Bus) broadcast(t *testing.T, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		j := testJob(t, n)
		ctx, cancel := context.WithTimeout(t.Context(), b.patience())
		err := b.Broadcaster.Broadcast(ctx, j)
		cancel()
		if err != nil {
			t.Fatalf("Broadcast of job %d of %d: %v", n, to, err)
		}
		if j.Clean != (n%10 == 0) {
			t.Fatalf("Broadcast changed job %d", n)
		}
	}
}

// A follower is a running call of Follow.
type follower struct {
	t        *testing.T
	patience time.Duration
	stop     context.CancelFunc
	jobs     chan *job.Job
	returned chan error
	calls    calls
}

// calls watches calls of a put function. It says what it has seen when it is asked, since a test that has ended must not
// be told anything.
type calls struct {
	busy, ended, overlapped, late atomic.Bool
}

// enter and leave stand around a call.
func (c *calls) enter() {
	if !c.busy.CompareAndSwap(false, true) {
		c.overlapped.Store(true)
	}
	if c.ended.Load() {
		c.late.Store(true)
	}
	for range 3 {
		runtime.Gosched() // let others overlap
	}
}

func (c *calls) leave() { c.busy.Store(false) }

func (c *calls) report(t *testing.T, method string) {
	t.Helper()
	if c.overlapped.Load() {
		t.Errorf("calls to put overlap")
	}
	if c.late.Load() {
		t.Errorf("put was called after %s had returned", method)
	}
}

// grace is how long a test waits for what must not happen.
const grace = 50 * time.Millisecond

// follow starts Follow and ends it with the test. Jobs wait in a channel that is long enough for every test here;
// gate, unless nil, is received from before each job is taken.
func (b Bus) follow(t *testing.T, last int, gate <-chan struct{}) *follower {
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{t: t, patience: b.patience(), stop: cancel}
	f.jobs, f.returned = make(chan *job.Job, 4096), make(chan error, 1)
	go func() {
		err := b.Feed.Follow(ctx, last, func(j *job.Job) {
			f.calls.enter()
			select {
			case f.jobs <- j:
			default: // thousands more than there are; the test has noticed
			}
			if gate != nil {
				<-gate
			}
			f.calls.leave()
		})
		f.calls.ended.Store(true)
		f.returned <- err
	}()
	t.Cleanup(f.end)
	return f
}

// end stops the follower and checks how Follow returns. It may be called again.
func (f *follower) end() {
	f.stop()
	select {
	case err := <-f.returned:
		if err != nil {
			f.t.Errorf("Follow returned %v after its context had ended, want nil", err)
		}
		f.returned <- nil
	case <-time.After(f.patience):
		f.t.Errorf("Follow did not return within %v of the end of its context", f.patience)
	}
	f.calls.report(f.t, "Follow")
}

func (f *follower) next() *job.Job {
	f.t.Helper()
	select {
	case j := <-f.jobs:
		return j
	case err := <-f.returned:
		f.returned <- err
		f.t.Fatalf("Follow returned (%v), want more jobs", err)
	case <-time.After(f.patience):
		f.t.Fatalf("no job within %v", f.patience)
	}
	return nil
}

// number returns the n of testJob.
func number(j *job.Job) int { return int(j.ID>>32) - 1713597568 }

// until receives jobs until number last, and checks that they are in order and that no clean mark was lost. It returns
// their numbers.
func (f *follower) until(after, last int) []int {
	f.t.Helper()
	var got []int
	for seen := after; seen < last; {
		j := f.next()
		n := number(j)
		if n <= seen {
			f.t.Fatalf("job %d came after job %d", n, seen)
		}
		want := false // whether any job after the last one seen begins a tip
		for c := seen + 1; c <= n; c++ {
			want = want || c%10 == 0
		}
		if want && !j.Clean {
			f.t.Fatalf("job %d after %d is not marked clean, but one that was skipped is", n, seen)
		}
		if !want && j.Clean {
			f.t.Fatalf("job %d after %d is marked clean, but neither it nor one that was skipped was", n, seen)
		}
		seen = n
		got = append(got, n)
	}
	return got
}

func testKeepsOrder(t *testing.T, b Bus) {
	b.broadcast(t, 0, 1)
	one, two := b.follow(t, 1, nil), b.follow(t, 1, nil)
	one.until(-1, 0) // now it follows
	two.until(-1, 0)
	for n := 1; n < 25; n++ { // nobody is behind, so nobody may miss any
		b.broadcast(t, n, n+1)
		one.until(n-1, n)
		two.until(n-1, n)
	}
	b.broadcast(t, 25, 300)
	one.until(24, 299)
	two.until(24, 299)
}

func testNeverWaits(t *testing.T, b Bus) {
	b.broadcast(t, 0, 2)
	gate := make(chan struct{})
	slow, fast := b.follow(t, 1, gate), b.follow(t, 1, nil)
	t.Cleanup(func() { close(gate) })
	if n := number(slow.next()); n != 1 {
		t.Fatalf("Follow put job %d first, want the newest, 1", n)
	}
	// From here on the slow one is stuck in put. Nobody else may notice, for a whole memory of jobs.
	fast.until(0, 1)
	b.broadcast(t, 2, 155)
	fast.until(1, 154)

	gate <- struct{}{} // now it takes what comes next, one at a time
	seen := 1
	for seen < 154 {
		got := slow.until(seen, seen+1)
		seen = got[len(got)-1]
		gate <- struct{}{}
	}
	// A gap without a clean job must not be marked.
	b.broadcast(t, 155, 156)
	slow.until(154, 155)
	b.broadcast(t, 156, 159)
	gate <- struct{}{}
	for seen = 155; seen < 158; {
		got := slow.until(seen, seen+1)
		seen = got[len(got)-1]
		gate <- struct{}{}
	}
}

func testRemembersRecent(t *testing.T, b Bus) {
	b.broadcast(t, 0, 130)
	for _, last := range []int{120, 7, 1} {
		f := b.follow(t, last, nil)
		for i := range last {
			if n, want := number(f.next()), 130-last+i; n != want {
				t.Fatalf("job %d of the last %d is number %d, want %d", i, last, n, want)
			}
		}
	}
	f := b.follow(t, 20, nil)
	for range 20 {
		f.next()
	}
	b.broadcast(t, 130, 132)
	f.until(129, 131)
}

func testCarriesEveryField(t *testing.T, b Bus) {
	want := testJob(t, 10)
	b.broadcast(t, 10, 11)
	got := b.follow(t, 1, nil).next()
	same := got.ID == want.ID && got.Chain == want.Chain && got.TemplateID == want.TemplateID &&
		got.Height == want.Height && got.PrevHash == want.PrevHash && got.Version == want.Version &&
		got.Bits == want.Bits && got.Target() == want.Target() && got.Time == want.Time && got.MinTime == want.MinTime &&
		bytes.Equal(got.Coinb1, want.Coinb1) && bytes.Equal(got.Coinb2, want.Coinb2) &&
		slices.Equal(got.Branch, want.Branch) && got.CoinbaseValue == want.CoinbaseValue &&
		bytes.Equal(got.WitnessCommitment, want.WitnessCommitment)
	if !same {
		t.Errorf("the job that came out differs from the one that went in:\n got %+v\nwant %+v", got, want)
	}
}

func testFollowsFromNow(t *testing.T, b Bus) {
	b.broadcast(t, 0, 5)
	f := b.follow(t, 0, nil)
	select {
	case j := <-f.jobs:
		t.Fatalf("Follow with last = 0 put job %d, which had been sent before", number(j))
	case <-time.After(grace):
	}
	// Nothing tells when it has begun to follow, so jobs go out until the first one arrives.
	for n := 5; ; n++ {
		if n == 4000 {
			t.Fatal("no job came of those sent after Follow began")
		}
		b.broadcast(t, n, n+1)
		select {
		case j := <-f.jobs:
			if number(j) < 5 {
				t.Fatalf("Follow with last = 0 put job %d, which had been sent before", number(j))
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func testStopsWithContext(t *testing.T, b Bus) {
	b.broadcast(t, 0, 1)
	f := b.follow(t, 1, nil)
	f.next()
	f.end()
	b.broadcast(t, 1, 4)
	select {
	case j := <-f.jobs:
		t.Errorf("job %d was put after the context had ended", number(j))
	case <-time.After(grace):
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- b.Feed.Follow(ctx, 3, func(*job.Job) {}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Follow with an ended context returned %v, want nil", err)
		}
	case <-time.After(b.patience()):
		t.Errorf("Follow with an ended context did not return within %v", b.patience())
	}
}
