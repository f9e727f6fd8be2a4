package stratum

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// FuzzSession gives a session whatever bytes, in pieces, before and after its login as a miner or as an agent. Whatever
// they are, no share is credited twice, every reply is a line that can be read, and what is kept of a half line is
// bounded.
func FuzzSession(f *testing.F) {
	login := `{"id":1,"method":"mining.subscribe","params":["%s"]}` + "\n" + `{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}` + "\n"
	agent := fmt.Sprintf(login, "btccom-agent/2.0.0-mu")
	for _, seed := range []string{
		`{"id":4,"method":"mining.submit","params":["alice.rig","0","0000000000000001","%x","00000001"]}` + "\n",
		"\x7f\x01\x14\x00\x22\x11cgminer\x00s1099\x00\x7f\x13\x17\x00\x00\x22\x11\x44\x33\x22\x11\xdd\xcc\xbb\xaa\xd0\x2a\xbd\x57\x00\x00\x12\x00",
		"\x7f\x04\x06\x00\x22\x11{}\n\x7f\x02\xff\xff",
		"PROXY TCP4 10.1.2.3 10.0.0.1 4000 3333\r\n" + fmt.Sprintf(login, "x"),
		"\x16\x03\x01\x02\x00\x01", "GET / HTTP/1.1\r\n\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c",
		`{"id":1,"method":"agent.get_capabilities","params":[]}` + "\n",
		`{"id":1,"method":"mining.configure","params":[["version-rolling","minimum-difficulty"],{"version-rolling.mask":"ffffffff","minimum-difficulty.value":1e308}]}` + "\n",
		`{"id":1,"method":"mining.suggest_difficulty","params":[1e-300]}` + "\n" + `{"id":1,"method":"mining.suggest_target","params":["00"]}` + "\n",
	} {
		for state := range uint8(3) {
			f.Add([]byte(seed), state, uint8(7))
		}
	}
	for _, file := range must(filepath.Glob("testdata/transcripts/*.txt")) {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text, uint8(1), uint8(200))
	}
	now := time.Now()
	j, err := job.New(job.Job{
		ID: job.ID(now.Unix())<<32 | 1, Height: 840000, Version: 0x20000000, Bits: 0x207fffff,
		Time: uint32(now.Unix()), MinTime: uint32(now.Unix()) - 600,
		Coinb1: make([]byte, 80), Coinb2: make([]byte, 90), Branch: make([]job.Hash, 2),
	})
	require.NoError(f, err)
	prefixes := NewPrefixes(1, 0) // which is large
	f.Fuzz(func(t *testing.T, data []byte, state, piece uint8) {
		users, err := OpenUsers("")
		require.NoError(t, err)
		credited := make(map[share.ID]bool)
		sink := share.SinkFunc(func(_ context.Context, shares []share.Share) error {
			for i := range shares {
				if id := shares[i].ID(); shares[i].Verdict.Accepted() {
					require.False(t, credited[id], "credited twice")
					credited[id] = true
				}
			}
			return nil
		})
		srv, err := New(job.NewHub(nil), users, sink, noSolutions{}, &Options{
			Extranonces:     prefixes,
			StartDifficulty: 1.0 / (1 << 30), MinDifficulty: 1.0 / (1 << 32), MultiWorker: state&8 != 0,
		})
		require.NoError(t, err)
		srv.take(j, now)
		out := new(recorder)
		s := newSession(srv, plainPort, out, 0x01000002, now)
		s.done = func() {}
		srv.sessions[s.prefix] = s
		switch state % 3 {
		case 1:
			s.feed(t, fmt.Sprintf(login, "cgminer/4"))
		case 2:
			s.feed(t, agent)
		}
		if s.held != nil { // feed keeps it
			s.release()
		}
		for len(data) > 0 {
			sc := s.take()
			n := copy(sc.buf[len(s.partial):], data[:min(len(data), int(piece)+1)])
			data = data[n:]
			err := s.process(context.Background(), len(s.partial)+n)
			s.release()
			s.pause = 0
			require.LessOrEqual(t, len(s.partial), srv.opts.MaxLine)
			if err != nil {
				break
			}
		}
		for pushing := true; pushing; runtime.Gosched() {
			s.out.mu.Lock()
			pushing = s.out.writing
			s.out.mu.Unlock()
		}
		out.check(t)
		s.end(context.Background(), errors.New("done"))
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A recorder is a connection that keeps what is written to it.
type recorder struct {
	sinkhole
	mu      sync.Mutex // jobs are pushed by a goroutine of their own
	written []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = append(r.written, b...)
	return len(b), nil
}
func (r *recorder) Read([]byte) (int, error)        { return 0, net.ErrClosed }
func (r *recorder) Close() error                    { return nil }
func (r *recorder) SetReadDeadline(time.Time) error { return nil }

// check reads all that was written as messages of the protocol, up to the first frame or refusal.
func (r *recorder) check(t *testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for rest := r.written; len(rest) > 0 && rest[0] == '{'; {
		line, n := sv1.NextLine(rest)
		require.NotZero(t, n, "half a line: %q", rest)
		var m sv1.Message
		require.NoError(t, m.Decode(line), "%q", line)
		rest = rest[n:]
	}
}
