package stratum_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/stratumtest"
	"github.com/stretchr/testify/require"
)

// process makes a server that serves only when it is told to.
func process(t testing.TB, opts stratum.Options) (p *pool, serve func()) {
	t.Helper()
	if opts.StartDifficulty == 0 {
		opts.StartDifficulty, opts.MinDifficulty = 1024, 64
	}
	opts.NewPolicy = startAt(opts.StartDifficulty)
	p = &pool{t: t, hub: job.NewHub(nil), ln: stratumtest.Listen()}
	users, err := stratum.OpenUsers("")
	require.NoError(t, err)
	opts.AboveNetwork = true
	p.server, err = stratum.New(p.hub, users, p, p, &opts)
	require.NoError(t, err)
	return p, func() {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.server.Serve(ctx, p.ln) }()
		p.stop = sync.OnceValue(func() error { cancel(); return <-done })
		t.Cleanup(func() { require.NoError(t, p.stop()) })
		synctest.Wait()
	}
}

// next ends a server and starts the process after it.
func (p *pool) next(opts stratum.Options) (after *pool, restored int) {
	p.t.Helper()
	require.NoError(p.t, p.stop())
	return restoredFrom(p.t, p.saved(), opts)
}

func (p *pool) saved() string {
	p.t.Helper()
	var saved bytes.Buffer
	require.NoError(p.t, p.server.SaveSessions(&saved))
	return saved.String()
}

func restoredFrom(t testing.TB, saved string, opts stratum.Options) (after *pool, restored int) {
	t.Helper()
	after, serve := process(t, opts)
	restored, err := after.server.RestoreSessions(strings.NewReader(saved))
	require.NoError(t, err)
	require.Equal(t, restored, after.server.Stats().Parked)
	serve()
	return after, restored
}

func TestSessionsGoOnInTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, serve := process(t, stratum.Options{})
		serve()
		for range 3 {
			p.give(100, hardBits) // so that short ids do not begin at 0
		}
		lost := p.was("10.0.0.1", "alice.lost")
		time.Sleep(time.Minute)
		live := p.dialFrom("10.0.0.2")
		id := live.subscribe(resumer, "")
		live.letIn("alice.rig", "d=4096")
		require.EqualValues(t, 4096, live.told())
		oldJob, n := live.notify()
		agent := p.agentWire() // has nothing to go on with
		agent.login("", true)
		p.dial().subscribe("x", "") // nor has this

		p, restored := p.next(stratum.Options{})
		require.Equal(t, 2, restored)
		p.give(101, hardBits)

		c := p.dialFrom("10.0.0.2")
		require.Equal(t, id, c.subscribe(resumer, id))
		c.letIn("alice.rig", "x")
		require.EqualValues(t, 4096, c.told())
		newJob, n2 := c.notify()
		require.True(t, n2.Clean)
		require.NotEqual(t, oldJob, newJob, "work of the process before must not pass for work of this one")
		require.Equal(t, "21", c.submit(work{"alice.rig", oldJob, "0000000000000000", fmt.Sprintf("%08x", n.NTime), "00000001", ""}))
		require.Equal(t, "23", c.submit(work{"alice.rig", newJob, "0000000000000000", fmt.Sprintf("%08x", n2.NTime), "00000001", ""}))

		// Newcomers get none of those prefixes.
		for range 5 {
			en1 := p.dial().subscribe("new", "")
			require.NotContains(t, []string{id, lost}, en1)
		}
		require.NotEqual(t, lost, p.dialFrom("10.0.0.2").subscribe(resumer, lost), "of another address")
		other := p.dialFrom("10.0.0.3")
		other.subscribe("new", "")
		other.letIn("alice.lost", "x")
		require.EqualValues(t, 1024, other.told(), "what it had")
		require.Equal(t, lost, p.dialFrom("10.0.0.1").subscribe(resumer, lost))
	})
}

// A process that had nothing to do hands on what it was handed.
func TestSessionsOutliveSeveralProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, serve := process(t, stratum.Options{})
		serve()
		p.give(100, hardBits)
		id := p.was("10.0.0.1", "alice.rig")
		for range 3 {
			time.Sleep(2 * time.Minute)
			var restored int
			p, restored = p.next(stratum.Options{})
			require.Equal(t, 1, restored)
		}
		p.give(101, hardBits)
		time.Sleep(4*time.Minute - 2*time.Second)
		c := p.dialFrom("10.0.0.1")
		require.Equal(t, id, c.subscribe(resumer, id))
	})
}

// The time runs on from when the miner was lost, not from when a process was started.
func TestRestoredSessionsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, serve := process(t, stratum.Options{})
		serve()
		p.give(100, hardBits)
		const n = 12 // by minute; the order in which they are saved is any
		var ids []string
		for i := range n {
			ids = append(ids, p.was("10.0.0.1", fmt.Sprint("alice.", i)))
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Second / 2) // the server looks every second
		p, restored := p.next(stratum.Options{})
		require.Equal(t, 9, restored, "those that have been lost for 1 to 9 minutes; the tenth was up just now")
		p.give(101, hardBits)
		for left := restored; left > 0; left-- {
			require.Equal(t, left, p.server.Stats().Parked)
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		require.Zero(t, p.server.Stats().Parked)
		for _, id := range ids {
			p.dialFrom("10.0.0.1").subscribe(resumer, id)
		}
		require.Zero(t, p.server.Stats().Resumed)
	})
}

func TestTheNewestSessionsAreRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, serve := process(t, stratum.Options{})
		serve()
		p.give(100, hardBits)
		var ids []string
		for i := range 12 {
			ids = append(ids, p.was("10.0.0.1", fmt.Sprint("alice.", i)))
			time.Sleep(time.Second)
		}
		p, restored := p.next(stratum.Options{MaxParked: 4})
		require.Equal(t, 4, restored)
		p.give(101, hardBits)
		for i, id := range ids {
			p.dialFrom("10.0.0.1").subscribe(resumer, id)
			require.EqualValues(t, max(0, i-7), p.server.Stats().Resumed, "session %d", i)
		}
	})
}

func TestAServerWithAnotherIDRestoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, serve := process(t, stratum.Options{ServerID: 1})
		serve()
		p.give(100, hardBits)
		id := p.was("10.0.0.1", "alice.rig")
		p, restored := p.next(stratum.Options{ServerID: 2})
		require.Zero(t, restored)
		require.Regexp(t, "^02", p.dialFrom("10.0.0.1").subscribe(resumer, id))
	})
}

func TestAServerWithoutResumingRestoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, serve := process(t, stratum.Options{})
		serve()
		p.give(100, hardBits)
		p.was("10.0.0.1", "alice.rig")
		_, restored := p.next(stratum.Options{ResumeTime: -1})
		require.Zero(t, restored)
	})
}

// Jobs are numbered on, so that for as long as ids last none of the process before is one of the next.
func TestShortIDsDoNotCollideAcrossProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := make(map[string]bool)
		p, serve := process(t, stratum.Options{})
		serve()
		for round := range 5 {
			c := p.dial()
			c.login("alice.rig")
			for i := range 40 {
				p.give(int32(100+100*round+i), hardBits)
				if i == 0 {
					c.told()
				}
				id, _ := c.notify()
				require.False(t, seen[id], "process %d, job %d: id %s", round, i, id)
				seen[id] = true
			}
			p, _ = p.next(stratum.Options{})
		}
	})
}

const oneSaved = `{"extranonce1":16777221,"ended":"2000-01-01T00:00:00Z","ip":"10.0.0.1","agent":"x","user":"alice","worker":"rig","difficulty":1024}`

func TestRestoringWhatNobodySaved(t *testing.T) {
	list := func(sessions ...string) string {
		return `{"version":1,"jobs":7,"sessions":[` + strings.Join(sessions, ",") + `]}`
	}
	with := func(old, new string) string {
		if !strings.Contains(oneSaved, old) {
			panic(old)
		}
		return strings.Replace(oneSaved, old, new, 1)
	}
	tests := []struct {
		name, text string
		restored   int
		err        string
	}{
		{"one that is good", list(oneSaved), 1, ""},
		{"none", list(), 0, ""},
		{"no list", `{"version":1}`, 0, ""},
		{"the same one twice", list(oneSaved, oneSaved), 1, ""},
		{"one that is good and one that is not", list(with(`"10.0.0.1"`, `""`), oneSaved), 1, ""},
		{"keys of a later version's", list(with(`"agent"`, `"colour":"red","agent"`)), 1, ""},
		{"no address", list(with(`"ip":"10.0.0.1",`, ``)), 0, ""},
		{"no user", list(with(`"alice"`, `""`)), 0, ""},
		{"no difficulty", list(with(`1024`, `0`)), 0, ""},
		{"a negative difficulty", list(with(`1024`, `-1`)), 0, ""},
		{"an enormous difficulty", list(with(`1024`, `1e300`)), 1, ""}, // it is bounded when it is used
		{"long ago", list(with(`2000-01-01`, `1970-01-01`)), 0, ""},
		{"in the future", list(with(`2000-01-01`, `2090-01-01`)), 1, ""},
		{"a prefix that is not ours", list(with(`16777221`, `5`)), 0, ""},
		{"a prefix above all indices", list(with(`16777221`, `33554431`)), 0, ""},

		{"nothing", "", 0, "EOF"},
		{"half of it", list(oneSaved)[:80], 0, "unexpected EOF"},
		{"not JSON", "sessions", 0, "invalid character"},
		{"another type", "[]", 0, "cannot unmarshal"},
		{"no version", `{"sessions":[]}`, 0, "version 0 is not known"},
		{"a later version", `{"version":2,"sessions":[]}`, 0, "version 2 is not known"},
		{"an address that is none", list(with(`10.0.0.1`, `10.0.0.256`)), 0, "10.0.0.256"},
		{"a time that is none", list(with(`2000-01-01`, `yesterday`)), 0, "yesterday"},
		{"a prefix that is too large", list(with(`16777221`, `4294967296`)), 0, "cannot unmarshal number"},
		{"a number of jobs that is too large", strings.Replace(list(), "7", "4294967296", 1), 0, "cannot unmarshal number"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, serve := process(t, stratum.Options{})
				restored, err := p.server.RestoreSessions(strings.NewReader(test.text))
				require.Equal(t, test.restored, restored)
				require.Equal(t, test.restored, p.server.Stats().Parked)
				if test.err == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, "stratum: restore sessions: ")
					require.ErrorContains(t, err, test.err)
				}
				serve()
				p.give(100, hardBits)
				c := p.dialFrom("10.0.0.1")
				require.Equal(t, test.restored == 1, c.subscribe("x", "01000005") == "01000005")
				c.letIn("alice.rig", "x")
				require.LessOrEqual(t, c.told(), difficulty.Max)
				id, _ := c.notify()
				if test.err != "" {
					require.Equal(t, "0", id, "what failed changes nothing")
				}
			})
		})
	}
}

// A forgetful allocator cannot reserve.
type forgetful struct{ stratum.Extranonces }

func TestSavingAndRestoringFail(t *testing.T) {
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		p, _ := process(t, stratum.Options{})
		_, err := p.server.RestoreSessions(iotest.ErrReader(broken))
		require.ErrorIs(t, err, broken)
		r, w := io.Pipe()
		require.NoError(t, r.CloseWithError(broken))
		require.ErrorIs(t, p.server.SaveSessions(w), broken)
		require.ErrorContains(t, p.server.SaveSessions(w), "stratum: save sessions: ")

		p, _ = process(t, stratum.Options{Extranonces: forgetful{stratum.NewPrefixes(1, 0)}})
		_, err = p.server.RestoreSessions(strings.NewReader(`{"version":1,"sessions":[` + oneSaved + `]}`))
		require.ErrorContains(t, err, "cannot be reserved")
		require.Zero(t, p.server.Stats().Parked)
	})
}

// FuzzRestoreSessions restores anything: what a server takes of it can be saved and restored again, and miners are
// served.
func FuzzRestoreSessions(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"jobs":7,"sessions":[` + oneSaved + `]}`,
		`{"version":1,"jobs":4294967295,"sessions":[` + oneSaved + `,` + strings.Replace(oneSaved, "16777221", "16777222", 1) + `]}`,
		`{"version":1,"sessions":[{"extranonce1":16777216,"ended":"2000-01-01T00:00:00.5+14:00","ip":"fe80::1%eth0","user":"é\u0000","worker":"","difficulty":1e-9}]}`,
		`{"version":1,"sessions":null}`, `{"version":2}`, `{`, `null`, ``,
	} {
		f.Add([]byte(seed))
	}
	prefixes := func() stratum.Extranonces { return stratum.NewPrefixes(1, 0) }
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			p, serve := process(t, stratum.Options{Extranonces: prefixes()})
			restored, err := p.server.RestoreSessions(bytes.NewReader(data))
			if err != nil {
				require.Zero(t, restored)
			}
			require.Equal(t, restored, p.server.Stats().Parked)
			saved := p.saved()
			require.True(t, json.Valid([]byte(saved)))
			after, _ := process(t, stratum.Options{Extranonces: prefixes()})
			again, err := after.server.RestoreSessions(strings.NewReader(saved))
			require.NoError(t, err)
			require.Equal(t, restored, again)

			serve()
			p.give(100, hardBits)
			c := p.dialFrom("10.0.0.1")
			c.subscribe("x", "01000005")
			c.letIn("alice.rig", "x")
			require.LessOrEqual(t, c.told(), difficulty.Max)
			c.notify()
			require.NoError(t, p.stop())
		})
	})
}

// The extranonces of sessions that nobody can resume are not handed out again at once by the next process, whose memory
// of shares is empty.
func TestTheNextProcessGoesOnWithOtherExtranonces(t *testing.T) {
	var saved bytes.Buffer
	in(t, stratum.Options{ResumeTime: -1}, func(t *testing.T, p *pool) {
		for range 3 {
			p.dial().login("alice.rig")
		}
		require.NoError(t, p.stop())
		require.NoError(t, p.server.SaveSessions(&saved))
	})
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		n, err := p.server.RestoreSessions(&saved)
		require.NoError(t, err)
		require.Zero(t, n)
		c := p.dial()
		c.login("alice.rig")
		require.Equal(t, []byte{1, 0, 0, 3}, c.en1)
	})
}
