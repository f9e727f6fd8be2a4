package stratum_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/difficulty/difftest"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

// A recording policy writes down what it was told and what it said.
type recording struct {
	difficulty.Policy
	start  time.Time
	shares []difftest.Point // at which difficulty, and when
	jobs   []difftest.Point
}

func (r *recording) Unwrap() difficulty.Policy { return r.Policy }

func (r *recording) Observe(now time.Time, d difficulty.Difficulty) {
	r.shares = append(r.shares, difftest.Point{At: now.Sub(r.start), Difficulty: d})
	r.Policy.Observe(now, d)
}

func (r *recording) Next(now time.Time) difficulty.Difficulty {
	d := r.Policy.Next(now)
	r.jobs = append(r.jobs, difftest.Point{At: now.Sub(r.start), Difficulty: d})
	return d
}

// An eager policy is a difficulty.Hurrier: it aims at a share every ten seconds, and cannot wait where there are more than
// twice as many, or a minute of hardly any.
type eager struct {
	d     difficulty.Difficulty
	since time.Time
	n     float64
}

func (e *eager) Observe(time.Time, difficulty.Difficulty) { e.n++ }

func (e *eager) want(now time.Time) difficulty.Difficulty {
	due := now.Sub(e.since).Seconds() / 10
	switch {
	case e.since.IsZero():
	case e.n >= 8 && e.n > 2*due:
		return (e.d * difficulty.Difficulty(min(e.n/max(due, 0.01), 64))).FloorPow2()
	case due >= 6 && e.n < due/3:
		return max(e.d/2, difficulty.Min)
	}
	return e.d
}

func (e *eager) Hurry(now time.Time) bool { return e.want(now) != e.d }

func (e *eager) Next(now time.Time) difficulty.Difficulty {
	if d := e.want(now); d != e.d || e.since.IsZero() || now.Sub(e.since) > 5*time.Minute {
		e.d, e.since, e.n = d, now, 0
	}
	return e.d
}

// The simulator says what a server does: a policy that hears of the same shares at the same times, from a miner that
// really finds them, is asked at the same times and says the same, and the miner is told just that.
func TestTheServerDoesWhatTheSimulatorSays(t *testing.T) {
	const h difficulty.Hashrate = 20 // 200 hashes a share
	const fits difficulty.Difficulty = 1.0 / (1 << 24)
	start := map[string]difficulty.Difficulty{"cold": fits / 64, "hot": fits * 64}
	vardiff := func(improved bool) func(difficulty.Difficulty) difficulty.Policy {
		return func(d difficulty.Difficulty) difficulty.Policy {
			v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{Start: d, Min: difficulty.Min, Improved: improved})
			if err != nil {
				panic(err)
			}
			return v
		}
	}
	lagging := difftest.Stepped(h, 20*time.Minute, h/2)
	lagging.Lag = 1700 * time.Millisecond
	hurried := 0
	for _, policy := range []struct {
		name string
		make func(difficulty.Difficulty) difficulty.Policy
	}{
		{"vardiff", vardiff(false)},
		{"improved", vardiff(true)},
		{"sequential", func(d difficulty.Difficulty) difficulty.Policy {
			s, err := difficulty.NewSequential(&difficulty.SequentialOptions{Start: d, Min: difficulty.Min})
			if err != nil {
				panic(err)
			}
			return s
		}},
		{"hurrier", func(d difficulty.Difficulty) difficulty.Policy { return &eager{d: d} }},
	} {
		for _, scenario := range []struct {
			name  string
			miner difftest.Miner
		}{
			{"steady", difftest.Steady(h)},
			{"cold", difftest.Steady(h)},
			{"hot", difftest.Steady(h)},
			{"doubling", difftest.Stepped(h, 25*time.Minute, 2*h)},
			{"stop", difftest.Stepped(h, 25*time.Minute, 0)},
			{"half, with work in flight", lagging},
		} {
			from := fits
			if d, ok := start[scenario.name]; ok {
				from = d
			}
			for seed := range uint64(3) {
				t.Run(fmt.Sprint(policy.name, "/", scenario.name, "/", seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						opts := &difftest.Options{
							Duration: 50 * time.Minute,
							// A job is not due on the second, when Hurriers are asked: which is first would be chance.
							JobInterval: 30*time.Second + time.Millisecond,
							Seed:        seed, Start: time.Now(),
						}
						simulated := &recording{Policy: policy.make(from), start: opts.Start}
						trace := difftest.Run(simulated, scenario.miner, opts)
						require.NotEmpty(t, simulated.shares)
						require.Zero(t, trace.Lost)
						if scenario.name != "steady" {
							require.Greater(t, len(trace.Points), 1, "nothing to compare")
						}
						real := &recording{Policy: policy.make(from), start: opts.Start}
						told := replay(t, real, simulated.shares, opts)
						require.Equal(t, simulated.shares, real.shares)
						require.Equal(t, simulated.jobs, real.jobs)
						require.Equal(t, trace.Points, told)
						hurried += trace.Hurried
					})
				})
			}
		}
	}
	require.Greater(t, hurried, 50)
}

// replay has a server under a policy, and a miner that finds shares of these difficulties at these times. It returns the
// changes of difficulty that the miner was told, and when.
func replay(t *testing.T, policy difficulty.Policy, shares []difftest.Point, opts *difftest.Options) (told []difftest.Point) {
	p := openBelow(t, stratum.Options{
		MinDifficulty: difficulty.Min, NotifyInterval: opts.JobInterval, IdleTimeout: -1, Limits: stratum.NoLimits(),
		NewPolicy: func(*stratum.Session) difficulty.Policy { return policy },
	})
	p.give(100, hardBits)
	c := p.dial()
	c.login("alice.rig")
	type received struct {
		at   time.Duration
		line string
	}
	lines := make(chan received, 1024)
	go func() {
		defer close(lines)
		for {
			line, err := c.r.ReadLine()
			if err != nil {
				return
			}
			lines <- received{time.Since(opts.Start), string(line)}
		}
	}()
	type work struct {
		id string
		n  sv1.Notify
	}
	jobs := make(map[difficulty.Difficulty]work) // the latest of each difficulty
	current := difficulty.Difficulty(0)
	accepted := 0
	read := func() {
		synctest.Wait()
		for len(lines) > 0 {
			r := <-lines
			var m sv1.Message
			require.NoError(t, m.Decode([]byte(r.line)), r.line)
			switch m.Method {
			case sv1.MethodSetDifficulty:
				var params []difficulty.Difficulty
				require.NoError(t, json.Unmarshal(m.Params, &params))
				current = params[0]
				told = append(told, difftest.Point{At: r.at, Difficulty: current})
			case sv1.MethodNotify:
				var n sv1.Notify
				require.NoError(t, n.Decode(m.Params))
				jobs[current] = work{n.JobID, n}
			default:
				require.Equal(t, `{"id":9,"result":true,"error":null}`, r.line)
				accepted++
			}
		}
	}
	read()
	nextJob, nonce := opts.JobInterval, uint32(0)
	until := func(at time.Duration) {
		time.Sleep(at - time.Since(opts.Start))
		read()
	}
	for {
		next := opts.Duration
		if len(shares) > 0 {
			next = shares[0].At
		}
		if nextJob < next {
			until(nextJob)
			p.broadcast(100, hardBits)
			read()
			nextJob += opts.JobInterval
			continue
		}
		if len(shares) == 0 {
			break
		}
		until(next)
		j, ok := jobs[shares[0].Difficulty]
		require.True(t, ok, "a share of difficulty %v, which no job was sent with", shares[0].Difficulty)
		w := c.solve(j.id, j.n, shares[0].Difficulty, nonce, false)
		n, err := strconv.ParseUint(w.nonce, 16, 32)
		require.NoError(t, err)
		nonce = uint32(n) + 1
		before := accepted
		c.send(`{"id":9,"method":"mining.submit","params":` + w.params() + `}`)
		read()
		require.Equal(t, before+1, accepted)
		shares = shares[1:]
	}
	until(opts.Duration - time.Nanosecond) // what the simulator would do at the end itself it does not
	require.NoError(t, c.conn.Close())
	return told
}
