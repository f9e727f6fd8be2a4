package share_test

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
	"github.com/stretchr/testify/require"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func displayHash(t testing.TB, s string) chainhash.Hash {
	t.Helper()
	h, err := chainhash.NewHashFromStr(s)
	require.NoError(t, err)
	return *h
}

// capturedJobs reads the jobs that a running BTCPool handed out.
func capturedJobs(t testing.TB) map[job.ID]*job.Job {
	t.Helper()
	f, err := os.Open("testdata/stratumjobs.jsonl")
	require.NoError(t, err)
	defer f.Close()
	jobs := make(map[job.ID]*job.Job)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m struct {
			JobID                  job.ID
			PrevHash, MerkleBranch string
			Coinbase1, Coinbase2   string
			Height, NVersion       int32
			NBits, NTime, MinTime  uint32
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &m))
		fields := job.Job{
			ID: m.JobID, Height: m.Height, Version: m.NVersion, Bits: m.NBits, Time: m.NTime, MinTime: m.MinTime,
			PrevHash: displayHash(t, m.PrevHash),
			Coinb1:   unhex(t, m.Coinbase1), Coinb2: unhex(t, m.Coinbase2),
		}
		for b := m.MerkleBranch; b != ""; b = b[64:] {
			fields.Branch = append(fields.Branch, displayHash(t, b[:64]))
		}
		j, err := job.New(fields)
		require.NoError(t, err)
		jobs[j.ID] = j
	}
	require.NoError(t, lines.Err())
	return jobs
}

// Every share that BTCPool was seen to judge gets the same header, hash and ruling here, on mainnet-sized jobs.
func TestValidateRulesAsBTCPoolDid(t *testing.T) {
	jobs := capturedJobs(t)
	raw, err := os.ReadFile("testdata/shares-v3.json")
	require.NoError(t, err)
	var shares []struct {
		Decoded struct {
			Status      int32
			Timestamp   int64
			JobID       job.ID
			ShareDiff   float64
			BitsReached string
		}
		MinerSide *struct {
			Case, Extranonce1, Extranonce2, NTime, Nonce string
			VersionField                                 string `json:"version_field"`
			HeaderHex                                    string `json:"header_hex"`
			BlockHash                                    string `json:"block_hash_be"`
		} `json:"miner_side"`
	}
	require.NoError(t, json.Unmarshal(raw, &shares))
	checked := 0
	for _, s := range shares {
		m := s.MinerSide
		if m == nil || m.HeaderHex == "" || jobs[s.Decoded.JobID] == nil {
			continue
		}
		t.Run(m.Case, func(t *testing.T) {
			sub := share.Submission{NTime: number(t, m.NTime), Nonce: number(t, m.Nonce)}
			if m.VersionField != "" {
				sub.VersionBits = number(t, m.VersionField)
			}
			copy(sub.Extranonce[:], unhex(t, m.Extranonce1))
			en2 := unhex(t, m.Extranonce2)
			copy(sub.Extranonce[job.ExtranonceSize-len(en2):], en2) // BTCPool pads a short one on the left
			w := share.NewWork(jobs[s.Decoded.JobID], difficulty.Difficulty(s.Decoded.ShareDiff))
			r := share.NewValidator(nil).Validate(&w, &sub, time.Unix(s.Decoded.Timestamp, 0))
			want, ok := share.VerdictOf(s.Decoded.Status)
			require.True(t, ok)
			if want == share.Accepted && !w.Target.MetBy((*[32]byte)(&r.Hash)) {
				want = share.LowDifficulty // that part of the run had the difficulty check switched off
			}
			require.Equal(t, want.String(), r.Verdict.String())
			require.Equal(t, m.HeaderHex, hex.EncodeToString(r.Header[:]))
			require.Equal(t, m.BlockHash, r.Hash.String())
			require.Equal(t, s.Decoded.BitsReached, fmt.Sprintf("%08x", difficulty.FromHash((*[32]byte)(&r.Hash)).Bits()))
		})
		checked++
	}
	require.GreaterOrEqual(t, checked, 4)
}

func number(t testing.TB, s string) uint32 {
	t.Helper()
	return binary.BigEndian.Uint32(unhex(t, s))
}

// exampleJob is the job of the worked example in the description of Stratum: a share of difficulty 1.2 for it is known.
func exampleJob(t testing.TB, bits uint32) (*job.Job, share.Submission) {
	t.Helper()
	j, err := job.New(job.Job{
		ID:       1718000017 << 32,
		Height:   840123,
		Version:  0x20000000,
		Bits:     bits,
		Time:     0x66669991,
		MinTime:  0x66669000,
		PrevHash: displayHash(t, "00000000000000000001a3f5c7e9081b2d4f60718293a4b5c6d7e8f900112233"),
		Coinb1: unhex(t, "02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff"+
			"1f03bbd10c04809966662f53444b20706f6f6c2f"),
		Coinb2: unhex(t, "ffffffff01205fa012000000001600140102030405060708090a0b0c0d0e0f101112131400000000"),
		Branch: []chainhash.Hash{
			chainhash.Hash(unhex(t, "a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304")),
			chainhash.Hash(unhex(t, "9c312fd9d0cb6d6e88d7c1016b75ec93bf23ad9b781affb57d4604edd445b446")),
		},
	})
	require.NoError(t, err)
	sub := share.Submission{NTime: 0x66669991, Nonce: 0x12f444d0, VersionBits: 0x00c00000}
	copy(sub.Extranonce[:], unhex(t, "1a00002b00000000000004d2"))
	return j, sub
}

const (
	mainnetBits = 0x17034219
	regtestBits = 0x207fffff // every second header is a block
)

var exampleNow = time.Unix(0x66669991, 0)

func TestValidateRebuildsTheHeader(t *testing.T) {
	j, sub := exampleJob(t, mainnetBits)
	w := share.NewWork(j, 1)
	r := share.NewValidator(nil).Validate(&w, &sub, exampleNow)
	require.Equal(t, share.Accepted, r.Verdict)
	require.False(t, r.Solves)
	require.Equal(t, "0000c02033221100f9e8d7c6b5a4938271604f2d1b08e9c7f5a301000000000000000000"+
		"1c0b427af5afcb6e293f2f60d414d4b089c725c97d0f4b0984d885ca8bcf23d49199666619420317d044f412", hex.EncodeToString(r.Header[:]))
	require.Equal(t, "00000000d4d8915a889023900a6831ce8f2764d1a38ada8f9757b05fc0df2e82", r.Hash.String())
}

func TestValidateVerdicts(t *testing.T) {
	type change func(j *job.Job, s *share.Submission)
	for _, test := range []struct {
		name   string
		diff   difficulty.Difficulty
		change change
		want   share.Verdict
	}{
		{"difficulty met", 1, nil, share.Accepted},
		{"difficulty missed", 2, nil, share.LowDifficulty},
		{"no ntime stands for the job's", 1, func(_ *job.Job, s *share.Submission) { s.NTime = 0 }, share.Accepted},
		{"stale job", 1, func(_ *job.Job, s *share.Submission) { s.Stale = true }, share.Stale},
		{"stale job within grace", 1, func(_ *job.Job, s *share.Submission) { s.Stale, s.Grace = true, true }, share.AcceptedStale},
		{"ntime below mintime", 1, func(j *job.Job, _ *share.Submission) { j.MinTime = 0x66669992 }, share.TimeTooOld},
		{"ntime at mintime", 1, func(j *job.Job, _ *share.Submission) { j.MinTime = 0x66669991 }, share.Accepted},
		{"ntime above the node's maxtime", 1, func(j *job.Job, _ *share.Submission) { j.MaxTime = 0x66669990 }, share.TimeTooNew},
		{"ntime 601 s ahead", 1, func(_ *job.Job, s *share.Submission) { s.NTime += 601 }, share.TimeTooNew},
		{"ntime 600 s ahead misses only the difficulty", 1, func(_ *job.Job, s *share.Submission) { s.NTime += 600 }, share.LowDifficulty},
		{"stale counts before ntime", 1, func(_ *job.Job, s *share.Submission) { s.Stale = true; s.NTime += 6000 }, share.Stale},
		{"ntime counts before version bits", 1, func(_ *job.Job, s *share.Submission) { s.NTime += 6000; s.VersionBits = 1 }, share.TimeTooNew},
		{"version bits outside the mask", 1, func(_ *job.Job, s *share.Submission) { s.VersionBits |= 1 }, share.IllegalVersionBits},
	} {
		t.Run(test.name, func(t *testing.T) {
			j, sub := exampleJob(t, mainnetBits)
			if test.change != nil {
				test.change(j, &sub)
			}
			w := share.NewWork(j, test.diff)
			r := share.NewValidator(nil).Validate(&w, &sub, exampleNow)
			require.Equal(t, test.want.String(), r.Verdict.String())
			require.False(t, r.Solves)
		})
	}
}

// A header that meets the network target is a block whatever else is wrong with the share.
func TestValidateHandsOnEveryBlock(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(j *job.Job, s *share.Submission)
		want   share.Verdict
	}{
		{"nothing wrong", func(*job.Job, *share.Submission) {}, share.Solved},
		{"stale", func(_ *job.Job, s *share.Submission) { s.Stale = true }, share.Stale},
		{"stale within grace", func(_ *job.Job, s *share.Submission) { s.Stale, s.Grace = true, true }, share.SolvedStale},
		{"ntime too old", func(j *job.Job, _ *share.Submission) { j.MinTime = 0x66669992 }, share.TimeTooOld},
		{"ntime too new", func(_ *job.Job, s *share.Submission) { s.NTime += 7000 }, share.TimeTooNew},
		{"version bits outside the mask", func(_ *job.Job, s *share.Submission) { s.VersionBits = 0x20000001 }, share.IllegalVersionBits},
	} {
		t.Run(test.name, func(t *testing.T) {
			j, sub := exampleJob(t, regtestBits)
			test.change(j, &sub)
			w := share.NewWork(j, 1<<40) // no hash here comes near it
			val := share.NewValidator(nil)
			for sub.Nonce = 0; sub.Nonce < 64; sub.Nonce++ {
				r := val.Validate(&w, &sub, exampleNow)
				require.Equal(t, chainhash.DoubleHashH(r.Header[:]), r.Hash)
				if !r.Solves {
					continue
				}
				target, err := difficulty.FromBits(regtestBits)
				require.NoError(t, err)
				require.True(t, target.MetBy((*[32]byte)(&r.Hash)))
				require.Equal(t, test.want.String(), r.Verdict.String())
				// It is worth what the network asks for, not what the miner was asked for.
				require.LessOrEqual(t, r.Difficulty, target.Difficulty())

				again := val.Validate(&w, &sub, exampleNow)
				require.Equal(t, share.Duplicate, again.Verdict)
				require.False(t, again.Solves, "the block was handed on once")
				return
			}
			t.Fatal("64 headers without a block of regtest")
		})
	}
}

// One piece of work counts once, and work that differs in anything the miner chooses is other work.
func TestValidateDuplicates(t *testing.T) {
	j, sub := exampleJob(t, mainnetBits)
	w := share.NewWork(j, 1)
	val := share.NewValidator(nil)
	judge := func(w share.Work, s share.Submission) share.Verdict { return val.Validate(&w, &s, exampleNow).Verdict }

	require.Equal(t, share.Accepted, judge(w, sub))
	require.Equal(t, share.Duplicate, judge(w, sub))
	require.Equal(t, share.Duplicate, judge(share.NewWork(j, 0.5), sub), "the same work at another difficulty")
	noTime := sub
	noTime.NTime = 0
	require.Equal(t, share.Duplicate, judge(w, noTime), "no ntime means the job's")
	stale := sub
	stale.Stale = true
	require.Equal(t, share.Duplicate, judge(w, stale), "duplicate counts before stale")

	other := sub
	other.Extranonce[0] ^= 1
	require.Equal(t, share.LowDifficulty, judge(w, other), "extranonce1")
	require.Equal(t, share.Duplicate, judge(w, other), "a share that was refused is known too")
	other = sub
	other.Extranonce[11] ^= 1
	require.Equal(t, share.LowDifficulty, judge(w, other), "extranonce2")
	other = sub
	other.NTime++
	require.Equal(t, share.LowDifficulty, judge(w, other), "ntime")
	other = sub
	other.Nonce++
	require.Equal(t, share.LowDifficulty, judge(w, other), "nonce")
	other = sub
	other.VersionBits = 0x00400000
	require.Equal(t, share.LowDifficulty, judge(w, other), "version bits")
	twin, err := job.New(job.Job{
		ID: j.ID + 1, Height: j.Height, PrevHash: j.PrevHash, Version: j.Version, Bits: j.Bits, Time: j.Time,
		MinTime: j.MinTime, Coinb1: j.Coinb1, Coinb2: j.Coinb2, Branch: j.Branch,
	})
	require.NoError(t, err)
	require.Equal(t, share.Duplicate, judge(share.NewWork(twin, 1), sub), "the same work under another id")
	next := *twin
	next.ID++
	next.Coinb2 = append([]byte{9}, next.Coinb2...)
	fresh, err := job.New(next)
	require.NoError(t, err)
	require.Equal(t, share.LowDifficulty, judge(share.NewWork(fresh, 1), sub), "another job")
}

// Where the job's version has bits inside the mask, replacing and flipping them read different bits as one version:
// both spellings of a share are one share.
func TestValidateReadsVersionBitsBothWays(t *testing.T) {
	base, _ := exampleJob(t, mainnetBits)
	_, sub := exampleJob(t, mainnetBits)
	sub.VersionBits = 0
	// The known share has version 20c00000; with a job of version 20400000 it is bits 00c00000 replaced or 00800000
	// flipped.
	j := *base
	j.Version = 0x20400000
	w := share.NewWork(&j, 1)
	replaced, flipped := sub, sub
	replaced.VersionBits, flipped.VersionBits = 0x00c00000, 0x00800000

	val := share.NewValidator(nil)
	require.Equal(t, share.Accepted, val.Validate(&w, &replaced, exampleNow).Verdict)
	require.Equal(t, share.Duplicate, val.Validate(&w, &flipped, exampleNow).Verdict)
	val = share.NewValidator(nil)
	require.Equal(t, share.Accepted, val.Validate(&w, &flipped, exampleNow).Verdict)
	require.Equal(t, share.Duplicate, val.Validate(&w, &replaced, exampleNow).Verdict)
}

func TestValidatorForgetsOldJobsAndKeepsTheNewest(t *testing.T) {
	j, sub := exampleJob(t, mainnetBits)
	alive := job.ID(0)
	val := share.NewValidator(&share.ValidatorOptions{
		Memory: time.Minute,
		Alive:  func(j *job.Job) bool { return j.ID == alive },
	})
	at := func(id job.ID, now time.Time) share.Verdict {
		k := *j
		k.ID = id
		k.Coinb2 = binary.BigEndian.AppendUint64(slices.Clip(k.Coinb2), uint64(id)) // other work
		one, err := job.New(k)
		require.NoError(t, err)
		w := share.NewWork(one, difficulty.Min) // met by any hash, nearly
		return val.Validate(&w, &sub, now).Verdict
	}
	first := job.ID(uint64(exampleNow.Unix()) << 32)
	second := first + 60<<32
	require.Equal(t, share.Accepted, at(first, exampleNow))
	require.Equal(t, share.Duplicate, at(first, exampleNow.Add(time.Hour)), "the newest job is never forgotten")
	require.Equal(t, share.Accepted, at(second, exampleNow.Add(60*time.Second)))
	require.Equal(t, share.Duplicate, at(first, exampleNow.Add(60*time.Second)), "within its memory")
	require.Equal(t, share.Accepted, at(second+60<<32, exampleNow.Add(2*time.Minute)))
	require.Equal(t, share.Accepted, at(first, exampleNow.Add(2*time.Minute)), "forgotten, and nobody accepts it any more")
	alive = second
	require.Equal(t, share.Accepted, at(second+120<<32, exampleNow.Add(time.Hour)))
	require.Equal(t, share.Duplicate, at(second, exampleNow.Add(time.Hour)), "old, but still accepted")
}

func TestValidatorBoundsTheSharesOfAJob(t *testing.T) {
	j, sub := exampleJob(t, mainnetBits)
	val := share.NewValidator(&share.ValidatorOptions{MaxShares: 10})
	w := share.NewWork(j, difficulty.Min) // met by any hash, nearly
	for i := range uint32(10) {
		sub.Nonce = i
		require.Equal(t, share.Accepted, val.Validate(&w, &sub, exampleNow).Verdict)
	}
	sub.Nonce = 10
	require.Equal(t, share.Rejected, val.Validate(&w, &sub, exampleNow).Verdict)
	sub.Nonce = 3
	require.Equal(t, share.Duplicate, val.Validate(&w, &sub, exampleNow).Verdict)
	sub.Stale, sub.Nonce = true, 11
	require.Equal(t, share.Stale, val.Validate(&w, &sub, exampleNow).Verdict, "what is refused in any case has its own verdict")
}

// Shares that cost a miner nothing cannot fill the pool's memory, and leave room for those that do.
func TestAFloodOfBadSharesIsForgotten(t *testing.T) {
	j, sub := exampleJob(t, mainnetBits)
	good := sub.Nonce
	val := share.NewValidator(nil)
	hard, easy := share.NewWork(j, 1<<40), share.NewWork(j, 1)
	judge := func(w share.Work, nonce uint32) share.Verdict {
		sub.Nonce = nonce
		return val.Validate(&w, &sub, exampleNow).Verdict
	}
	for i := range uint32(1024) {
		require.Equal(t, share.LowDifficulty, judge(hard, i))
	}
	require.Equal(t, share.Duplicate, judge(hard, 1023))
	require.Equal(t, share.LowDifficulty, judge(hard, 1024))
	require.Equal(t, share.LowDifficulty, judge(hard, 1024), "it earns nothing the second time either")
	require.Equal(t, share.Accepted, judge(easy, good))
	require.Equal(t, share.Duplicate, judge(easy, good))
}

func TestVerdictTable(t *testing.T) {
	seen := make(map[int32]share.Verdict)
	for v := share.Rejected; v <= share.Stale; v++ {
		require.NotEqual(t, "Unknown", v.String(), "verdict %d has no name", v)
		other, taken := seen[v.Status()]
		require.False(t, taken, "%v and %v have one status", v, other)
		seen[v.Status()] = v
		back, ok := share.VerdictOf(v.Status())
		require.True(t, ok)
		require.Equal(t, v, back)
		require.Equal(t, v.Accepted(), v.Code() == 0, "%v: a miner is told true exactly when the share counts", v)
		require.Equal(t, v.String(), v.Error())
	}
	require.Equal(t, "Unknown", (share.Stale + 1).String())
	_, ok := share.VerdictOf(2147483647)
	require.False(t, ok)
	var zero share.Verdict
	require.False(t, zero.Accepted(), "a ruling nobody made must not pay")
}

func TestParseWorker(t *testing.T) {
	for _, test := range []struct {
		full, user, name string
	}{
		{"abcd.123.456", "abcd", "123.456"},
		{"abcdefg", "abcdefg", share.DefaultWorker},
		{"abcdefg.~!@#$%^&*()+={}|[]\\<>?,./", "abcdefg", "^|./"},
		{"al ice.Rig 2!", "alice", "Rig2"},
		{"alice.", "alice", share.DefaultWorker},
		{"alice.012345678901234567890123", "alice", "01234567890123456789"},
		{"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4.rig", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "rig"},
	} {
		w, err := share.ParseWorker(test.full)
		require.NoError(t, err, test.full)
		require.Equal(t, share.Worker{User: test.user, Name: test.name}, w, test.full)
	}
	for _, full := range []string{"", ".rig", "\x00\x01.rig", "\u00e9"} {
		_, err := share.ParseWorker(full)
		require.ErrorIs(t, err, share.ErrNoUser, "%q", full)
	}
}

func TestWorkerID(t *testing.T) {
	for name, want := range map[string]int64{
		"123":         -6660819122795474594,
		"__default__": 8113131267054106046,
		"rig01":       7069884523060589083,
		"alice.rig01": -4182293149444991612,
		"rig1":        -911964159890136328,
	} {
		require.Equal(t, want, share.Worker{User: "anybody", Name: name}.ID(), name)
	}
}

func TestValidateAllocatesNothing(t *testing.T) {
	j, sub := exampleJob(t, mainnetBits)
	w := share.NewWork(j, 1<<40)
	val := share.NewValidator(nil)
	for range 1 << 12 { // let the memory of shares grow
		sub.Nonce++
		val.Validate(&w, &sub, exampleNow)
	}
	sub.Nonce = 0x12f444d0
	if n := testing.AllocsPerRun(500, func() { sub.Nonce++; val.Validate(&w, &sub, exampleNow) }); n != 0 {
		t.Errorf("Validate allocates %v times, want 0", n)
	}
}

func BenchmarkValidate(b *testing.B) {
	for id, j := range capturedJobs(b) {
		if len(j.Branch) != 12 || id == 0 {
			continue
		}
		w := share.NewWork(j, 16384)
		sub := share.Submission{NTime: j.Time}
		now := time.Unix(int64(j.Time), 0)
		b.ReportAllocs()
		val := share.NewValidator(nil)
		for b.Loop() {
			if sub.Nonce++; sub.Nonce%(1<<16) == 0 {
				val = share.NewValidator(nil) // as often as a busy session gets a new job
			}
			val.Validate(&w, &sub, now)
		}
		return
	}
}

// A pool in one process validates what a miner sent for the job it was given.
func ExampleValidator() {
	t := new(testing.T)
	j, sub := exampleJob(t, mainnetBits)
	work := share.NewWork(j, 1) // at difficulty 1
	validator := share.NewValidator(nil)
	fmt.Println(validator.Validate(&work, &sub, exampleNow).Verdict)
	fmt.Println(validator.Validate(&work, &sub, exampleNow).Verdict)
	// Output:
	// Share accepted
	// Duplicate share
}
