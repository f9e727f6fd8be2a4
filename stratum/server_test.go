package stratum_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

// in runs a test of a pool on virtual time.
func in(t *testing.T, opts stratum.Options, f func(t *testing.T, p *pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, open(t, opts)) })
}

func TestHandshake(t *testing.T) {
	in(t, stratum.Options{ServerID: 0x1a}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.send(`{"id":"conf","method":"mining.configure","params":[["version-rolling","minimum-difficulty","nonsense"],{"version-rolling.mask":"ffffffff","version-rolling.min-bit-count":2,"minimum-difficulty.value":0.00001}]}`)
		require.Equal(t, `{"id":"conf","result":{"minimum-difficulty":true,"version-rolling":true,"version-rolling.mask":"1fffe000","nonsense":false},"error":null}`, c.line())
		c.send(`{"id":1,"method":"mining.subscribe","params":["cgminer/4.12.1"]}`)
		require.Equal(t, `{"id":1,"result":[[["mining.set_difficulty","1a000000"],["mining.notify","1a000000"]],"1a000000",8],"error":null}`, c.line())
		require.Equal(t, `{"id":null,"method":"mining.set_version_mask","params":["1fffe000"]}`, c.line())
		c.send(`{"id":2,"method":"mining.authorize","params":["Alice.rig01","x"]}`)
		require.Equal(t, `{"id":2,"result":true,"error":null}`, c.line())
		require.Equal(t, fmt.Sprintf(`{"id":null,"method":"mining.set_difficulty","params":[%v]}`, difficulty.Difficulty(1.0/(1<<16))), c.line(),
			"minimum-difficulty 0.00001 is rounded up")
		id, n := c.notify()
		require.Equal(t, "0", id)
		require.True(t, n.Clean)

		for s := range p.server.Sessions {
			w, user := s.Worker()
			require.Equal(t, share.Worker{User: "alice", Name: "rig01"}, w)
			require.Equal(t, int32(1), user)
			require.Equal(t, "cgminer/4.12.1", s.Agent())
			require.Equal(t, uint32(0x1a000000), s.Prefix())
		}
		require.Equal(t, 1, p.server.Stats().States[stratum.Authorized])
	})
}

func TestJobsWaitForBothSubscribeAndAuthorize(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.send(`{"id":1,"method":"mining.authorize","params":["alice.rig"]}`)
		require.Equal(t, `{"id":1,"result":true,"error":null}`, c.line())
		c.send(`{"id":2,"method":"mining.subscribe","params":[]}`)
		require.Contains(t, c.line(), `{"id":2,"result":[[`)
		require.Contains(t, c.line(), "mining.set_difficulty")
		c.notify()
		// Some miners subscribe again after an error; the answer is the same and their work goes on.
		c.send(`{"id":3,"method":"mining.subscribe","params":[]}`)
		require.Contains(t, c.line(), `{"id":3,"result":[[`)
		c.send(`{"id":4,"method":"mining.authorize","params":["alice.rig"]}`)
		require.Equal(t, `{"id":4,"result":true,"error":null}`, c.line())
		c.send(`{"id":5,"method":"mining.authorize","params":["bob.rig"]}`)
		require.Equal(t, `{"id":5,"result":null,"error":[24,"Unauthorized worker",null]}`, c.line())
	})
}

func TestAJobThatComesLaterStartsTheMiner(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		c := p.dial()
		c.login("alice.rig")
		synctest.Wait()
		p.broadcast(100, hardBits)
		require.Contains(t, c.line(), "mining.set_difficulty")
		_, n := c.notify()
		require.True(t, n.Clean)
	})
}

func TestEveryRequestIsAnswered(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.start("alice.rig")
		for _, test := range []struct{ request, reply string }{
			{`{"id":1,"method":"mining.extranonce.subscribe","params":[]}`, `{"id":1,"result":true,"error":null}`},
			{`{"id":2,"method":"mining.get_transactions","params":["0"]}`, `{"id":2,"result":[],"error":[20,"Not supported",null]}`},
			{`{"id":3,"method":"mining.multi_version","params":[1]}`, `{"id":3,"result":null,"error":[26,"Illegal method",null]}`},
			{`{"id":4,"method":"eth_submitWork","params":[]}`, `{"id":4,"result":null,"error":[26,"Illegal method",null]}`},
			{`{"id":5,"method":"mining.ping","params":[]}`, `{"id":5,"result":"pong","error":null}`},
			{`{"id":6,"method":"mining.suggest_difficulty","params":["x"]}`, `{"id":6,"result":null,"error":[27,"Illegal params",null]}`},
			{`{"id":7,"method":"mining.suggest_difficulty","params":[-1]}`, `{"id":7,"result":null,"error":[27,"Illegal params",null]}`},
			{`{"id":8,"method":"mining.suggest_target","params":["00"]}`, `{"id":8,"result":null,"error":[27,"Illegal params",null]}`},
			{`{"id":9,"method":"mining.configure","params":7}`, `{"id":9,"result":null,"error":[27,"Illegal params",null]}`},
			{`{"jsonrpc":"2.0","params":null,"method":"mining.extranonce.subscribe","id":"x"}`, `{"id":"x","result":true,"error":null}`},
			{`{"id":10,"method":"mining.submit","params":{}}`, `{"id":10,"result":null,"error":[27,"Illegal params",null]}`},
			{`{"method":"mining.submit","params":[]}`, `{"id":null,"result":null,"error":[27,"Illegal params",null]}`},
		} {
			c.send(test.request)
			require.Equal(t, test.reply, c.line(), test.request)
		}
		c.send(`{"id":5,"result":"pong","error":null}`) // an answer, not a question
		c.send(`{"id":11,"method":"mining.ping"}`)
		require.Equal(t, `{"id":11,"result":"pong","error":null}`, c.line())
	})
}

func TestSubmitBeforeAuthorize(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		c := p.dial()
		require.Equal(t, "24", c.submitRaw(`["a","0","0000000000000000","00000000","00000000"]`))
		require.Equal(t, `{"id":null,"method":"client.reconnect","params":[]}`, c.line())
		require.Equal(t, "24", c.submitRaw(`["a","0","0000000000000000","00000000","00000000"]`))
		require.Empty(t, p.recorded())
	})
}

// TestMalformedSubmits goes through what miners and attackers send, on a connection with one good share. Each gets its
// code, and the good share is credited once whatever it is dressed up as.
func TestMalformedSubmits(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		other := p.dial()
		other.start("bob.rig")
		for i := range 3 { // jobs that only bob has under these ids
			time.Sleep(time.Second)
			p.broadcast(101+int32(i), hardBits)
			other.notify()
		}
		c := p.dial()
		id, n := c.start("alice.rig")
		require.Equal(t, "3", id)
		good := c.solve(id, n, easy, 0, false)
		for !strings.ContainsAny(good.nonce, "abcdef") {
			good = c.solve(id, n, easy, hexNumber(good.nonce)+1, false)
		}
		low := c.solve(id, n, easy, 0, true)
		require.Equal(t, "true", c.submit(good))

		with := func(change func(w *work)) string { w := good; change(&w); return w.params() }
		for _, test := range []struct{ name, params, want string }{
			{"the same again", good.params(), "22"},
			{"upper-case nonce", with(func(w *work) { w.nonce = strings.ToUpper(w.nonce) }), "22"},
			{"upper-case ntime and extranonce2", with(func(w *work) { w.ntime = strings.ToUpper(w.ntime); w.en2 = strings.ToUpper(w.en2) }), "22"},
			{"nonce with 0x", with(func(w *work) { w.nonce = "0x" + w.nonce }), "22"},
			{"nonce with 0X in upper case", with(func(w *work) { w.nonce = "0X" + strings.ToUpper(w.nonce) }), "22"},
			{"ntime of zeros for the job's", with(func(w *work) { w.ntime = "00000000" }), "22"},
			{"version bits of zeros", with(func(w *work) { w.version = "00000000" }), "22"},
			{"one digit of version bits", with(func(w *work) { w.version = "0" }), "22"},
			{"another worker's name", with(func(w *work) { w.worker = "bob.rig" }), "22"},
			{"a job id without quotes", `["w",3,"` + good.en2 + `","` + good.ntime + `","` + good.nonce + `"]`, "22"},
			{"escaped digits", `["w","\u0033","` + good.en2 + `","` + good.ntime + `","` + good.nonce + `"]`, "22"},
			{"more params than there are", `["w","3","` + good.en2 + `","` + good.ntime + `","` + good.nonce + `","00000000","x",{}]`, "22"},
			{"extranonce2 too short", with(func(w *work) { w.en2 = "00" }), "27"},
			{"extranonce2 of odd length", with(func(w *work) { w.en2 = w.en2[1:] }), "27"},
			{"extranonce2 too long", with(func(w *work) { w.en2 += "00" }), "27"},
			{"extranonce2 with a tail that is not hex", with(func(w *work) { w.en2 = w.en2[:14] + "0g" }), "27"},
			{"extranonce2 with a trailing blank", with(func(w *work) { w.en2 = w.en2[:15] + " " }), "27"},
			{"no extranonce2", with(func(w *work) { w.en2 = "" }), "27"},
			{"nonce of seven digits", with(func(w *work) { w.nonce = w.nonce[1:] }), "27"},
			{"nonce of nine digits", with(func(w *work) { w.nonce = "0" + w.nonce }), "27"},
			{"nonce that is not hex", with(func(w *work) { w.nonce = "zzzzzzzz" }), "27"},
			{"nonce with a sign", with(func(w *work) { w.nonce = "-" + w.nonce[1:] }), "27"},
			{"a huge number for a nonce", `["w","3","` + good.en2 + `","` + good.ntime + `",99999999999999999999999999]`, "27"},
			{"null for a nonce", `["w","3","` + good.en2 + `","` + good.ntime + `",null]`, "27"},
			{"version bits of nine digits", with(func(w *work) { w.version = "000000000" }), "27"},
			{"four params", `["w","3","` + good.en2 + `","` + good.ntime + `"]`, "27"},
			{"nested params", `["w","3",["` + good.en2 + `"],"` + good.ntime + `","` + good.nonce + `"]`, "27"},
			{"bob's job", with(func(w *work) { w.job = "2" }), "21"},
			{"a job id that is ours modulo 256", with(func(w *work) { w.job = "259" }), "21"},
			{"a job id of 2^64", with(func(w *work) { w.job = "18446744073709551616" }), "21"},
			{"a job id with a tail", with(func(w *work) { w.job = "3x" }), "21"},
			{"a job id with a leading zero", with(func(w *work) { w.job = "03" }), "21"},
			{"a negative job id", with(func(w *work) { w.job = "-3" }), "21"},
			{"no job id", with(func(w *work) { w.job = "" }), "21"},
			{"version bits outside the mask", with(func(w *work) { w.version = "00000001" }), "33"},
			{"ntime below mintime", with(func(w *work) { w.ntime = fmt.Sprintf("%08x", n.NTime-601) }), "31"},
			{"ntime too far ahead", with(func(w *work) { w.ntime = fmt.Sprintf("%08x", n.NTime+700) }), "32"},
			{"a hash that misses", low.params(), "23"},
			{"the same miss again", low.params(), "22"},
		} {
			require.Equal(t, test.want, c.submitRaw(test.params), test.name)
		}
		credited := 0
		for _, s := range p.recorded() {
			if s.Verdict.Accepted() {
				credited++
			}
		}
		require.Equal(t, 1, credited, verdicts(p.recorded()))
	})
}

func hexNumber(s string) (n uint32) {
	fmt.Sscanf(s, "%x", &n)
	return n
}

func TestAShareIsRecordedAsItWas(t *testing.T) {
	in(t, stratum.Options{ServerID: 2}, func(t *testing.T, p *pool) {
		j := p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig01")
		w := c.solve(id, n, easy, 0, false)
		require.Equal(t, "true", c.submit(w))
		require.Len(t, p.recorded(), 1)
		s := p.recorded()[0]
		require.Equal(t, share.Accepted, s.Verdict)
		require.Equal(t, j.ID, s.JobID)
		require.Equal(t, int32(100), s.Height)
		require.Equal(t, uint32(hardBits), s.Bits)
		require.Equal(t, easy, s.Difficulty)
		require.Equal(t, int64(7069884523060589083), s.WorkerID)
		require.Equal(t, int32(1), s.UserID)
		require.Equal(t, uint32(0x02000000), s.SessionID)
		require.Equal(t, hexNumber(w.nonce), s.Nonce)
		require.NotZero(t, s.BitsReached)
		require.True(t, s.Time.Equal(time.Now()))
	})
}

func TestDifficultyBelongsToTheJobSent(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: easy, MinDifficulty: easy, NewPolicy: func(*stratum.Session) difficulty.Policy {
		return &steps{easy, easy * 1024}
	}}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		first := c.solve(id, n, easy, 0, false)
		time.Sleep(20 * time.Second)
		p.broadcast(100, hardBits)
		require.Equal(t, fmt.Sprintf(`{"id":null,"method":"mining.set_difficulty","params":[%v]}`, easy*1024), c.line())
		id2, n2 := c.notify()
		require.NotEqual(t, id, id2, "a new difficulty comes with a new job id")
		require.False(t, n2.Clean)

		require.Equal(t, "true", c.submit(first), "judged at the difficulty of its own job")
		low := c.solve(id2, n2, easy, 0, false)
		require.Equal(t, "23", c.submit(low), "and no job at another's")
		require.Equal(t, easy, p.recorded()[0].Difficulty, "credited at its own too")
		require.Equal(t, easy*1024, p.recorded()[1].Difficulty)
	})
}

// steps is a policy that goes from one difficulty to the next with each job.
type steps []difficulty.Difficulty

func (s *steps) Observe(time.Time, difficulty.Difficulty) {}

func (s *steps) Next(time.Time) difficulty.Difficulty {
	d := (*s)[0]
	if len(*s) > 1 {
		*s = (*s)[1:]
	}
	return d
}

func TestANewTipMakesACleanJobAndOldSharesStale(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		old := c.solve(id, n, easy, 0, false)
		time.Sleep(time.Second)
		before := time.Now()
		p.broadcast(101, hardBits)
		_, n2 := c.notify()
		require.True(t, n2.Clean)
		require.Equal(t, before, time.Now(), "at once")
		require.Equal(t, "21", c.submit(old))
		require.Equal(t, "22", c.submit(old))
		require.Equal(t, share.Stale, p.recorded()[0].Verdict)
	})
}

func TestStaleGrace(t *testing.T) {
	in(t, stratum.Options{StaleGrace: 2 * time.Second}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		first := c.solve(id, n, easy, 0, false)
		second := c.solve(id, n, easy, hexNumber(first.nonce)+1, false)
		time.Sleep(time.Second)
		p.broadcast(101, hardBits)
		c.notify()
		time.Sleep(2 * time.Second)
		require.Equal(t, "true", c.submit(first))
		time.Sleep(time.Millisecond)
		require.Equal(t, "21", c.submit(second))
		require.Equal(t, []share.Verdict{share.AcceptedStale, share.Stale},
			[]share.Verdict{p.recorded()[0].Verdict, p.recorded()[1].Verdict})
	})
}

// Jobs on the same tip go out when an empty one is replaced and once in the notify interval, not whenever one is made.
func TestWhenJobsAreSent(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, _ := c.start("alice.rig")
		start := time.Now()
		time.Sleep(20 * time.Second)
		p.broadcast(100, hardBits)
		synctest.Wait()
		id2, n := c.notify()
		require.NotEqual(t, id, id2)
		require.False(t, n.Clean)
		require.WithinDuration(t, start.Add(30*time.Second), time.Now(), time.Second)
		// Without anything new the line still moves, under the same id: new ids would have the miner repeat its work.
		id3, n := c.notify()
		require.Equal(t, id2, id3)
		require.False(t, n.Clean)
		require.WithinDuration(t, start.Add(60*time.Second), time.Now(), 2*time.Second)
	})
}

func TestSolutionsAreHandedOnBeforeTheReply(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: 1 << 40, MinDifficulty: 1}, func(t *testing.T, p *pool) {
		j := p.broadcast(100, regtestBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		target := j.Target()
		w := c.solveTarget(id, n, target, 0, false)
		late := c.solveTarget(id, n, target, hexNumber(w.nonce)+1, false)
		require.Equal(t, "true", c.submit(w), "a block is worth a share at any difficulty")
		require.Len(t, p.solved(), 1)
		s := p.solved()[0]
		require.Same(t, j, s.Job)
		require.Equal(t, double(s.Header[:]), [32]byte(s.Hash))
		hash := [32]byte(s.Hash)
		require.True(t, target.MetBy(&hash))
		require.Equal(t, "alice.rig", s.Worker.String())
		require.Equal(t, share.Solved, p.recorded()[0].Verdict)
		require.Less(t, p.recorded()[0].Difficulty, difficulty.Difficulty(1), "and credited at the network's difficulty")

		time.Sleep(time.Second)
		p.broadcast(101, regtestBits)
		c.notify()
		require.Equal(t, "21", c.submit(late), "stale as a share")
		require.Len(t, p.solved(), 2, "and still a block to be tried")
		require.Equal(t, "22", c.submit(late))
		require.Len(t, p.solved(), 2)
	})
}

// A reply of true is a share recorded.
func TestASinkThatFailsIsNotAcknowledged(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		p.mu.Lock()
		p.sinkErr = errors.New("disk full")
		p.mu.Unlock()
		require.Equal(t, "30", c.submit(c.solve(id, n, easy, 0, false)))
		require.Equal(t, "23", c.submit(c.solve(id, n, easy, 0, true)), "a share that is worth nothing loses nothing")
		require.Empty(t, p.recorded())
		require.Equal(t, int64(2), p.server.Stats().NotRecorded)
	})
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		good := c.solve(id, n, easy, 0, false)
		var lines strings.Builder
		for i := range 200 {
			fmt.Fprintf(&lines, `{"id":%d,"method":"mining.submit","params":%s}`+"\n", i, good.params())
			if i%50 == 49 {
				fmt.Fprintf(&lines, `{"id":"ping%d","method":"mining.ping","params":[]}`+"\r\n\n", i)
			}
		}
		go c.conn.Write([]byte(lines.String()))
		for i := range 200 {
			want := fmt.Sprintf(`{"id":%d,"result":null,"error":[22,"Duplicate share",null]}`, i)
			if i == 0 {
				want = `{"id":0,"result":true,"error":null}`
			}
			require.Equal(t, want, c.line())
			if i%50 == 49 {
				require.Equal(t, fmt.Sprintf(`{"id":"ping%d","result":"pong","error":null}`, i), c.line())
			}
		}
	})
}

// From the twentieth bad share within a minute on, bad shares are answered but no longer recorded; good ones are.
func TestASpammersRejectsAreNotRecorded(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		good := c.solve(id, n, easy, 0, false)
		bad := c.solve(id, n, easy, 0, true)
		for i := range 25 {
			want := "22"
			if i == 0 {
				want = "23"
			}
			require.Equal(t, want, c.submit(bad))
		}
		require.Len(t, p.recorded(), 19)
		require.Equal(t, "true", c.submit(good))
		require.Len(t, p.recorded(), 20)
		time.Sleep(61 * time.Second)
		for strings.Contains(c.lineOrNone(), "mining.notify") {
		}
		require.Equal(t, "22", c.submit(bad))
		require.Len(t, p.recorded(), 21)
	})
}

// lineOrNone reads what has come so far.
func (c *client) lineOrNone() string {
	c.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer c.conn.SetReadDeadline(time.Time{})
	line, err := c.r.ReadLine()
	if err != nil {
		return ""
	}
	return string(line)
}

func TestWishesForADifficulty(t *testing.T) {
	vardiff := func(*stratum.Session) difficulty.Policy {
		v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{Start: 1024, Min: 64, Max: 1 << 20})
		if err != nil {
			panic(err)
		}
		return v
	}
	for _, test := range []struct {
		name   string
		opts   stratum.Options
		before string // sent before authorize
		pass   string
		want   string
	}{
		{"none", stratum.Options{NewPolicy: vardiff}, "", "x", "1024"},
		{"d in the password is rounded up", stratum.Options{NewPolicy: vardiff}, "", "d=5000", "8192"},
		{"diff is d", stratum.Options{NewPolicy: vardiff}, "", " diff = 4096 ,foo", "4096"},
		{"d below the pool's minimum", stratum.Options{NewPolicy: vardiff}, "", "d=1", "64"},
		{"d above the pool's maximum", stratum.Options{NewPolicy: vardiff}, "", "d=1e18", "1048576"},
		{"d below md", stratum.Options{NewPolicy: vardiff}, "", "d=128,md=2048", "2048"},
		{"md alone", stratum.Options{NewPolicy: vardiff}, "", "md=65536", "65536"},
		{"a negative d", stratum.Options{NewPolicy: vardiff}, "", "d=-1", "1024"},
		{"d that is no number", stratum.Options{NewPolicy: vardiff}, "", "d=NaN,d=Inf,d=", "1024"},
		{"suggest_difficulty", stratum.Options{NewPolicy: vardiff}, `{"id":0,"method":"mining.suggest_difficulty","params":[2048]}`, "x", "2048"},
		{"suggest_difficulty as text", stratum.Options{NewPolicy: vardiff}, `{"id":0,"method":"mining.suggest_difficulty","params":["2048"]}`, "x", "2048"},
		{"suggest_target", stratum.Options{NewPolicy: vardiff}, `{"id":0,"method":"mining.suggest_target","params":["00000000001fffe0000000000000000000000000000000000000000000000000"]}`, "x", "2048"},
		{"the password counts before a suggestion", stratum.Options{NewPolicy: vardiff}, `{"id":0,"method":"mining.suggest_difficulty","params":[2048]}`, "d=4096", "4096"},
		{"minimum-difficulty", stratum.Options{NewPolicy: vardiff}, `{"id":0,"method":"mining.configure","params":[["minimum-difficulty"],{"minimum-difficulty.value":3000}]}`, "d=128", "4096"},
		{"a wish against a fixed difficulty", stratum.Options{}, "", "d=4096", "4096"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.opts.StartDifficulty, test.opts.MinDifficulty, test.opts.MaxDifficulty = 1024, 64, 1<<20
			in(t, test.opts, func(t *testing.T, p *pool) {
				p.broadcast(100, hardBits)
				synctest.Wait()
				c := p.dial()
				if test.before != "" {
					c.send(test.before)
					require.Contains(t, c.line(), `"error":null`)
				}
				c.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
				c.line()
				c.send(fmt.Sprintf(`{"id":2,"method":"mining.authorize","params":["alice.rig",%q]}`, test.pass))
				c.line()
				require.Equal(t, `{"id":null,"method":"mining.set_difficulty","params":[`+test.want+`]}`, c.line())
			})
		})
	}
}

// cgminer and Bitaxe suggest a difficulty after they have authorized: it counts from the next job on.
func TestALateSuggestionComesWithTheNextJob(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: 1024, MinDifficulty: 64}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, _ := c.start("alice.rig")
		c.send(`{"id":3,"method":"mining.suggest_difficulty","params":[100]}`)
		require.Equal(t, `{"id":3,"result":true,"error":null}`, c.line())
		time.Sleep(time.Second)
		p.broadcast(101, hardBits)
		require.Equal(t, `{"id":null,"method":"mining.set_difficulty","params":[128]}`, c.line())
		id2, _ := c.notify()
		require.NotEqual(t, id, id2)
	})
}

func TestAShortExtranonce2IsPaddedInFrontOfExtranonce1(t *testing.T) {
	in(t, stratum.Options{Extranonce2Size: 4}, func(t *testing.T, p *pool) {
		j := p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		require.Equal(t, append(append([]byte(nil), j.Coinb1...), 0, 0, 0, 0), n.Coinb1)
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		require.Equal(t, "27", c.submitRaw(`["w","0","0000000000000000","00000000","00000000"]`))
	})
}

// A job can be mined for 300 seconds; later shares for it earn nothing, and a block is handed on as long as the job is
// known at all.
func TestAnExpiredJobEarnsNothing(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		j := p.broadcast(100, regtestBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		miss := c.solveTarget(id, n, j.Target(), 0, true)
		winner := c.solveTarget(id, n, j.Target(), 0, false)
		late := c.solveTarget(id, n, j.Target(), hexNumber(winner.nonce)+1, false)
		began := time.Now()
		time.Sleep(20 * time.Second)
		p.broadcast(100, regtestBits) // the last job never expires
		for range 10 {
			c.notify()
		}
		time.Sleep(time.Until(began.Add(301 * time.Second)))
		require.Equal(t, "21", c.submit(miss))
		require.Empty(t, p.recorded())
		require.Equal(t, "21", c.submit(winner))
		require.Len(t, p.solved(), 1, "refused as a share, and a block to be tried")
		require.False(t, p.recorded()[0].Verdict.Accepted())
		p.broadcast(101, regtestBits)
		c.notify()
		require.Equal(t, "21", c.submit(late), "a job that came after it made room")
		require.Len(t, p.solved(), 1)
	})
}

func TestTheCaseOfUsers(t *testing.T) {
	for keep, want := range map[bool]string{false: "alice", true: "Alice"} {
		in(t, stratum.Options{Names: stratum.NameRules{KeepCase: keep}}, func(t *testing.T, p *pool) {
			p.dial().login("Alice.Rig")
			for s := range p.server.Sessions {
				w, _ := s.Worker()
				require.Equal(t, share.Worker{User: want, Name: "Rig"}, w)
			}
		})
	}
}

// An empty job is replaced as soon as there are transactions; that is no reason to drop work.
func TestAnEmptyJobIsReplacedAtOnce(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		empty := *makeJob(t, p.ids.Next(time.Now()), 100, hardBits)
		empty.Branch = nil
		j, err := job.New(empty)
		require.NoError(t, err)
		require.NoError(t, p.hub.Broadcast(t.Context(), j))
		synctest.Wait()
		c := p.dial()
		_, n := c.start("alice.rig")
		require.Empty(t, n.Branch)
		time.Sleep(time.Second)
		before := time.Now()
		p.broadcast(100, hardBits)
		_, n = c.notify()
		require.Equal(t, before, time.Now(), "at once")
		require.NotEmpty(t, n.Branch)
		require.False(t, n.Clean)
	})
}

// A miner must never work on through a change of the tip because nobody told it to drop what it has: neither when the
// chain goes back to a lower block, nor when the feed marks a job for one that was skipped.
func TestWhatMakesAJobCleanForASession(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.start("alice.rig")
		time.Sleep(20 * time.Second)
		p.broadcast(99, hardBits)
		_, n := c.notify()
		require.True(t, n.Clean, "the chain went back")
		time.Sleep(20 * time.Second)
		p.broadcast(99, hardBits)
		_, n = c.notify()
		require.False(t, n.Clean)
		time.Sleep(20 * time.Second)
		marked := *makeJob(t, p.ids.Next(time.Now()), 99, hardBits)
		marked.Clean = true
		require.NoError(t, p.hub.Broadcast(t.Context(), &marked))
		_, n = c.notify()
		require.True(t, n.Clean, "the feed skipped a clean job")
	})
}

// observed is a policy that remembers what it was told.
type observed struct {
	difficulty.Fixed
	shares *[]difficulty.Difficulty
}

func (o observed) Observe(_ time.Time, d difficulty.Difficulty) { *o.shares = append(*o.shares, d) }

func TestThePolicyHearsOfTheSharesThatTookWork(t *testing.T) {
	var heard []difficulty.Difficulty
	in(t, stratum.Options{StartDifficulty: easy, MinDifficulty: easy, NewPolicy: func(*stratum.Session) difficulty.Policy {
		return observed{difficulty.Fixed(easy), &heard}
	}}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		good := c.solve(id, n, easy, 0, false)
		stale := c.solve(id, n, easy, hexNumber(good.nonce)+1, false)
		require.Equal(t, "true", c.submit(good))
		require.Len(t, heard, 1)
		require.Equal(t, "23", c.submit(c.solve(id, n, easy, 0, true)))
		require.Len(t, heard, 2, "a low share is heard of: a flood of them has to raise the difficulty")
		require.Equal(t, "22", c.submit(good))
		unknown := good
		unknown.job = "77"
		require.Equal(t, "21", c.submit(unknown))
		require.Len(t, heard, 2, "duplicates and unknown jobs took none")
		time.Sleep(time.Second)
		p.broadcast(101, hardBits)
		c.notify()
		require.Equal(t, "21", c.submit(stale))
		require.Equal(t, []difficulty.Difficulty{easy, easy, easy}, heard)
	})
}
