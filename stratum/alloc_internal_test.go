package stratum

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/stretchr/testify/require"
)

// A sinkhole is a connection that takes everything and says nothing.
type sinkhole struct{ net.Conn }

func (sinkhole) Write(b []byte) (int, error)      { return len(b), nil }
func (sinkhole) SetWriteDeadline(time.Time) error { return nil }
func (sinkhole) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 4} }

type noSolutions struct{}

func (noSolutions) PutSolution(context.Context, *share.Solution) error { return nil }

// minerAtWork returns a session that has a job, with 12 merkle steps, at a difficulty that nothing meets.
func minerAtWork(t testing.TB) *Session {
	users, err := OpenUsers("")
	require.NoError(t, err)
	sink := share.SinkFunc(func(context.Context, []share.Share) error { return nil })
	srv, err := New(job.NewHub(nil), users, sink, noSolutions{}, &Options{
		Limits:    NoLimits(),
		NewPolicy: func(*Session) difficulty.Policy { return difficulty.Fixed(16384) },
	})
	require.NoError(t, err)
	now := time.Now()
	j, err := job.New(job.Job{
		ID: job.ID(now.Unix())<<32 | 1, Height: 840000, Version: 0x20000000, Bits: 0x17034219,
		Time: uint32(now.Unix()), MinTime: uint32(now.Unix()) - 600,
		Coinb1: make([]byte, 80), Coinb2: make([]byte, 90), Branch: make([]job.Hash, 12),
	})
	require.NoError(t, err)
	srv.take(j, now)
	s := newSession(srv, plainPort, sinkhole{}, 0x01000002, now)
	s.srv.sessions[s.prefix] = s
	s.feed(t, `{"id":1,"method":"mining.subscribe","params":[]}`+"\n"+`{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}`+"\n")
	require.True(t, s.ready)
	return s
}

// feed lets the session read data. It keeps its buffers, which would go back to a pool that under the race detector
// loses some of them on purpose.
func (s *Session) feed(t testing.TB, data string) {
	if s.held == nil {
		s.take()
	}
	s.held.now = time.Now()
	n := copy(s.held.buf, data)
	if err := s.process(context.Background(), n); err != nil {
		t.Fatal(err)
	}
}

const submitLine = `{"params": ["alice.rig", "0", "%016x", "%08x", "%08x"], "id": 4, "method": "mining.submit"}` + "\n"

// A patient policy could hurry and never does.
type patient struct{ difficulty.Fixed }

func (patient) Hurry(time.Time) bool { return false }

func TestASubmitAllocatesNothing(t *testing.T) {
	t.Run("", func(t *testing.T) { testASubmitAllocatesNothing(t, difficulty.Fixed(16384)) })
	t.Run("with a policy that may hurry", func(t *testing.T) { testASubmitAllocatesNothing(t, patient{16384}) })
}

func testASubmitAllocatesNothing(t *testing.T, policy difficulty.Policy) {
	s := minerAtWork(t)
	s.setPolicy(&s.miner, policy)
	ntime := s.sent[0].job.Time
	lines := make([]string, 9000)
	for i := range lines {
		lines[i] = fmt.Sprintf(submitLine, i, ntime, i)
	}
	i := 0
	for ; i < 4096; i++ { // let the memory of shares grow
		s.feed(t, lines[i])
	}
	if n := testing.AllocsPerRun(2000, func() { s.feed(t, lines[i]); i++ }); n != 0 {
		t.Errorf("a submit allocates %v times, want 0", n)
	}
}

// BenchmarkSession is what a submit costs between the socket and the reply: split, decoded, hashed, judged, answered.
func BenchmarkSession(b *testing.B) {
	s := minerAtWork(b)
	ntime := s.sent[0].job.Time
	var lines [1 << 16]string
	for i := range lines {
		lines[i] = fmt.Sprintf(submitLine, i, ntime, i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i == len(lines) {
			s.validator.Init(&s.srv.opts.Validation) // as with a new job
			i = 0
		}
		s.feed(b, lines[i])
		i++
	}
}
