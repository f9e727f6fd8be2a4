package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/sv1"
	"github.com/stretchr/testify/require"
)

func TestFlightsAreFoundByTheirNumbers(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var f flights
	f.first, f.next = math.MaxUint32-500, math.MaxUint32-500 // across the end of the numbers
	open := make(map[uint32]uint64)
	for i := range uint64(20000) {
		if len(open) < 100 && rng.IntN(2) == 0 {
			fl, n := f.push(100)
			require.NotNil(t, fl)
			*fl = flight{en2: i, open: true}
			open[n] = i
		} else {
			for n, en2 := range open { // any of them
				var fl *flight
				if rng.IntN(2) == 0 {
					fl = f.take(n)
				} else {
					fl = f.takeIndex(uint16(n))
				}
				require.NotNil(t, fl)
				require.Equal(t, en2, fl.en2)
				require.Nil(t, f.take(n), "a second reply")
				delete(open, n)
				break
			}
		}
		require.Equal(t, len(open), f.open)
	}
	var seen []uint64
	f.each(func(n uint32, fl *flight) {
		require.Equal(t, open[n], fl.en2)
		seen = append(seen, fl.en2)
	})
	require.Len(t, seen, len(open))
	require.True(t, slices.IsSorted(seen), "in the order they were sent in")
	require.Nil(t, f.take(f.next), "never sent")
	require.Nil(t, f.take(f.first-1), "long answered")
	require.Equal(t, len(open), f.drop())
	require.Zero(t, f.open)
}

func TestFlightsHaveALimit(t *testing.T) {
	var f flights
	for range 3 {
		fl, _ := f.push(3)
		require.NotNil(t, fl)
		fl.open = true
	}
	fl, _ := f.push(3)
	require.Nil(t, fl)
	require.NotNil(t, f.take(1))
	fl, _ = f.push(3)
	require.NotNil(t, fl)
	require.Len(t, f.ring, 4)
}

func TestTimersWakeInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var h timers
	conns := make([]*conn, 500)
	for i := range conns {
		conns[i] = &conn{slot: -1, wake: rng.Int64N(1000)}
		h.put(conns[i])
	}
	for range 1000 {
		c := conns[rng.IntN(len(conns))]
		if rng.IntN(3) == 0 {
			h.remove(c)
			require.EqualValues(t, -1, c.slot)
			h.remove(c) // twice does no harm
		} else {
			c.wake = rng.Int64N(1000)
			h.put(c)
		}
	}
	last := int64(-1)
	for h.len() > 0 {
		c := h.first()
		require.GreaterOrEqual(t, c.wake, last)
		last = c.wake
		h.remove(c)
	}
}

// What a submit says is read back with the decoder of the pool's side.
func TestSubmitLines(t *testing.T) {
	for _, size := range []int{1, 4, 8} {
		c := &conn{user: `"swarm.w1"`, mask: 0x1fffe000}
		f := &flight{en2: 0x0102030405060708, size: uint8(size), job: "17", ntime: 0x66669991, nonce: 0x12f444d0, version: 0xc00000}
		var r sv1.Request
		line := c.appendSubmit(nil, 5, f)
		require.NoError(t, r.Decode(line[:len(line)-1]))
		require.Equal(t, strconv.Itoa(firstSubmit+5), string(r.ID))
		var s sv1.Submit
		require.NoError(t, s.Decode(r.Params, size))
		full := []byte{1, 2, 3, 4, 5, 6, 7, 8}
		require.Equal(t, hex.EncodeToString(full[8-size:]), hex.EncodeToString(s.Extranonce2[:size]))
		require.EqualValues(t, 17, s.JobID)
		require.Equal(t, f.ntime, s.NTime)
		require.Equal(t, f.nonce, s.Nonce)
		require.True(t, s.HasVersionBits)
		require.Equal(t, f.version, s.VersionBits)
		c.mask = 0
		line = c.appendSubmit(nil, 5, f)
		require.NoError(t, r.Decode(line[:len(line)-1]))
		require.NoError(t, s.Decode(r.Params, size))
		require.False(t, s.HasVersionBits)
	}
}

func TestAgentsKeepTheDifficultyOfEachWorker(t *testing.T) {
	a := newAgent(8)
	frame := func(exponent uint8, ids ...uint16) btcagent.Frame {
		f, _, err := btcagent.Next(btcagent.AppendSetDifficulty(nil, exponent, ids...))
		require.NoError(t, err)
		return f
	}
	require.True(t, a.setDifficulty(frame(16, 0, 7, 0xfffe)))
	require.True(t, a.setDifficulty(frame(200, 3)))
	require.Equal(t, []int16{16, -1, -1, 200, -1, -1, -1, 16}, a.exps)
	f := frame(1, 1, 2)
	f.Body = f.Body[:len(f.Body)-1]
	require.False(t, a.setDifficulty(f))
	a.reset()
	require.EqualValues(t, -1, a.exps[0])
	for id, fits := range map[string]bool{"0": true, "255": true, "256": false, "": false, "f1": false, "-1": false} {
		a.setJob(id)
		require.Equal(t, fits, a.hasJob, id)
	}
}

// A share of an agent's miner hashes the coinbase in which the pool's extranonce1 comes first, then the miner's number,
// then what the miner counts through.
func TestAgentsHashTheirWorkersCoinbase(t *testing.T) {
	s := &swarm{cfg: &config{maxPending: 8, real: true}, blocks: newBlocks(), puzzles: make(chan puzzle, 2)}
	c := &conn{lane: newLane(s, 0), agent: newAgent(300), en1: "\x1a\x00\x00\x2c", en2Size: 8, mask: 0x1fffe000}
	c.agent.next, c.agent.counters[258] = 258, 5
	c.agent.exps[258] = 0 // difficulty 1, too hard to hash here
	c.target.difficulty = float64(easy)
	var m message
	require.True(t, m.scan([]byte(notifyLine(t))))
	c.setWork(m.params)
	require.False(t, c.solve(), "at the difficulty that its own frame named")
	require.Len(t, c.lane.stats.messages, 1)

	c.agent.next, c.agent.counters[258], c.agent.exps[258] = 258, 5, -1
	c.setWork(m.params)
	require.True(t, c.solve())
	p := <-s.puzzles
	nonce, ok := p.search(t.Context())
	require.True(t, ok)

	var n sv1.Notify
	require.NoError(t, n.Decode(m.params))
	coinbase := slices.Concat(n.Coinb1, []byte{0x1a, 0, 0, 0x2c, 0, 0, 1, 2, 0, 0, 0, 5}, n.Coinb2)
	double := func(b []byte) [32]byte {
		first := sha256.Sum256(b)
		return sha256.Sum256(first[:])
	}
	root := double(coinbase)
	for _, step := range n.Branch {
		root = double(append(root[:], step[:]...))
	}
	header := binary.LittleEndian.AppendUint32(nil, n.Version&^0x1fffe000|p.bits)
	header = append(append(header, n.PrevHash[:]...), root[:]...)
	header = binary.LittleEndian.AppendUint32(header, n.NTime)
	header = binary.LittleEndian.AppendUint32(header, n.Bits)
	header = binary.LittleEndian.AppendUint32(header, nonce)
	hash := double(header)
	require.True(t, easy.Target().MetBy(&hash))
	require.NotZero(t, p.bits, "the fifth share rolls the version")
	require.EqualValues(t, 258, p.sid)
	require.EqualValues(t, 5, p.en2)
}

func TestReasonsAreBounded(t *testing.T) {
	var r reasons
	for i := range 1000 {
		r.add([]byte("reason " + strconv.Itoa(i)))
	}
	r.add(make([]byte, 5000))
	require.LessOrEqual(t, len(r), maxReasons+1)
	require.EqualValues(t, 1001, r.total())
	var sum reasons
	sum.merge(r)
	sum.merge(r)
	require.EqualValues(t, 2002, sum.total())
	require.LessOrEqual(t, len(sum), maxReasons+1)

	var s stats
	for code := range 1000 {
		s.refuse(code, nil)
	}
	require.LessOrEqual(t, len(s.rejects), maxCodes+1)
	require.EqualValues(t, 1000, s.rejected())
}

// Every count of a lane is in the sum: a field that merge forgets is a number that is always 0 in the report.
func TestMergeForgetsNoCount(t *testing.T) {
	one := stats{
		1, 1, 1, reasons{"a": 1}, reasons{"b": 1}, hist{}, hist{}, hist{}, 1, 1, 1,
		map[int]*reject{23: {1, reasons{"low": 1}}}, hist{}, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
		reasons{"c": 1}, 1, 1, 1, 1,
	}
	for _, h := range []*hist{&one.connect, &one.login, &one.work, &one.latency} {
		h.add(time.Second)
	}
	var sum stats
	sum.merge(&one)
	require.Equal(t, one, trimmed(sum))
}

// trimmed gives histograms the length they have on their own.
func trimmed(s stats) stats {
	for _, h := range []*hist{&s.connect, &s.login, &s.work, &s.latency} {
		var one hist
		one.add(time.Second)
		h.n = h.n[:len(one.n)]
	}
	return s
}

func TestNumbersReadWell(t *testing.T) {
	require.Equal(t, "0", num(0))
	require.Equal(t, "999", num(999))
	require.Equal(t, "1,000", num(1000))
	require.Equal(t, "-1,234,567", num(-1234567))
	for d, want := range map[time.Duration]string{
		0: "0 ns", 999: "999 ns", 1500: "1.50 µs", 12345 * time.Microsecond: "12.3 ms", 1234 * time.Millisecond: "1.23 s",
		99 * time.Second: "99.0 s", 125 * time.Second: "2m5s", -time.Second: "-1.00 s",
	} {
		require.Equal(t, want, short(d))
	}
}

func TestVersionBitsStayInTheMask(t *testing.T) {
	seen := make(map[uint32]bool)
	for n := range uint32(1 << 16) {
		v := spreadBits(n, 0x1fffe000)
		require.Zero(t, v&^uint32(0x1fffe000))
		seen[v] = true
	}
	require.Len(t, seen, 1<<16, "all different")
}
