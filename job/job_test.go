package job_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(t, err)
	return b
}

// memoryHash reads a hash in memory order, displayHash one in display order.
func memoryHash(t testing.TB, s string) (h job.Hash) {
	t.Helper()
	require.Equal(t, len(h), copy(h[:], unhex(t, s)))
	return h
}

func displayHash(t testing.TB, s string) job.Hash {
	t.Helper()
	h := memoryHash(t, s)
	slices.Reverse(h[:])
	return h
}

// workedJob is a job whose coinbase, branch and header were worked out by hand with another SHA-256.
func workedJob(t testing.TB) *job.Job {
	t.Helper()
	ids := []job.Hash{
		displayHash(t, "e523b27112f14b4f23337f7ce11941a99113bde76875af44026932cd21496a85"), // SHA-256d("tx1")
		memoryHash(t, hex.EncodeToString(sha256d("tx2"))),
		memoryHash(t, hex.EncodeToString(sha256d("tx3"))),
	}
	j, err := job.New(job.Job{
		ID:       0x66236c8000000001,
		Height:   840000,
		PrevHash: displayHash(t, "0000000000000000000172014ba58d66455762add0512355ad651207918494ab"),
		Version:  0x20000000,
		Bits:     0x17034219,
		Time:     0x66236c80,
		MinTime:  1713590000,
		Coinb1: unhex(t, `02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff
			24 0340d10c 04806c2366 726567696f6e312f476f506f6f6c2f`),
		Coinb2: unhex(t, `ffffffff02 a735b31200000000 1976a914111111111111111111111111111111111111111188ac
			0000000000000000 266a24aa21a9ed3333333333333333333333333333333333333333333333333333333333333333 00000000`),
		Branch: job.MerkleBranch(ids),
	})
	require.NoError(t, err)
	return j
}

func sha256d(s string) []byte {
	h := job.MerkleRoot([]byte(s), nil)
	return h[:]
}

var workedExtranonce = [job.ExtranonceSize]byte{1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7}

func TestWorkedExample(t *testing.T) {
	j := workedJob(t)
	coinbase := j.AppendCoinbase([]byte("before"), &workedExtranonce)[len("before"):]
	require.Len(t, coinbase, 168)
	require.Equal(t, "27216a9fccf1741fbabb65a859270e9014871af659ace2612632cb0620b21b68", job.MerkleRoot(coinbase, nil).String())
	require.Equal(t, []job.Hash{
		memoryHash(t, "856a4921cd32690244af7568e7bd1391a94119e17c7f33234f4bf11271b223e5"),
		memoryHash(t, "28f3ad33241b83d976331b756bbe95c5881d4df122e05df0432e4d918436fda6"),
	}, j.Branch)
	require.Equal(t, memoryHash(t, "1a00484683950345c384d3ff8fc96c1773ec3bf21a362e6c39a18714ac2270a4"),
		j.MerkleRoot(&workedExtranonce))

	header := j.AppendHeader(nil, &workedExtranonce, j.Version, j.Time, 0x12345678)
	require.Equal(t, "00000020ab948491071265ad552351d0ad625745668da54b01720100000000000000000"+
		"01a00484683950345c384d3ff8fc96c1773ec3bf21a362e6c39a18714ac2270a4806c23661942031778563412", hex.EncodeToString(header))
	require.Equal(t, "fe8163827fe81cdf0306224fedc9376869c397cde3c820f4d65e2ba044cba03a", job.MerkleRoot(header, nil).String())

	prefix := []byte("kept")
	require.Equal(t, append([]byte("kept"), header...),
		j.AppendHeader(prefix, &workedExtranonce, j.Version, j.Time, 0x12345678), "AppendHeader appends")
}

// The job and the share are those of a miner that found a share of difficulty 1.2.
func TestHeaderOfARealShare(t *testing.T) {
	j, err := job.New(job.Job{
		PrevHash: displayHash(t, "00000000000000000001a3f5c7e9081b2d4f60718293a4b5c6d7e8f900112233"),
		Bits:     0x17034219,
		Coinb1: unhex(t, `02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff1f
			03bbd10c04809966662f53444b20706f6f6c2f`),
		Coinb2: unhex(t, "ffffffff01205fa012000000001600140102030405060708090a0b0c0d0e0f101112131400000000"),
		Branch: []job.Hash{
			memoryHash(t, "a646769b477491d98705e4aafb01e08fea366cad0bd3260d43e279f057102304"),
			memoryHash(t, "9c312fd9d0cb6d6e88d7c1016b75ec93bf23ad9b781affb57d4604edd445b446"),
		},
	})
	require.NoError(t, err)
	extranonce := [job.ExtranonceSize]byte{0x1a, 0, 0, 0x2b, 0, 0, 0, 0, 0, 0, 0x04, 0xd2}
	header := j.AppendHeader(nil, &extranonce, 0x20c00000, 0x66669991, 0x12f444d0)
	hash := job.MerkleRoot(header, nil)
	require.Equal(t, "00000000d4d8915a889023900a6831ce8f2764d1a38ada8f9757b05fc0df2e82", hash.String())
	require.True(t, difficulty.Difficulty(1).Target().MetBy((*[32]byte)(&hash)))
	require.False(t, difficulty.Difficulty(2).Target().MetBy((*[32]byte)(&hash)))
}

// Transaction ids and merkle roots as they stand in the main chain.
func TestMerkleBranchOfMainnetBlocks(t *testing.T) {
	for _, tt := range []struct {
		name  string
		txids []string
		root  string
	}{
		{"genesis, the coinbase alone", []string{
			"4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
		}, "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"},
		{"block 170, the first payment", []string{
			"b1fea52486ce0c62bb442b530a3f0132b826c74e473d1f2c220bfa78111c5082",
			"f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16",
		}, "7dac2c5666815c17a3b36427de37bb9d2e2c5ccec3f8633eb91a4205cb4c10ff"},
		{"block 100000, four transactions", []string{
			"8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87",
			"fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4",
			"6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4",
			"e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d",
		}, "f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ids []job.Hash
			for _, id := range tt.txids {
				ids = append(ids, displayHash(t, id))
			}
			require.Equal(t, tt.root, climb(ids[0], job.MerkleBranch(ids[1:])).String())
		})
	}
}

// climb goes up a branch from a transaction id.
func climb(id job.Hash, branch []job.Hash) job.Hash {
	for _, step := range branch {
		id = job.MerkleRoot(append(id[:], step[:]...), nil)
	}
	return id
}

// Rows of every length up to 70 against btcd's merkle tree.
func TestMerkleBranchAgreesWithBtcd(t *testing.T) {
	var txs []*btcutil.Tx
	var ids []job.Hash
	for n := range 70 {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: uint32(n)}, []byte{1, 2}, nil))
		tx.AddTxOut(wire.NewTxOut(int64(n), []byte{0x51}))
		txs = append(txs, btcutil.NewTx(tx))
		ids = append(ids, tx.TxHash())
		before := slices.Clone(ids)
		branch := job.MerkleBranch(ids[1:])
		require.Equal(t, before, ids, "MerkleBranch must not change its argument")
		require.Equal(t, blockchain.CalcMerkleRoot(txs, false), climb(ids[0], branch), "%d transactions", n+1)
	}
	require.Nil(t, job.MerkleBranch(nil))
}

// realBlock returns block 0000000000000000001602407ac49862a7bca9d00f7f402db20b7be2f5de59d2 of the main chain, with 3,315
// transactions of which 1,341 carry witnesses, from the test data of a module that this one depends on anyway.
func realBlock(t testing.TB) *wire.MsgBlock {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/btcsuite/btcd/wire/v2").Output()
	if err != nil {
		t.Skipf("no go command to find btcd's test data with: %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "testdata",
		"block-0000000000000000001602407ac49862a7bca9d00f7f402db20b7be2f5de59d2.blk"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("dependencies are vendored without their test data")
	}
	require.NoError(t, err)
	block := new(wire.MsgBlock)
	require.NoError(t, block.Deserialize(bytes.NewReader(raw)))
	return block
}

// replyFor returns the reply a node gave, but for its fees and limits, to the miner of the block.
func replyFor(t testing.TB, block *wire.MsgBlock, fields string) []byte {
	t.Helper()
	coinbase := block.Transactions[0]
	script := coinbase.TxIn[0].SignatureScript
	require.Equal(t, byte(3), script[0])
	height := int(script[1]) | int(script[2])<<8 | int(script[3])<<16
	value := int64(0)
	for _, out := range coinbase.TxOut {
		value += out.Value
	}
	reply := fmt.Appendf(nil, `{"result":{%s"version":%d,"previousblockhash":"%v","height":%d,"bits":"%08x","curtime":%d,`+
		`"coinbasevalue":%d,"transactions":[`, fields, block.Header.Version, block.Header.PrevBlock, height,
		block.Header.Bits, block.Header.Timestamp.Unix(), value)
	for i, tx := range block.Transactions[1:] {
		if i > 0 {
			reply = append(reply, ',')
		}
		var raw bytes.Buffer
		require.NoError(t, tx.Serialize(&raw))
		reply = fmt.Appendf(reply, `{"data":"%x","txid":"%v","hash":"%v","depends":[]}`,
			raw.Bytes(), tx.TxHash(), tx.WitnessHash())
	}
	return append(reply, "]}}"...)
}

// A real block, taken apart into a template, must come together again: ids, witness commitment, merkle root, header.
func TestRealBlock(t *testing.T) {
	block := realBlock(t)
	tmpl, err := job.ParseTemplate(replyFor(t, block, ""), time.Time{})
	require.NoError(t, err)
	require.Len(t, tmpl.Transactions, 3314)
	ids := make([]job.Hash, len(tmpl.Transactions))
	for i, tx := range tmpl.Transactions {
		require.Equal(t, block.Transactions[i+1].TxHash(), tx.TxID)
		require.Equal(t, block.Transactions[i+1].WitnessHash(), tx.WTxID)
		ids[i] = tx.TxID
	}

	coinbase := block.Transactions[0]
	require.Equal(t, coinbase.TxOut[1].PkScript, tmpl.WitnessCommitment, "the commitment that the miner wrote")

	var raw bytes.Buffer
	require.NoError(t, coinbase.SerializeNoWitness(&raw))
	split := 4 + 1 + 36 + 1 + len(coinbase.TxIn[0].SignatureScript) - job.ExtranonceSize
	extranonce := [job.ExtranonceSize]byte(raw.Bytes()[split:])
	j, err := job.New(job.Job{
		PrevHash: tmpl.PrevHash,
		Bits:     tmpl.Bits,
		Height:   tmpl.Height,
		Coinb1:   raw.Bytes()[:split],
		Coinb2:   raw.Bytes()[split+job.ExtranonceSize:],
		Branch:   job.MerkleBranch(ids),
	})
	require.NoError(t, err)
	require.Len(t, j.Branch, 12)

	var want bytes.Buffer
	require.NoError(t, block.Header.Serialize(&want))
	header := j.AppendHeader(nil, &extranonce, tmpl.Version, tmpl.CurTime, block.Header.Nonce)
	require.Equal(t, want.Bytes(), header)
	hash := job.MerkleRoot(header, nil)
	require.Equal(t, "0000000000000000001602407ac49862a7bca9d00f7f402db20b7be2f5de59d2", hash.String())
	require.True(t, j.Target().MetBy((*[32]byte)(&hash)), "a block meets its own target")
}

func TestNewRefuses(t *testing.T) {
	good := *workedJob(t)
	for _, tt := range []struct {
		name   string
		change func(j *job.Job)
		want   string
	}{
		{"a coinbase cut before its script", func(j *job.Job) { j.Coinb1 = j.Coinb1[:41] }, "coinb1"},
		{"no coinb1", func(j *job.Job) { j.Coinb1 = nil }, "coinb1"},
		{"a coinbase without an end", func(j *job.Job) { j.Coinb2 = j.Coinb2[:7] }, "coinb2"},
		{"33 merkle steps", func(j *job.Job) { j.Branch = make([]job.Hash, 33) }, "33 merkle steps"},
		{"a negative height", func(j *job.Job) { j.Height = -1 }, "negative height"},
		{"no bits", func(j *job.Job) { j.Bits = 0 }, "bits"},
		{"negative bits", func(j *job.Job) { j.Bits = 0x1d80ffff }, "bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := good
			tt.change(&j)
			got, err := job.New(j)
			require.ErrorContains(t, err, tt.want)
			require.Nil(t, got)
		})
	}
	j, err := job.New(good)
	require.NoError(t, err)
	require.Equal(t, "0000000000000000000342190000000000000000000000000000000000000000", j.Target().String())
}

func TestSameWork(t *testing.T) {
	j := workedJob(t)
	same := *j
	same.Clean = true
	require.True(t, j.SameWork(j))
	twin := *j
	twin.ID++
	other, err := job.New(twin)
	require.NoError(t, err)
	require.True(t, j.SameWork(other), "another maker's job of the same template")
	require.Equal(t, j.WorkID(), other.WorkID())
	require.True(t, j.SameWork(&same), "a copy that is marked clean is the same work")
	for name, change := range map[string]func(j *job.Job){
		"another tip": func(j *job.Job) { j.PrevHash[0]++ },
		"bytes moved from one half of the coinbase to the other": func(j *job.Job) {
			n := len(j.Coinb1) - 1
			j.Coinb1, j.Coinb2 = j.Coinb1[:n], append([]byte{j.Coinb1[n]}, j.Coinb2...)
		},
		"another merkle branch": func(j *job.Job) { j.Branch = append(slices.Clone(j.Branch), j.PrevHash) },
		"another coinbase":      func(j *job.Job) { j.Coinb1 = append(slices.Clone(j.Coinb1), 1) },
	} {
		fields := *j
		change(&fields)
		other, err := job.New(fields)
		require.NoError(t, err)
		require.False(t, j.SameWork(other), name)
	}
}

func TestIDs(t *testing.T) {
	now := time.Unix(0x66236c80, 0)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, tt := range []struct {
		name  string
		maker uint8
		times []time.Time
		want  []job.ID
	}{
		{"four in one second", 1, []time.Time{now, now, at(500 * time.Millisecond), at(999 * time.Millisecond)},
			[]job.ID{7359845513065136129, 0x66236c8000000101, 0x66236c8000000201, 0x66236c8000000301}},
		{"the counter begins anew with the second", 255, []time.Time{now, now, at(time.Second), at(2 * time.Second)},
			[]job.ID{0x66236c80000000ff, 0x66236c80000001ff, 0x66236c81000000ff, 0x66236c82000000ff}},
		{"the clock steps back an hour", 2, []time.Time{now, at(-time.Hour), at(-time.Hour), at(time.Second)},
			[]job.ID{0x66236c8000000002, 0x66236c8000000102, 0x66236c8000000202, 0x66236c8100000002}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := job.IDs{Maker: tt.maker}
			for i, now := range tt.times {
				require.Equal(t, tt.want[i], g.Next(now), "id %d", i)
			}
		})
	}
	require.Equal(t, now, job.ID(7359845513065136129).Time())
	require.Equal(t, "7359845513065136129", job.ID(7359845513065136129).String())
}

func TestHeaderAllocatesNothing(t *testing.T) {
	j := workedJob(t)
	var buf [job.HeaderSize]byte
	var sum byte
	if n := testing.AllocsPerRun(100, func() {
		h := j.AppendHeader(buf[:0], &workedExtranonce, j.Version, j.Time, 1)
		sum += h[0]
	}); n != 0 {
		t.Errorf("AppendHeader allocates %v times, want 0", n)
	}
}

func ExampleJob_AppendHeader() {
	j, err := job.New(job.Job{
		Version: 0x20000000,
		Bits:    0x207fffff,
		Time:    1713597568,
		Coinb1:  make([]byte, 60),
		Coinb2:  make([]byte, 60),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	extranonce := [job.ExtranonceSize]byte{0, 0, 0, 1} // extranonce1, then extranonce2
	var buf [job.HeaderSize]byte
	header := j.AppendHeader(buf[:0], &extranonce, j.Version, j.Time, 42)
	fmt.Printf("%x...%x\n", header[:4], header[68:])
	// Output: 00000020...806c2366ffff7f202a000000
}

func BenchmarkMerkleBranch(b *testing.B) {
	tmpl := jobtest.Template(b, "mainnet")
	ids := make([]job.Hash, len(tmpl.Transactions))
	for i := range ids {
		ids[i] = tmpl.Transactions[i].TxID
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(job.MerkleBranch(ids)) != 12 {
			b.Fatal("want 12 steps")
		}
	}
}

func BenchmarkAppendHeader(b *testing.B) {
	j := *workedJob(b)
	j.Branch = make([]job.Hash, 12)
	var buf [job.HeaderSize]byte
	b.ReportAllocs()
	nonce := uint32(0)
	for b.Loop() {
		nonce++
		j.AppendHeader(buf[:0], &workedExtranonce, j.Version, j.Time, nonce)
	}
}
