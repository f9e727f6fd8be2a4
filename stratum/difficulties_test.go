package stratum_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/difficultytest"
	"github.com/stretchr/testify/require"
)

// runDifficulties runs a file's upkeep until stop is called.
func runDifficulties(t testing.TB, d *stratum.DifficultyFile) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { stop() })
	return stop
}

func TestDifficultyFile(t *testing.T) {
	difficultytest.TestDifficultyStore(t, func(t *testing.T) difficultytest.Backend {
		path := filepath.Join(t.TempDir(), "difficulties.jsonl")
		open := func(t *testing.T) (*stratum.DifficultyFile, func() error) {
			d, err := stratum.OpenDifficulties(path, nil)
			require.NoError(t, err)
			return d, runDifficulties(t, d)
		}
		d, stop := open(t)
		return difficultytest.Backend{Store: d, Reopen: func(t *testing.T) (next stratum.DifficultyStore) {
			require.NoError(t, stop())
			next, stop = open(t)
			return next
		}}
	})
}

func worker(n int) share.Worker { return share.Worker{User: "alice", Name: fmt.Sprint("rig", n)} }

func TestADifficultyMemoryIsBounded(t *testing.T) {
	for _, most := range []int{1, 2, 3, 100, 5000} {
		m := stratum.NewDifficultyMemory(&stratum.DifficultyMemoryOptions{MaxWorkers: most})
		for n := range 3 * most {
			m.Save(worker(n), difficulty.State{Difficulty: difficulty.Difficulty(n + 1)})
			require.LessOrEqual(t, m.Len(), most)
		}
		last := 0
		for n := 3*most - 1; n >= 0; n-- {
			if _, ok := m.Load(worker(n)); !ok {
				break
			}
			last++
		}
		require.GreaterOrEqual(t, last, max(most/4, 1), "of %d the latest", most)
		if most > 1 && most < 4096 {
			require.GreaterOrEqual(t, last, most/2)
		}
		// Saving one over and over forgets nobody.
		before := m.Len()
		for range 10 * most {
			m.Save(worker(3*most-1), difficulty.State{Difficulty: 7})
		}
		require.Equal(t, before, m.Len())
	}
}

// The file is always a whole one, and a process that is killed loses no more than an interval.
func TestADifficultyFileIsWrittenEveryInterval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.jsonl")
	synctest.Test(t, func(t *testing.T) {
		d, err := stratum.OpenDifficulties(path, &stratum.DifficultyFileOptions{Interval: 10 * time.Second})
		require.NoError(t, err)
		stop := runDifficulties(t, d)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		require.NoFileExists(t, path, "nothing to write")
		d.Save(worker(1), difficulty.State{At: time.Now(), Difficulty: 64, Hashrate: 1e9, Shares: 12})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, `{"user":"alice","worker":"rig1","at":"2000-01-01T00:00:11Z","difficulty":64,"hashrate":1000000000,"shares":12}`+"\n", string(b))
		require.NoError(t, os.Remove(path))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.NoFileExists(t, path, "nothing is new")
		d.Save(worker(2), difficulty.State{At: time.Now(), Difficulty: 128})
		d.Save(worker(3), difficulty.State{At: time.Now(), Difficulty: difficulty.Difficulty(math.NaN())})
		require.NoError(t, stop())
		b, err = os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, 2, strings.Count(string(b), "\n"))
		left, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, left, 1, "no temporary files")
	})
}

func TestADifficultyFileThatIsDamaged(t *testing.T) {
	good := func(n int) string {
		return fmt.Sprintf(`{"user":"alice","worker":"rig%d","at":"2026-01-01T00:00:00Z","difficulty":64}`, n) + "\n"
	}
	for _, test := range []struct {
		name, text string
		bad        int
	}{
		{"whole", good(1) + good(2), 0},
		{"empty lines", "\n" + good(1) + "\r\n" + good(2), 0},
		{"the end is missing", good(1) + good(2) + `{"user":"alice","wor`, 1},
		{"no end of the last line", good(1) + strings.TrimSpace(good(2)), 0},
		{"zeros where a crash left them", good(1) + good(2) + strings.Repeat("\x00", 4096), 1},
		{"a line without end", good(1) + strings.Repeat("x", 1<<20) + "\n" + good(2), 1},
		{"no user", good(1) + good(2) + `{"worker":"rig","at":"2026-01-01T00:00:00Z","difficulty":64}`, 1},
		{"a name that nobody has", good(1) + good(2) + `{"user":"a b","worker":"rig","at":"2026-01-01T00:00:00Z","difficulty":64}`, 1},
		{"a difficulty below 0", good(1) + good(2) + `{"user":"a","worker":"rig","at":"2026-01-01T00:00:00Z","difficulty":-64}`, 1},
		{"no difficulty", good(1) + good(2) + `{"user":"a","worker":"rig","at":"2026-01-01T00:00:00Z"}`, 1},
		{"a hashrate below 0", good(1) + good(2) + `{"user":"a","worker":"rig","at":"2026-01-01T00:00:00Z","difficulty":1,"hashrate":-1}`, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "d.jsonl")
			require.NoError(t, os.WriteFile(path, []byte(test.text), 0o600))
			var log bytes.Buffer
			d, err := stratum.OpenDifficulties(path, &stratum.DifficultyFileOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, err)
			require.Equal(t, 2, d.Len())
			if test.bad > 0 {
				require.Contains(t, log.String(), fmt.Sprintf("lines=%d", test.bad))
			} else {
				require.Empty(t, log.String())
			}
		})
	}
}

func TestADifficultyFileThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	_, err := stratum.OpenDifficulties(dir, nil)
	require.ErrorContains(t, err, "stratum: read difficulties "+dir)
	d, err := stratum.OpenDifficulties(filepath.Join(dir, "gone", "d.jsonl"), nil)
	require.NoError(t, err)
	d.Save(worker(1), difficulty.State{At: time.Now(), Difficulty: 64})
	require.ErrorContains(t, runDifficulties(t, d)(), "stratum: write difficulties: ")
	path := filepath.Join(dir, "d")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(path, "x"), nil, 0o600))
	d, err = stratum.OpenDifficulties(filepath.Join(path, "x"), nil)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(path, "x")))
	require.NoError(t, os.MkdirAll(filepath.Join(path, "x", "y"), 0o700)) // what a file cannot replace
	d.Save(worker(1), difficulty.State{At: time.Now(), Difficulty: 64})
	require.Error(t, runDifficulties(t, d)())
	left, err := os.ReadDir(path)
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary files")
}

// A keeper goes on from what another one knew, and from nothing else.
type keeper struct {
	known    difficulty.State
	restored []difficulty.State
}

func (k *keeper) Observe(time.Time, difficulty.Difficulty) { k.known.Shares++ }
func (k *keeper) Next(time.Time) difficulty.Difficulty     { return k.known.Difficulty }
func (k *keeper) Reset(d difficulty.Difficulty)            { k.known.Difficulty = d }
func (k *keeper) State(now time.Time) difficulty.State     { s := k.known; s.At = now; return s }
func (k *keeper) Restore(now time.Time, s difficulty.State) {
	k.known, k.restored = s, append(k.restored, s)
}
func keepers(made *[]*keeper) func(*stratum.Session) difficulty.Policy {
	return func(s *stratum.Session) difficulty.Policy {
		k := &keeper{known: difficulty.State{Difficulty: s.StartDifficulty(), Hashrate: 7e12}}
		*made = append(*made, k)
		return wrapped{k}
	}
}

// A worker that comes back to another process is known there, for as long as that is worth something.
func TestWhatIsKnownOfAWorkerIsKept(t *testing.T) {
	rig := share.Worker{User: "alice", Name: "rig"}
	kept := difficulty.State{Difficulty: 4096, Hashrate: 7e12, Shares: 3}
	for _, test := range []struct {
		name     string
		keep     time.Duration
		away     time.Duration
		change   func(s *difficulty.State)
		before   string
		password string
		want     difficulty.Difficulty
		restored bool
	}{
		{name: "after a restart", away: time.Minute, want: 4096, restored: true},
		{name: "nearly a day later", away: 24*time.Hour - time.Second, want: 4096, restored: true},
		{name: "a day later", away: 24 * time.Hour, want: 1024},
		{name: "later than the operator thinks right", keep: time.Hour, away: time.Hour, want: 1024},
		{name: "kept for longer", keep: 48 * time.Hour, away: 47 * time.Hour, want: 4096, restored: true},
		{name: "not at all", keep: -1, want: 1024},
		{name: "with a wish of its own", password: "d=256", want: 256},
		{name: "with a fixed wish", password: "fd=256", want: 256},
		{name: "with a suggestion", before: `{"id":0,"method":"mining.suggest_difficulty","params":[256]}`, want: 256},
		{name: "with a minimum", password: "md=8192", want: 8192, restored: true},
		{name: "a store that returns nonsense", change: func(s *difficulty.State) { s.Hashrate = -1 }, want: 1024},
		{name: "a store without a difficulty", change: func(s *difficulty.State) { s.Difficulty = 0 }, want: 1024},
		{name: "a time that has not come", change: func(s *difficulty.State) { s.At = s.At.Add(1000 * time.Hour) }, want: 4096, restored: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := stratum.NewDifficultyMemory(nil)
				var made []*keeper
				opts := stratum.Options{StartDifficulty: 1024, MinDifficulty: 64, Difficulties: store, NewPolicy: keepers(&made)}
				p := open(t, opts)
				p.give(100, hardBits)
				c := p.dial()
				c.subscribe("test", "")
				c.letIn("alice.rig", "d=4096")
				require.EqualValues(t, 4096, c.told())
				id, _ := c.notify()
				for i := range 3 {
					c.submitRaw(fmt.Sprintf(`["w",%q,"0000000000000000","00000000","%08x"]`, id, i))
				}
				_, ok := store.Load(rig)
				require.False(t, ok)
				c.lost()
				s, ok := store.Load(rig)
				require.True(t, ok)
				require.True(t, s.At.Equal(time.Now()))
				at := s.At
				s.At = time.Time{}
				require.Equal(t, kept, s)
				require.NoError(t, p.stop())

				if s.At = at; test.change != nil {
					test.change(&s)
					store.Save(rig, s)
				}
				time.Sleep(test.away)
				opts.KeepDifficulty = test.keep
				p = open(t, opts)
				p.give(100, hardBits)
				made = nil
				c = p.dial()
				if test.before != "" {
					c.send(test.before)
					c.line()
				}
				c.subscribe("test", "")
				c.letIn("alice.rig", test.password)
				require.Equal(t, test.want, c.told())
				if !test.restored {
					require.Empty(t, made[0].restored)
					return
				}
				require.Len(t, made[0].restored, 1)
				s = made[0].restored[0]
				require.False(t, s.At.After(time.Now()))
				s.At = time.Time{}
				require.Equal(t, kept, s)
				// Another worker of the same user is nobody's.
				c = p.dial()
				c.login("alice.rig2")
				require.EqualValues(t, 1024, c.told())
			})
		})
	}
}

// A session that is resumed goes on from what was known in it, not from what another machine of that name has left since.
func TestAResumedSessionGoesOnFromItsOwn(t *testing.T) {
	var made []*keeper
	in(t, stratum.Options{StartDifficulty: 1024, MinDifficulty: 64, NewPolicy: keepers(&made)}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		session := ""
		for i, password := range []string{"d=4096", "d=256"} {
			c := p.dial()
			id := c.subscribe("test", "")
			c.letIn("alice.rig", password)
			c.told()
			c.notify()
			c.lost()
			if i == 0 {
				session = id
			}
		}
		c := p.dial()
		require.Equal(t, session, c.subscribe("test", session))
		c.letIn("alice.rig", "x")
		require.EqualValues(t, 4096, c.told())
		require.EqualValues(t, 4096, made[2].restored[0].Difficulty)
	})
}

// A policy that keeps nothing goes on from the last difficulty, one that cannot be told either has its own say.
func TestTheLastDifficultyIsKeptWithoutAKeeper(t *testing.T) {
	for name, want := range map[string]difficulty.Difficulty{"a resetter": 1500, "neither": 1024} {
		t.Run(name, func(t *testing.T) {
			store := stratum.NewDifficultyMemory(nil)
			store.Save(share.Worker{User: "alice", Name: "rig"}, difficulty.State{At: time.Now(), Difficulty: 1500})
			opts := stratum.Options{StartDifficulty: 1024, MinDifficulty: 64, Difficulties: store, KeepDifficulty: 100 * 365 * 24 * time.Hour}
			if name == "a resetter" {
				opts.NewPolicy = startAt(1024)
			}
			in(t, opts, func(t *testing.T, p *pool) {
				p.give(100, hardBits)
				c := p.dial()
				c.login("alice.rig")
				require.Equal(t, want, c.told())
			})
		})
	}
}

// A countingStore counts what it is told.
type countingStore struct {
	*stratum.DifficultyMemory
	saves atomic.Int64
}

func (s *countingStore) Save(w share.Worker, state difficulty.State) {
	s.saves.Add(1)
	s.DifficultyMemory.Save(w, state)
}

// A process that is killed has saved what it knew at most five minutes ago; one session ends once.
func TestWhatIsKnownIsSavedEveryFewMinutes(t *testing.T) {
	store := &countingStore{DifficultyMemory: stratum.NewDifficultyMemory(nil)}
	in(t, stratum.Options{Difficulties: store, IdleTimeout: -1}, func(t *testing.T, p *pool) {
		p.dial() // never logs in
		c := p.dial()
		c.login("alice.rig")
		time.Sleep(301 * time.Second)
		require.Zero(t, store.saves.Load(), "it was never given a job")
		p.give(100, hardBits)
		require.Equal(t, easy, c.told())
		id, _ := c.notify()
		go io.Copy(io.Discard, c.conn)
		time.Sleep(300 * time.Second)
		require.EqualValues(t, 1, store.saves.Load())
		time.Sleep(300 * time.Second)
		require.EqualValues(t, 1, store.saves.Load(), "nothing is new")
		c.send(fmt.Sprintf(`{"id":9,"method":"mining.submit","params":["w",%q,"0000000000000000","00000000","00000000"]}`, id))
		time.Sleep(300 * time.Second)
		require.EqualValues(t, 2, store.saves.Load())
		c.lost()
		require.EqualValues(t, 3, store.saves.Load())
		time.Sleep(time.Hour)
		require.EqualValues(t, 3, store.saves.Load())
	})
}

// A connection that is dead and not closed says nothing about a miner that has long been at work on another one.
func TestWhatADeadConnectionKnewDoesNotCount(t *testing.T) {
	in(t, stratum.Options{NewPolicy: startAt(1024), StartDifficulty: 1024, MinDifficulty: 64}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		dead := p.dial()
		dead.login("alice.rig")
		go io.Copy(io.Discard, dead.conn)
		time.Sleep(6 * time.Minute)
		c := p.dial()
		c.subscribe("test", "")
		c.letIn("alice.rig", "d=4096")
		require.EqualValues(t, 4096, c.told())
		c.notify()
		c.lost()
		time.Sleep(6 * time.Minute)
		require.Zero(t, p.server.Stats().Sessions)
		c = p.dial()
		c.login("alice.rig")
		require.EqualValues(t, 4096, c.told())
	})
}

// Each machine behind an agent is a worker: a farm that connects again is at work as it was before.
func TestMachinesOfAnAgentAreKnown(t *testing.T) {
	var made []*keeper
	in(t, stratum.Options{StartDifficulty: 1024, MinDifficulty: 64, NewPolicy: keepers(&made)}, func(t *testing.T, p *pool) {
		p.give(100, hardBits)
		w := p.agentWire()
		require.EqualValues(t, 1024, w.login("x", true))
		w.send(registerFrame(1, "cgminer/4", "a") + registerFrame(2, "cgminer/4", "b") + registerFrame(3, "cgminer/4", "c"))
		w.nothingBut()
		made[1].known.Difficulty, made[2].known.Difficulty = 65536, 100
		p.give(101, hardBits)
		w.difficulties()
		w.difficulties()
		w.job()
		w.send(unregisterFrame(1))
		w.nothingBut()
		require.NoError(t, w.conn.Close())
		synctest.Wait()

		w = p.agentWire()
		require.EqualValues(t, 1024, w.login("x", true), "one for all, as announced")
		w.send(registerFrame(7, "cgminer/4", "a") + registerFrame(8, "cgminer/4", "c") + registerFrame(9, "cgminer/4", "b"))
		s := w.difficulties()
		require.EqualValues(t, 16, s.Exponent)
		require.Equal(t, []uint16{7}, s.SessionIDs)
		s = w.difficulties()
		require.EqualValues(t, 6, s.Exponent)
		require.Equal(t, []uint16{9}, s.SessionIDs)
		w.send(submitFrame(7, w.id, 1) + submitFrame(8, w.id, 1) + submitFrame(9, w.id, 1))
		for range 3 {
			w.response()
		}
		var got []difficulty.Difficulty
		for _, s := range p.recorded() {
			got = append(got, s.Difficulty)
		}
		require.Equal(t, []difficulty.Difficulty{65536, 1024, 64}, got)

		// What the farm asks for goes before.
		w = p.agentWire()
		require.EqualValues(t, 2048, w.login("d=2048", true))
		w.send(registerFrame(7, "cgminer/4", "a"))
		w.nothingBut()
	})
}
