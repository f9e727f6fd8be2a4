package stratum_test

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/stretchr/testify/require"
)

// The tests in this file attack a server from outside, in the ways in which pools have been robbed or brought down.

// credited counts the shares that pay.
func (p *pool) credited() int {
	n := 0
	for _, s := range p.recorded() {
		if s.Verdict.Accepted() {
			n++
		}
	}
	return n
}

// discard drops what the server sends. The channel is closed when the connection has ended.
func (c *client) discard() (ended <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(io.Discard, c.conn)
	}()
	return done
}

// TestAttackTextVariantsPayOnce dresses one share up in every way that a careless parser takes for another: one pool
// was robbed for months by upper-case digits.
func TestAttackTextVariantsPayOnce(t *testing.T) {
	variants := []func(string) string{ // of what stands between quotes
		strings.ToUpper,
		func(s string) string { return "0x" + s },
		func(s string) string { return "0X" + s },
		func(s string) string { return " " + s },
		func(s string) string { return s + " " },
		func(s string) string { return s + "\\t" },
		func(s string) string { return s + "\\u0000" },
		func(s string) string { return "\\u0000" + s },
		func(s string) string { return "0" + s },
		func(s string) string { return "00" + s },
		func(s string) string { return s + "00" },
		func(s string) string { return s + "zz" },
		func(s string) string { return "+" + s },
		func(s string) string { return "-" + s },
		func(s string) string { return "\\u0030" + s[1:] },
		func(s string) string { return s[:len(s)-1] + fmt.Sprintf("\\u%04x", s[len(s)-1]) },
		func(s string) string { return s[:len(s)-1] + fmt.Sprintf("\\u00%02X", s[len(s)-1]) },
		func(s string) string { return strings.TrimLeft(s, "0") },
		func(s string) string { return s + "\\ufeff" },
		func(s string) string { return "\\u200b" + s },
		func(s string) string { return s + ".0" },
		func(s string) string { return "" },
	}
	in(t, stratum.Options{Limits: stratum.NoLimits()}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false)
		for !strings.ContainsAny(w.nonce, "abcdef") {
			w = c.solve(id, n, easy, hexNumber(w.nonce)+1, false)
		}
		require.Equal(t, "true", c.submit(w))
		fields := []string{w.worker, w.job, w.en2, w.ntime, w.nonce, "00000000"}
		send := func(fields []string, quoted string) {
			time.Sleep(10 * time.Millisecond) // no faster than a session may be
			require.NotEqual(t, "true", c.submitRaw(quoted), "%q", fields)
		}
		line := func(fields []string) string { return `["` + strings.Join(fields, `","`) + `"]` }
		sent := 0
		for i := range fields {
			for _, change := range variants {
				f := append([]string(nil), fields...)
				if f[i] = change(f[i]); strings.HasPrefix(f[i], "\\u") && i == 0 {
					continue
				}
				send(f, line(f))
				send(f[:5], line(f[:5]))
				sent += 2
			}
			// Without quotes: as a number, where it is one.
			for _, raw := range []string{fields[i], strings.TrimLeft(fields[i], "0"), "0", "-0", "0.0", "0e1", "null", "[0]"} {
				var f []string
				for k := range fields {
					f = append(f, `"`+fields[k]+`"`)
				}
				f[i] = raw
				if text := "[" + strings.Join(f, ",") + "]"; json.Valid([]byte(text)) {
					send(f, text)
					sent++
				}
			}
		}
		// Changes in several fields at once, and blanks between them.
		random := rand.New(rand.NewPCG(1, 2))
		for range 500 {
			f := append([]string(nil), fields...)
			for i := 1; i < len(f); i++ {
				if random.IntN(3) == 0 {
					f[i] = variants[random.IntN(len(variants))](f[i])
				}
			}
			blank := []string{"", " ", "\t", "  "}[random.IntN(4)]
			send(f, "["+blank+`"`+strings.Join(f, `"`+blank+","+blank+`"`)+`"`+blank+"]")
			sent++
		}
		require.Greater(t, sent, 700)
		require.Equal(t, 1, p.credited())
	})
}

// TestAttackEnvelopesPayOnce repeats a share in other envelopes: other ids, keys twice, more keys, another connection.
func TestAttackEnvelopesPayOnce(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false).params()
		for i, line := range []string{
			`{"id":1,"method":"mining.submit","params":` + w + `}`,
			`{"id":2,"method":"mining.submit","params":` + w + `}`,
			`{"id":"2","jsonrpc":"2.0","method":"mining.submit","params":` + w + `}`,
			`{"params":` + w + `,"method":"mining.submit","id":1,"worker":"bob"}`,
			`{"id":1,"method":"mining.ping","method":"mining.submit","params":[],"params":` + w + `}`,
			`{"id":1,"method":"mining\u002esubmit","params":` + w + `}`,
			`{"method":"mining.submit","params":` + w + `}`,
		} {
			c.send(line)
			require.Equal(t, i == 0, strings.Contains(c.line(), `"result":true`), line)
		}
		require.Equal(t, 1, p.credited())
		other := p.dial() // of the same user, who cannot sell a share to himself twice
		other.start("alice.rig")
		require.Equal(t, "23", other.submitRaw(w))
		thief := p.dial() // nor can anybody else
		thief.start("mallory.rig")
		require.Equal(t, "23", thief.submitRaw(w))
		require.Equal(t, 1, p.credited())
	})
}

// TestAttackVersionBitsPayOnce submits one header under every spelling of its version, on a job whose version has bits
// inside the mask, where miners differ in how they combine them. Each header pays once, and no two of them are taken
// for one another.
func TestAttackVersionBitsPayOnce(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: difficulty.Min, MinDifficulty: difficulty.Min}, func(t *testing.T, p *pool) {
		j := *makeJob(t, p.ids.Next(time.Now()), 100, hardBits)
		j.Version = 0x20002000
		require.NoError(t, p.hub.Broadcast(t.Context(), &j))
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, difficulty.Min, 0, false)
		accepted := make(map[uint32]int) // by header version, as BIP 310 has it
		for range 2 {
			for roll := range uint32(16) {
				bits := roll << 13
				header := j.Version&^0x1fffe000 | int32(bits)
				if bits == 0 {
					header = j.Version // nothing rolled
				}
				for _, spelling := range []string{"%08x", "%x", "%X", "%07x"} {
					w.version = fmt.Sprintf(spelling, bits)
					if c.submit(w) == "true" {
						accepted[uint32(header)]++
					}
				}
			}
			w.version = ""
			require.Equal(t, "22", c.submit(w), "no bits are bits of zero")
		}
		require.Len(t, accepted, 15, "0 and 2000 make one version, the others one each")
		for version, times := range accepted {
			require.Equal(t, 1, times, "%08x", version)
		}
		require.Equal(t, 15, p.credited())
	})
}

// TestAttackResentJobsPayOnce submits a share again after its job has been sent again, in each way that jobs are.
func TestAttackResentJobsPayOnce(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		j := p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false)
		require.Equal(t, "true", c.submit(w))

		resent, _ := c.notify() // after the interval, since there is nothing newer
		w.job = resent
		require.Equal(t, "22", c.submit(w))
		require.NoError(t, p.hub.Broadcast(t.Context(), j)) // the feed repeats itself
		resent, _ = c.notify()
		w.job = resent
		require.Equal(t, "22", c.submit(w))
		c.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
		c.line()
		c.send(`{"id":1,"method":"mining.authorize","params":["alice.rig","d=64"]}`)
		c.line()
		require.Equal(t, "22", c.submit(w))
		require.Equal(t, 1, p.credited())
	})
}

// TestAttackTheSameWorkUnderANewJobPaysOnce is for feeds in which two jobs hold the same work: two makers with the same
// template, text and second, or one that repeats itself under a new id.
func TestAttackTheSameWorkUnderANewJobPaysOnce(t *testing.T) {
	var code string
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		first := p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false)
		require.Equal(t, "true", c.submit(w))
		time.Sleep(20 * time.Second)
		twin := *first
		twin.ID = p.ids.Next(time.Now())
		require.NoError(t, p.hub.Broadcast(t.Context(), &twin))
		w.job, _ = c.notify()
		code = c.submit(w)
		if w.job == id {
			require.Equal(t, "22", code)
		}
	})
	require.Equal(t, "22", code)
}

// TestAttackShortIDsThatComeRoundPayOnce goes once round the 256 ids that jobs have on a connection.
func TestAttackShortIDsThatComeRoundPayOnce(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false)
		require.Equal(t, "true", c.submit(w))
		spare := c.solve(id, n, easy, hexNumber(w.nonce)+1, false)
		seen := map[string]bool{id: true}
		for i := range 256 {
			time.Sleep(100 * time.Millisecond)
			p.broadcast(101+int32(i), hardBits)
			id, _ = c.notify()
			require.Equal(t, i == 255, seen[id], id)
			seen[id] = true
		}
		require.Equal(t, w.job, id)
		require.Equal(t, "23", c.submit(w), "the id is another job's now")
		require.Equal(t, "23", c.submit(spare))
		require.Equal(t, 1, p.credited())
	})
}

// TestAttackDifficultyChangesPayNothing moves the difficulty about and tries to have work paid at one that it was not
// done at.
func TestAttackDifficultyChangesPayNothing(t *testing.T) {
	vardiff := func(*stratum.Session) difficulty.Policy {
		v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{Start: easy, Min: easy, Max: 1 << 20})
		if err != nil {
			panic(err)
		}
		return v
	}
	in(t, stratum.Options{StartDifficulty: easy, MinDifficulty: easy, NewPolicy: vardiff}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		low, n := c.start("alice.rig")
		found := c.solve(low, n, easy, 0, false)
		kept := c.solve(low, n, easy, hexNumber(found.nonce)+1, false)

		// Found while it was easy, and submitted both before and after it became hard. It counts, and for what it is.
		c.send(`{"id":3,"method":"mining.suggest_difficulty","params":[65536]}`)
		require.Equal(t, `{"id":3,"result":true,"error":null}`, c.line())
		require.Equal(t, "true", c.submit(found))
		time.Sleep(20 * time.Second)
		p.broadcast(100, hardBits)
		require.Equal(t, `{"id":null,"method":"mining.set_difficulty","params":[65536]}`, c.line())
		high, n2 := c.notify()
		require.NotEqual(t, low, high)
		require.Equal(t, "true", c.submit(kept))
		for _, s := range p.recorded() {
			require.Equal(t, easy, s.Difficulty, "the job went out at the old difficulty")
		}

		// Found while it was hard, submitted after it became easy.
		weak := c.solve(high, n2, easy, 0, false)
		c.send(`{"id":4,"method":"mining.suggest_difficulty","params":[0.0000001]}`)
		require.Equal(t, `{"id":4,"result":true,"error":null}`, c.line())
		require.Equal(t, "23", c.submit(weak))
		// The job that is sent again keeps its difficulty, and the miner is told of no other.
		again, _ := c.notify()
		require.Equal(t, high, again)
		time.Sleep(20 * time.Second)
		p.broadcast(100, hardBits)
		require.Equal(t, fmt.Sprintf(`{"id":null,"method":"mining.set_difficulty","params":[%v]}`, easy), c.line())
		easier, n3 := c.notify()
		weak = c.solve(high, n2, easy, hexNumber(weak.nonce)+1, false)
		require.Equal(t, "23", c.submit(weak), "its own job was hard and remains so")
		require.Equal(t, "true", c.submit(c.solve(easier, n3, easy, 0, false)))
		var credit difficulty.Difficulty
		for _, s := range p.recorded() {
			if s.Verdict.Accepted() {
				credit += s.Difficulty
			}
		}
		require.Equal(t, 3*easy, credit)
	})
}

// TestAttackWishesMakeNoTraffic asks for another difficulty a thousand times: one reply each, and no job.
func TestAttackWishesMakeNoTraffic(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: 1024, MinDifficulty: 64}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		c.start("alice.rig")
		for i := range 1000 {
			// Slower than any bound on the rate of requests.
			time.Sleep(20 * time.Millisecond)
			c.send(fmt.Sprintf(`{"id":%d,"method":"mining.suggest_difficulty","params":[%d]}`, i, 1<<(6+i%10)))
			require.Equal(t, fmt.Sprintf(`{"id":%d,"result":true,"error":null}`, i), c.line())
		}
		require.Empty(t, c.lineOrNone())
	})
}

// TestAttackNumbersThatAreNone gives numbers that break arithmetic wherever a miner may send one. Whatever is made of
// them, the difficulty stays within the server's bounds.
func TestAttackNumbersThatAreNone(t *testing.T) {
	for _, number := range []string{
		"0", "-0", "-1", "NaN", "nan", "Infinity", "-Infinity", "inf", "1e999", "-1e999", "1e-999", "1e308", "4.9e-324", "0.0",
		"18446744073709551616", "9223372036854775808", "4611686018427387905", "0x10", "1_000", "1,5", "1e", "--1", "",
	} {
		t.Run(number, func(t *testing.T) {
			in(t, stratum.Options{StartDifficulty: 1024, MinDifficulty: 64, MaxDifficulty: 1 << 20}, func(t *testing.T, p *pool) {
				p.broadcast(100, hardBits)
				synctest.Wait()
				for i, before := range []string{
					fmt.Sprintf(`{"id":1,"method":"mining.suggest_difficulty","params":[%s]}`, number),
					fmt.Sprintf(`{"id":1,"method":"mining.suggest_difficulty","params":[%q]}`, number),
					fmt.Sprintf(`{"id":1,"method":"mining.configure","params":[["minimum-difficulty"],{"minimum-difficulty.value":%s}]}`, number),
					fmt.Sprintf(`{"id":1,"method":"mining.configure","params":[["minimum-difficulty"],{"minimum-difficulty.value":%q}]}`, number),
					fmt.Sprintf(`{"id":1,"method":"mining.suggest_target","params":[%q]}`, number),
					fmt.Sprintf(`{"id":1,"method":"mining.authorize","params":["alice.rig","d=%s,md=%s"]}`, number, number),
				} {
					if !json.Valid([]byte(before)) {
						continue
					}
					c := p.dial()
					c.send(before)
					require.Contains(t, c.line(), `"id":1`)
					if i < 5 {
						c.send(`{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}`)
						require.Contains(t, c.line(), `"id":2,"result":true`)
					}
					c.send(`{"id":3,"method":"mining.subscribe","params":[]}`)
					c.line()
					var set struct{ Params []float64 }
					line := c.line()
					require.NoError(t, json.Unmarshal([]byte(line), &set), line)
					require.Contains(t, line, "mining.set_difficulty")
					require.GreaterOrEqual(t, set.Params[0], 64.0, before)
					require.LessOrEqual(t, set.Params[0], float64(1<<20), before)
				}
			})
		})
	}
}

// TestAttackALowFloodRaisesTheDifficulty floods a server with shares that miss: they cost it no records, and the next
// job is harder, since a miner that sends so many is one whose difficulty is too low.
func TestAttackALowFloodRaisesTheDifficulty(t *testing.T) {
	const start = 1.0 / (1 << 16)
	vardiff := func(*stratum.Session) difficulty.Policy {
		v, err := difficulty.NewVardiff(&difficulty.VardiffOptions{Start: start, Min: easy, Max: 1 << 20})
		if err != nil {
			panic(err)
		}
		return v
	}
	in(t, stratum.Options{StartDifficulty: start, MinDifficulty: easy, NewPolicy: vardiff, Limits: stratum.NoLimits()}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		good := c.solve(id, n, start, 0, false)
		for i := range uint32(2000) {
			w := good
			w.nonce = fmt.Sprintf("%08x", 0x80000000+i)
			time.Sleep(10 * time.Millisecond) // half as many as a session may send
			require.Equal(t, "23", c.submit(w))
		}
		require.LessOrEqual(t, len(p.recorded()), 19, "rejects beyond a bound are not recorded")
		require.Equal(t, "true", c.submit(good), "and a good share is")
		p.broadcast(101, hardBits)
		var set struct{ Params []float64 }
		line := c.line()
		require.NoError(t, json.Unmarshal([]byte(line), &set), line)
		require.Contains(t, line, "mining.set_difficulty")
		require.Greater(t, set.Params[0], 8*start)
	})
}

// TestAttackRefusedSharesDoNotMakeItForget fills the memory for refused shares, which must not push out the accepted
// ones.
func TestAttackRefusedSharesDoNotMakeItForget(t *testing.T) {
	in(t, stratum.Options{Limits: stratum.NoLimits()}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		good := c.solve(id, n, easy, 0, false)
		require.Equal(t, "true", c.submit(good))
		late := c.solve(id, n, easy, hexNumber(good.nonce)+1, false)
		junk := good
		for i := range uint32(2000) {
			junk.ntime = fmt.Sprintf("%08x", i+1)
			time.Sleep(10 * time.Millisecond)
			require.Equal(t, "31", c.submit(junk))
		}
		require.Equal(t, "22", c.submit(good))
		require.Equal(t, "true", c.submit(late), "and there is room for good ones")
		require.Equal(t, "22", c.submit(late))
		require.Equal(t, 2, p.credited())
	})
}

// TestAttackNTime goes round the bounds of ntime, and through the spellings of the job's own.
func TestAttackNTime(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: difficulty.Min, MinDifficulty: difficulty.Min}, func(t *testing.T, p *pool) {
		j := p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, difficulty.Min, 0, false)
		at := func(ntime uint32) string { w.ntime = fmt.Sprintf("%08x", ntime); return c.submit(w) }
		for _, test := range []struct {
			name  string
			ntime uint32
			want  string
		}{
			{"the job's", j.Time, "true"},
			{"the job's again", j.Time, "22"},
			{"zero, which is the job's", 0, "22"},
			{"the template's lowest", j.MinTime, "true"},
			{"one below", j.MinTime - 1, "31"},
			{"one", 1, "31"},
			{"ten minutes ahead", j.Time + 600, "true"},
			{"one more", j.Time + 601, "32"},
			{"two hours ahead", j.Time + 7200, "32"},
			{"the end of the world", 0xffffffff, "32"},
			{"half of it", 0x80000000, "32"},
		} {
			require.Equal(t, test.want, at(test.ntime), test.name)
		}
		require.Equal(t, 3, p.credited())
	})
}

// TestAttackAWinnerCannotBeHidden spoils a block's share beforehand with others that share most of it. The block is
// handed on whatever came before, and whatever is wrong with it as a share.
func TestAttackAWinnerCannotBeHidden(t *testing.T) {
	in(t, stratum.Options{StartDifficulty: 1 << 40, MinDifficulty: 1, Limits: stratum.NoLimits()}, func(t *testing.T, p *pool) {
		j := p.broadcast(100, regtestBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		winner := c.solveTarget(id, n, j.Target(), 0, false)
		miss := c.solveTarget(id, n, j.Target(), 0, true)
		bad := 0
		for i := range uint32(2000) { // more than are remembered
			w := miss
			w.version = fmt.Sprintf("%08x", i<<13&0x1fffe000|1)
			time.Sleep(10 * time.Millisecond)
			if c.submit(w) == "33" {
				bad++
			}
		}
		before := len(p.solved())
		require.Positive(t, bad)
		w := winner
		w.en2 = "00"
		require.Equal(t, "27", c.submit(w))
		w = winner
		w.job = "77"
		require.Equal(t, "21", c.submit(w))
		require.Equal(t, "true", c.submit(winner))
		require.Len(t, p.solved(), before+1)

		// A time out of bounds makes no share, but a node may think otherwise of the block.
		ahead := n
		ahead.NTime += 3600
		late := c.solveTarget(id, ahead, j.Target(), 0, false)
		require.Equal(t, "32", c.submit(late))
		require.Len(t, p.solved(), before+2)
		require.Equal(t, "22", c.submit(late))
		require.Len(t, p.solved(), before+2, "once")
	})
}

// TestAttackVersionBitsOutsideTheMask has work that only outside the mask is any.
func TestAttackVersionBitsOutsideTheMask(t *testing.T) {
	const mask = 0x00c00000
	in(t, stratum.Options{VersionMask: mask}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		rolled := func(bits uint32) work {
			m := n
			m.Version ^= bits
			w := c.solve(id, m, easy, 0, false)
			w.version = fmt.Sprintf("%08x", bits)
			return w
		}
		require.Equal(t, "true", c.submit(rolled(mask)))
		for bit := range 32 {
			if bits := uint32(1) << bit; bits&mask == 0 {
				require.Equal(t, "33", c.submit(rolled(bits)), "%08x", bits)
				require.Equal(t, "33", c.submit(rolled(bits|mask)), "%08x", bits|mask)
			}
		}
		require.Equal(t, 1, p.credited())
		// Nor does what a miner configures widen the mask.
		c.send(`{"id":3,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff"}]}`)
		require.Contains(t, c.line(), `"version-rolling.mask":"00c00000"`)
		c.line()
		m := n
		m.Version ^= 0x00002000
		w := c.solve(id, m, easy, 1<<16, false)
		w.version = "00002000"
		require.Equal(t, "33", c.submit(w))
	})
}

// TestAttackExtranoncesAreNotReused connects and leaves, over and over: no extranonce comes again while shares of its
// last holder could be replayed under it.
func TestAttackExtranoncesAreNotReused(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		first := p.dial()
		id, n := first.start("alice.rig")
		w := first.solve(id, n, easy, 0, false)
		require.Equal(t, "true", first.submit(w))
		seen := map[string]bool{hex.EncodeToString(first.en1): true}
		first.conn.Close()
		time.Sleep(500 * time.Millisecond) // between the whole seconds, on which jobs are sent again
		for range 300 {
			time.Sleep(time.Second)
			c := p.dial()
			c.start("mallory.rig")
			en1 := hex.EncodeToString(c.en1)
			require.False(t, seen[en1], en1)
			seen[en1] = true
			code := c.submit(w)
			require.Contains(t, []string{"21", "23"}, code, "somebody else's share")
			c.conn.Close()
		}
		require.Equal(t, 1, p.credited())
	})
}

// TestAttackClockStepsReuseNothing hands out every extranonce there is, so that only what is given back can come again,
// and has the clock jump: neither an early nor a stepped-back clock ends a quarantine.
func TestAttackClockStepsReuseNothing(t *testing.T) {
	const quarantine = 10 * time.Minute
	p := stratum.NewPrefixes(7, quarantine)
	now := time.Unix(1_700_000_000, 0)
	var last uint32
	count := 0
	for {
		prefix, err := p.Lease(now)
		if err != nil {
			require.ErrorIs(t, err, stratum.ErrNoExtranonce)
			break
		}
		last = prefix
		count++
	}
	require.Equal(t, 16_777_214, count)
	p.Release(last, now)
	for _, step := range []time.Duration{0, time.Second, -time.Hour, quarantine - time.Second, -24 * time.Hour} {
		_, err := p.Lease(now.Add(step))
		require.ErrorIs(t, err, stratum.ErrNoExtranonce, "%v after it was given back", step)
	}
	prefix, err := p.Lease(now.Add(quarantine))
	require.NoError(t, err)
	require.Equal(t, last, prefix)
}

// TestAttackJobsFromAClockThatIsAhead takes jobs of a maker whose clock is an hour fast: miners mine them, and the
// bounds of ntime go with the job.
func TestAttackJobsFromAClockThatIsAhead(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		at := func(now time.Time) job.ID { return job.ID(now.Unix()<<32 | 9) }
		fast := makeJob(t, at(time.Now().Add(time.Hour)), 100, hardBits)
		require.NoError(t, p.hub.Broadcast(t.Context(), fast))
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		// One that is right again comes after it and replaces it.
		time.Sleep(time.Second)
		right := makeJob(t, at(time.Now()), 101, hardBits)
		require.NoError(t, p.hub.Broadcast(t.Context(), right))
		id, n = c.notify()
		require.True(t, n.Clean)
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		// Much too late is not sent at all.
		late := makeJob(t, at(time.Now().Add(-2*time.Minute)), 102, hardBits)
		require.NoError(t, p.hub.Broadcast(t.Context(), late))
		synctest.Wait()
		require.Empty(t, c.lineOrNone())
	})
}

// TestAttackAFastClockDoesNotMakeItForget has one maker with a fast clock and then one without. The later job has the
// lower id and lives on, because nothing comes after it; work for the other must not push its shares out of memory.
func TestAttackAFastClockDoesNotMakeItForget(t *testing.T) {
	var code string
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		at := func(now time.Time) job.ID { return job.ID(now.Unix()<<32 | 9) }
		require.NoError(t, p.hub.Broadcast(t.Context(), makeJob(t, at(time.Now().Add(10*time.Minute)), 100, hardBits)))
		synctest.Wait()
		c := p.dial()
		fast, fastNotify := c.start("alice.rig")
		time.Sleep(20 * time.Second)
		require.NoError(t, p.hub.Broadcast(t.Context(), makeJob(t, at(time.Now()), 100, hardBits)))
		id, n := c.notify()
		require.NotEqual(t, fast, id)
		share := c.solve(id, n, easy, 0, false)
		require.Equal(t, "true", c.submit(share))
		began := time.Now()
		for time.Since(began) < 11*time.Minute {
			again, _ := c.notify()
			require.Equal(t, id, again)
			c.send(`{"id":1,"method":"mining.ping"}`)
			require.Contains(t, c.line(), "pong")
		}
		require.Equal(t, "22", c.submit(share))
		require.Equal(t, "true", c.submit(c.solve(fast, fastNotify, easy, 0, false)))
		code = c.submit(share)
	})
	require.Equal(t, "22", code)
}

// TestAttackHalfLines leaves in the middle of a submit. Nothing is credited, and the other half on the next connection,
// which may get the same buffers, belongs to nothing.
func TestAttackHalfLines(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		c := p.dial()
		id, n := c.start("alice.rig")
		line := `{"id":9,"method":"mining.submit","params":` + c.solve(id, n, easy, 0, false).params() + "}"
		for cut := 1; cut <= len(line); cut++ { // the last one lacks nothing but the line feed
			a := p.dial()
			a.start("alice.rig")
			_, err := a.conn.Write([]byte(line[:cut]))
			require.NoError(t, err)
			synctest.Wait()
			a.conn.Close()
			b := p.dial()
			go b.conn.Write([]byte(line[cut:] + "\n"))
			b.conn.SetReadDeadline(time.Now().Add(time.Second))
			reply, _ := io.ReadAll(b.conn)
			require.NotContains(t, string(reply), "true", "cut at %d", cut)
			b.conn.Close()
			synctest.Wait()
		}
		require.Empty(t, p.recorded())
		require.Equal(t, 1, p.server.Stats().Sessions)
		c.send(line)
		require.Equal(t, `{"id":9,"result":true,"error":null}`, c.line())
	})
}

// TestAttackOneByteASecond holds a connection with as little as possible: before the login for a minute at most, and
// after it no longer than a line may be. A slow miner's share counts all the same.
func TestAttackOneByteASecond(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		drip := func(c *client, text func(i int) byte) (sent int) {
			for {
				if _, err := c.conn.Write([]byte{text(sent)}); err != nil {
					return sent
				}
				sent++
				time.Sleep(time.Second)
			}
		}
		head := `{"id":1,"method":"mining.subscribe","params":["`
		endless := func(i int) byte {
			if i < len(head) {
				return head[i]
			}
			return 'a'
		}
		c := p.dial()
		ended := c.discard()
		require.InDelta(t, 60, drip(c, endless), 2)
		<-ended

		c = p.dial()
		c.start("alice.rig")
		ended = c.discard()
		require.InDelta(t, 16<<10, drip(c, endless), 4)
		<-ended

		c = p.dial()
		id, n := c.start("alice.rig")
		line := `{"id":9,"method":"mining.submit","params":` + c.solve(id, n, easy, 0, false).params() + "}\n"
		go func() {
			for i := range len(line) {
				time.Sleep(time.Second)
				c.conn.Write([]byte{line[i]})
			}
		}()
		reply := c.line()
		for strings.Contains(reply, "mining.notify") {
			reply = c.line()
		}
		require.Equal(t, `{"id":9,"result":true,"error":null}`, reply)
	})
}

// TestAttackALineInSingleBytesCostsLittle sends a long line one byte to a packet. It must not cost the server memory and
// time that grow with the square of its length.
func TestAttackALineInSingleBytesCostsLittle(t *testing.T) {
	var cost uint64
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		c := p.dial()
		c.login("alice.rig")
		line := []byte(`{"id":1,"method":"mining.ping","params":["` + strings.Repeat("a", 15<<10) + `"]}` + "\n")
		var before, after runtime.MemStats
		synctest.Wait()
		runtime.ReadMemStats(&before)
		for i := range line {
			_, err := c.conn.Write(line[i : i+1])
			require.NoError(t, err)
		}
		require.Contains(t, c.line(), "pong")
		runtime.ReadMemStats(&after)
		cost = after.TotalAlloc - before.TotalAlloc
	})
	most := uint64(8 << 20)
	if raceEnabled {
		most = 80 << 20 // a sync.Pool then loses every fourth buffer, so that races show; the square would be 118 MB more
	}
	require.Less(t, cost, most, "bytes of garbage for a line of 15 KiB")
}

// TestAttackBytesWithoutEnd sends megabytes of what never becomes a request. Little of it is read.
func TestAttackBytesWithoutEnd(t *testing.T) {
	const size = 8 << 20
	for _, test := range []struct{ name, head, fill string }{
		{"a line without end", `{"id":1,"method":"`, "a"},
		{"blanks", "", " "},
		{"nested arrays", "", "["},
		{"nested objects", "", `{"a":`},
		{"nested params", `{"id":1,"params":`, "["},
		{"a string of escapes", `{"id":"`, `\u0000`},
		{"a number without end", `{"id":`, "9"},
		{"NUL bytes", "", "\x00"},
		{"keys without end", `{`, `"a":1,`},
	} {
		for _, login := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, login %v", test.name, login), func(t *testing.T) {
				in(t, stratum.Options{}, func(t *testing.T, p *pool) {
					c := p.dial()
					if login {
						c.login("alice.rig")
					}
					ended := c.discard()
					chunk := []byte(strings.Repeat(test.fill, 4096/len(test.fill)))
					read, err := c.conn.Write([]byte(test.head))
					for err == nil && read < size {
						var n int
						n, err = c.conn.Write(chunk)
						read += n
					}
					require.Error(t, err, "the server still reads")
					require.LessOrEqual(t, read, 64<<10)
					<-ended
				})
			})
		}
	}
}

// TestAttackJunk sends random bytes, whole lines of them and lines that begin well. The server goes on, answers none of
// it with yes and logs no more than a line each, without the junk.
func TestAttackJunk(t *testing.T) {
	var log lockedBuffer
	opts := stratum.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		random := rand.New(rand.NewPCG(5, 6))
		const connections = 300
		for i := range connections {
			c := p.dial()
			if i%3 == 0 {
				c.start("alice.rig")
			}
			junk := make([]byte, 1+random.IntN(3000))
			for k := range junk {
				junk[k] = byte(random.Uint32())
				if i%2 == 0 && random.IntN(20) == 0 {
					junk[k] = "{}[]\",:\n\\"[random.IntN(9)]
				}
			}
			if i%5 == 0 {
				junk = append([]byte(`{"id":1,"method":"mining.submit","params":["`), junk...)
			}
			go c.conn.Write(append(junk, '\n'))
			c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			reply, _ := io.ReadAll(c.conn)
			require.NotContains(t, string(reply), `"result":true`)
			c.conn.Close()
			synctest.Wait()
		}
		require.Empty(t, p.recorded())
		require.Zero(t, p.server.Stats().Sessions)
		c := p.dial()
		id, n := c.start("alice.rig")
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
		require.LessOrEqual(t, strings.Count(log.String(), "\n"), connections)
		for _, line := range strings.Split(log.String(), "\n") {
			require.Less(t, len(line), 400)
			for _, b := range []byte(line) {
				require.True(t, b >= ' ' && b < 0x7f, "%q", line)
			}
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestAttackATLSHelloOnAPlainPort is a miner with the wrong URL. It hears at once that this is no TLS, and the log has
// one readable line.
func TestAttackATLSHelloOnAPlainPort(t *testing.T) {
	var log lockedBuffer
	opts := stratum.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	in(t, opts, func(t *testing.T, p *pool) {
		c := p.dial()
		start := time.Now()
		err := tls.Client(c.conn, &tls.Config{ServerName: "pool.example"}).HandshakeContext(t.Context())
		require.Error(t, err)
		require.Equal(t, start, time.Now(), "at once")
		c.conn.Close()
		synctest.Wait()
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.NotContains(t, log.String(), `\x16`)
		require.NotContains(t, log.String(), `\u0016`)
		require.Zero(t, p.server.Stats().Sessions)
	})
}

// TestAttackWritersThatNeverRead send requests and take no answers. The server stops reading from them soon, drops them
// within its write timeout, and others notice nothing.
//
// The bound is twice the queue and not once: what is being written at the moment is counted no more, so that as much
// again can come to wait behind it. Up to 1.96 queues of replies were measured, depending on who writes first.
func TestAttackWritersThatNeverRead(t *testing.T) {
	const (
		queue   = 256 << 10
		request = `{"id":1,"method":"mining.ping","params":[]}` + "\n"
		reply   = `{"id":1,"result":"pong","error":null}` + "\n"
		most    = 2*queue*len(request)/len(reply) + 64<<10 // and what is being read
	)
	in(t, stratum.Options{MaxQueue: queue}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		good := p.dial()
		id, n := good.start("alice.rig")
		const attackers = 20
		start := time.Now()
		took := make(chan int, attackers)
		for range attackers {
			c := p.dial()
			c.start("mallory.rig")
			go func() {
				chunk := []byte(strings.Repeat(request, 20))
				read := 0
				for {
					k, err := c.conn.Write(chunk)
					read += k
					if err != nil {
						took <- read
						return
					}
				}
			}()
		}
		synctest.Wait()
		require.Equal(t, "true", good.submit(good.solve(id, n, easy, 0, false)))
		ended := good.discard()
		for range attackers {
			require.LessOrEqual(t, <-took, most)
		}
		require.LessOrEqual(t, time.Since(start), 3*time.Minute)
		synctest.Wait()
		require.Equal(t, 1, p.server.Stats().Sessions)
		good.conn.Close()
		<-ended
	})
}

// TestAttackSlowHandshakes fills the server with connections that say nothing, or nothing much. They are gone within a
// minute, and as long as they are there the server says that it is full.
func TestAttackSlowHandshakes(t *testing.T) {
	in(t, stratum.Options{MaxSessions: 300}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		good := p.dial()
		id, n := good.start("alice.rig")
		for i := range 299 {
			c := p.dial()
			switch i % 3 {
			case 0:
				c.send(`{"id":1,"method":"mining.subscribe","params":[]}`)
				c.line()
			case 1:
				_, err := c.conn.Write([]byte("{"))
				require.NoError(t, err)
			}
		}
		synctest.Wait()
		require.Equal(t, 300, p.server.Stats().Sessions)
		p.dial().ended()
		require.Equal(t, int64(1), p.server.Stats().Refused)
		require.Equal(t, "true", good.submit(good.solve(id, n, easy, 0, false)), "who is in stays in")
		time.Sleep(16 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, p.server.Stats().Sessions)
		p.dial().start("bob.rig")
	})
}

// TestAttackManyConnectionsOfOneAddressAtOnce connects and hangs up faster than sessions are made.
func TestAttackManyConnectionsOfOneAddressAtOnce(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				conn, err := p.ln.Dial(t.Context())
				if err != nil {
					return
				}
				if i%2 == 0 {
					conn.Write([]byte(`{"id":1,"method":"mining.authorize","params":["a.b"]}` + "\n"))
				}
				conn.Close()
			})
		}
		wg.Wait()
		synctest.Wait()
		require.Zero(t, p.server.Stats().Sessions)
		c := p.dial()
		id, n := c.start("alice.rig")
		require.Equal(t, "true", c.submit(c.solve(id, n, easy, 0, false)))
	})
}

// TestAttackSharesGoToWhoEarnedThem submits under other names and logs in as others on the way.
func TestAttackSharesGoToWhoEarnedThem(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		bob := p.dial()
		bob.start("bob.rig")
		c := p.dial()
		id, n := c.start("alice.rig")
		w := c.solve(id, n, easy, 0, false)
		w.worker = "bob.rig"
		require.Equal(t, "true", c.submit(w))
		c.send(`{"id":2,"method":"mining.authorize","params":["bob.rig",""]}`)
		require.Contains(t, c.line(), `[24,`)
		w = c.solve(id, n, easy, hexNumber(w.nonce)+1, false)
		require.Equal(t, "true", c.submit(w))
		for _, s := range p.recorded() {
			require.Equal(t, share.Worker{User: "alice", Name: "rig"}, s.Worker)
			require.Equal(t, p.recorded()[0].UserID, s.UserID)
		}
		require.Len(t, p.recorded(), 2)
	})
}

// TestAttackReconnectNamesNoHost is what a miner is told that submits before its login: to come back to where it is. A
// host in that message is how hashrate is stolen on the way, so the server never teaches miners to follow one.
func TestAttackReconnectNamesNoHost(t *testing.T) {
	in(t, stratum.Options{}, func(t *testing.T, p *pool) {
		c := p.dial()
		for i := range 100 {
			require.Equal(t, "24", c.submitRaw(`["a","0","0000000000000000","00000000","00000000"]`))
			if i == 0 {
				require.Equal(t, `{"id":null,"method":"client.reconnect","params":[]}`, c.line())
			}
		}
		require.Empty(t, c.lineOrNone(), "once")
	})
}

// TestAttackNamesReachNoRecord puts what breaks SQL, logs and web pages into names.
func TestAttackNamesReachNoRecord(t *testing.T) {
	var log lockedBuffer
	opts := stratum.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	in(t, opts, func(t *testing.T, p *pool) {
		p.broadcast(100, hardBits)
		synctest.Wait()
		for i, name := range []string{
			`alice'; DROP TABLE users--.rig`, `alice<script>.rig"onload=x`, `alice\r\nlevel=ERROR.rig`, `alice.\u202e\u0000gir`, `x/../../etc/passwd.rig`,
			strings.Repeat("a", 128) + "." + strings.Repeat("b", 1000),
		} {
			c := p.dial()
			c.send(`{"id":1,"method":"mining.subscribe","params":["x` + strings.Repeat("\\u00ff<", 40) + `"]}`)
			c.line()
			c.send(`{"id":2,"method":"mining.authorize","params":["` + strings.ReplaceAll(name, `"`, `\"`) + `"]}`)
			require.Equal(t, `{"id":2,"result":true,"error":null}`, c.line(), name)
			for s := range p.server.Sessions {
				require.Equal(t, share.FilterName(s.Agent()), s.Agent())
				require.LessOrEqual(t, len(s.Agent()), 30)
				w, _ := s.Worker()
				require.Equal(t, share.FilterName(w.String()), w.String())
				require.LessOrEqual(t, len(w.Name), 20)
			}
			c.conn.Close()
			synctest.Wait()
			require.Equal(t, i+1, strings.Count(log.String(), "miner left"))
		}
		require.NotContains(t, log.String(), "\nlevel=ERROR")
	})
}
