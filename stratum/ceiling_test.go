package stratum_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

// network is a difficulty that blocks of a test have: above easy, and met in 65,536 hashes.
const network difficulty.Difficulty = 1.0 / (1 << 16)

// bitsOf returns the compact form of d, exact for powers of two.
func bitsOf(d difficulty.Difficulty) uint32 { return d.Target().Bits() }

// below is in for a server that sends no difficulty above the network's.
func below(t *testing.T, opts stratum.Options, f func(t *testing.T, p *pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, openBelow(t, opts)) })
}

// Money: a miner sends nothing but shares. Were its difficulty above the network's, it would keep blocks to itself.
func TestABlockBelowTheFloorIsFoundAndSubmitted(t *testing.T) {
	fixed := func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(1 << 30) }
	for _, test := range []struct {
		name          string
		opts          stratum.Options
		agent, before string
		password      string
	}{
		{"the server's minimum", stratum.Options{}, "test", "", "x"},
		{"the start alone", stratum.Options{StartDifficulty: 1024, MinDifficulty: difficulty.Min}, "test", "", "x"},
		{"md= in the password", stratum.Options{}, "test", "", "md=4096"},
		{"d= in the password", stratum.Options{}, "test", "", "d=4096"},
		{"fd= in the password", stratum.Options{}, "test", "", "fd=4096"},
		{"a suggestion", stratum.Options{}, "test", `{"id":0,"method":"mining.suggest_difficulty","params":[65536]}`, "x"},
		{"minimum-difficulty", stratum.Options{}, "test",
			`{"id":0,"method":"mining.configure","params":[["minimum-difficulty"],{"minimum-difficulty.value":65536}]}`, "x"},
		{"NiceHash", stratum.Options{}, "NiceHash/1", "", "x"},
		{"a miner that reads whole numbers", stratum.Options{StartDifficulty: easy, MinDifficulty: easy}, "bitaxe/BM1370", "", "x"},
		{"a policy of one's own", stratum.Options{NewPolicy: fixed}, "test", "", "x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			below(t, test.opts, func(t *testing.T, p *pool) {
				p.give(100, bitsOf(network))
				c := p.dial()
				if test.before != "" {
					c.send(test.before)
					c.line()
				}
				c.subscribe(test.agent, "")
				c.letIn("alice.rig", test.password)
				// A miner sends what meets the difficulty that it was told, and no more.
				d := c.told()
				require.Equal(t, network, d)
				id, n := c.notify()
				require.Equal(t, "true", c.submit(c.solve(id, n, d, 0, false)))
				require.Len(t, p.solved(), 1)
				require.Equal(t, share.Solved, p.recorded()[0].Verdict)
				require.Equal(t, network, p.recorded()[0].Difficulty)
			})
		})
	}
}

func TestAboveNetworkLeavesDifficultiesAsTheyAre(t *testing.T) {
	below(t, stratum.Options{AboveNetwork: true}, func(t *testing.T, p *pool) {
		p.give(100, bitsOf(network))
		c := p.dial()
		c.login("alice.rig")
		require.EqualValues(t, 16384, c.told())
	})
}

// A bounded policy writes down its bounds.
type bounded struct {
	difficulty.Fixed
	told []string
}

func (b *bounded) SetMin(d difficulty.Difficulty) { b.told = append(b.told, fmt.Sprintf("min %v", d)) }
func (b *bounded) SetMax(d difficulty.Difficulty) { b.told = append(b.told, fmt.Sprintf("max %v", d)) }

// Each job has the difficulty of its own block, before and after, and the policy hears of every change with the floor
// never above the ceiling.
func TestTheCeilingFollowsTheJobs(t *testing.T) {
	policy := &bounded{Fixed: 1 << 20}
	opts := stratum.Options{
		StartDifficulty: 2048, MinDifficulty: 2048, NotifyInterval: time.Hour,
		NewPolicy: func(*stratum.Session) difficulty.Policy { return policy },
	}
	below(t, opts, func(t *testing.T, p *pool) {
		p.give(100, bitsOf(4096))
		c := p.dial()
		c.login("alice.rig")
		require.EqualValues(t, 4096, c.told())
		c.notify()
		for i, step := range []struct {
			network, want difficulty.Difficulty
		}{{1000, 1000}, {network, network}, {1 << 30, 1 << 20}} {
			p.give(int32(101+i), bitsOf(step.network))
			require.Equal(t, step.want, c.told())
			c.notify()
		}
		p.give(110, bitsOf(1<<30))
		c.notify()
		require.Equal(t, []string{"min 2048", "max 4096", "min 2048", "min 1000", "max 1000",
			fmt.Sprintf("min %v", network), fmt.Sprintf("max %v", network),
			"max 1073741824", "min 2048"}, policy.told[len(policy.told)-9:])
		c.submitRaw(`["w","0","0000000000000000","00000000","00000000"]`)
		require.EqualValues(t, 4096, p.recorded()[0].Difficulty, "the job was sent with that")
	})
}

// What machines of an agent have until they are told otherwise is announced once, and no frame names anything below 1.
func TestTheCeilingOfAgents(t *testing.T) {
	fixed := func(*stratum.Session) difficulty.Policy { return difficulty.Fixed(1 << 30) }
	opts := stratum.Options{NewPolicy: fixed}
	t.Run("what is announced", func(t *testing.T) {
		for _, password := range []string{"x", "d=1048576", "md=1048576"} {
			below(t, opts, func(t *testing.T, p *pool) {
				p.give(100, bitsOf(1000))
				w := p.agentWire()
				require.EqualValues(t, 512, w.login(password, true))
				w.send(registerFrame(1, "cgminer/4", "a") + registerFrame(2, "nicehash/1", "b"))
				w.nothingBut()
				p.give(101, bitsOf(1000))
				w.job()
			})
		}
	})
	t.Run("announced with the first job", func(t *testing.T) {
		below(t, opts, func(t *testing.T, p *pool) {
			w := p.agentWire()
			w.login("x", false)
			w.send(registerFrame(1, "cgminer/4", "a") + registerFrame(2, "nicehash/1", "b"))
			require.EqualValues(t, 19, w.difficulties().Exponent)
			w.nothingBut()
			p.give(100, bitsOf(1000))
			require.EqualValues(t, 512, w.difficulty(w.line()))
			s := w.difficulties()
			require.EqualValues(t, 9, s.Exponent)
			require.Equal(t, []uint16{2}, s.SessionIDs)
			w.job()
			w.send(submitFrame(1, w.id, 1))
			w.response()
			require.EqualValues(t, 512, p.recorded()[0].Difficulty)
		})
	})
	t.Run("the network gets easier", func(t *testing.T) {
		below(t, opts, func(t *testing.T, p *pool) {
			p.give(100, bitsOf(1<<30))
			w := p.agentWire()
			require.EqualValues(t, 16384, w.login("x", true))
			w.send(registerFrame(1, "cgminer/4", "a"))
			w.nothingBut()
			p.give(101, bitsOf(5000))
			s := w.difficulties()
			require.EqualValues(t, 12, s.Exponent)
			w.job()
			// The agent has newcomers begin with what was announced, which is too much by now.
			w.send(registerFrame(2, "cgminer/4", "b"))
			s = w.difficulties()
			require.EqualValues(t, 12, s.Exponent)
			require.Equal(t, []uint16{2}, s.SessionIDs)
		})
	})
	t.Run("below what frames can say", func(t *testing.T) {
		below(t, opts, func(t *testing.T, p *pool) {
			p.give(100, bitsOf(1<<30))
			w := p.agentWire()
			w.login("x", true)
			w.send(registerFrame(1, "cgminer/4", "a"))
			w.nothingBut()
			p.give(101, bitsOf(network))
			w.ended()
			w = p.agentWire()
			require.EqualValues(t, network, w.login("x", true), "announced anew")
			w.send(registerFrame(1, "cgminer/4", "a"))
			w.nothingBut()
			p.give(102, bitsOf(network))
			w.job()
			p.give(103, bitsOf(network/2))
			w.ended()
		})
	})
}
