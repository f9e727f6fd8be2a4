package jobtest

import (
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/poolkit/poolkit/job"
)

//go:embed testdata/*.json
var captured embed.FS

// Names of templates that are captured from a node.
var capturedNames = []string{"regtest-102", "regtest-102-later", "regtest-103"}

// generated makes the replies that are too large to keep in a repository. Each is made once, when it is first asked
// for, and is the same in every run and on every machine.
var generated = map[string]func() []byte{
	"mainnet":       sync.OnceValue(func() []byte { return generate(mainnetHeight, 0, 3000) }),
	"mainnet-later": sync.OnceValue(func() []byte { return generate(mainnetHeight, 30, 3010) }),
	"mainnet-empty": sync.OnceValue(func() []byte { return generate(mainnetHeight, 2, 0) }),
	"mainnet-next":  sync.OnceValue(func() []byte { return generate(mainnetHeight+1, 600, 2800) }),
	"mainnet-small": sync.OnceValue(func() []byte { return generate(mainnetHeight, 5, 7) }),
}

// Names returns the names that [Template] and [Reply] know, sorted:
//
//	regtest-102         Bitcoin Core's regtest at height 102, no transactions
//	regtest-102-later   the same tip 19 minutes later
//	regtest-103         the next block
//	mainnet             3,000 transactions, about 3 MB of JSON, 12 merkle steps
//	mainnet-small       the same tip with 7 transactions
//	mainnet-later       the same tip half a minute later, with 10 transactions more
//	mainnet-empty       the same tip without transactions, as a node has it right after a block
//	mainnet-next        the next block, 2,800 transactions
//
// The regtest ones are replies that a node gave. The mainnet ones are generated: form, sizes and proportions are those
// of the main chain, two transactions in three are segwit, ids and the witness commitment are right, but nothing is
// signed, so that no node would take a block of them.
func Names() []string {
	names := slices.Clone(capturedNames)
	for name := range generated {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Reply returns the getblocktemplate reply of the given name (see [Names]), every byte as a node sends it. The caller
// owns the slice. An unknown name fails the test.
func Reply(t testing.TB, name string) []byte {
	t.Helper()
	if gen, ok := generated[name]; ok {
		return slices.Clone(gen())
	}
	if slices.Contains(capturedNames, name) {
		b, err := captured.ReadFile("testdata/" + name + ".json")
		if err != nil {
			t.Fatalf("jobtest: %v", err)
		}
		return b
	}
	t.Fatalf("jobtest: no template %q, there are %q", name, Names())
	return nil
}

// Template returns the parsed template of the given name (see [Names]), as if it had been received at its own curtime.
// Every call returns a new one, which the caller may change: a [job.Maker], for instance, drops templates that were not
// Received within the last minute, and takes one ID only once.
func Template(t testing.TB, name string) *job.Template {
	t.Helper()
	tmpl, err := job.ParseTemplate(Reply(t, name), time.Time{})
	if err != nil {
		t.Fatalf("jobtest: template %q: %v", name, err)
	}
	tmpl.Received = time.Unix(int64(tmpl.CurTime), 0)
	tmpl.Source = "jobtest"
	return tmpl
}

const (
	mainnetHeight  = 840123
	mainnetBits    = "17034219"
	mainnetTarget  = "0000000000000000000342190000000000000000000000000000000000000000"
	mainnetCurTime = 1713675000
	subsidySats    = 312500000
)

// generate returns a reply for the given height, a number of seconds after the time of the first template. Templates
// of one height hold the same transactions from the start on.
func generate(height, seconds, transactions int) []byte {
	rng := rand.NewPCG(uint64(height), 0x6a6f6274657374) // the seed is the height: one tip, one mempool
	var prev [32]byte
	fillRandom(rng, prev[:26]) // the last six bytes in memory order are the zeros at the start of the display form

	out := make([]byte, 0, 1024+transactions*1200)
	out = append(out, `{"result":{"capabilities":["proposal"],"version":536870912,"rules":["csv","!segwit","taproot"],`...)
	out = append(out, `"vbavailable":{},"vbrequired":0,"previousblockhash":"`...)
	out = appendDisplay(out, prev)
	out = append(out, `","transactions":[`...)

	fees := int64(0)
	ids := make([][32]byte, 0, transactions)
	wtxids := make([][32]byte, 1, transactions+1) // the coinbase counts as zero
	for i := range transactions {
		// One transaction in six spends from an earlier one, as in a mempool.
		parent := -1
		if i > 0 && rng.Uint64()%6 == 0 {
			parent = int(rng.Uint64() % uint64(i))
		}
		var parentID *[32]byte
		if parent >= 0 {
			parentID = &ids[parent]
		}
		full, base := randomTransaction(rng, parentID)
		id, wtxid := doubleSHA256(base), doubleSHA256(full)
		ids = append(ids, id)
		wtxids = append(wtxids, wtxid)
		weight := 3*len(base) + len(full)
		fee := int64(weight) / 4 * int64(5+rng.Uint64()%60)
		fees += fee

		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"data":"`...)
		out = hex.AppendEncode(out, full)
		out = append(out, `","txid":"`...)
		out = appendDisplay(out, id)
		out = append(out, `","hash":"`...)
		out = appendDisplay(out, wtxid)
		out = append(out, `","depends":[`...)
		if parent >= 0 {
			out = strconv.AppendInt(out, int64(parent+1), 10)
		}
		out = fmt.Appendf(out, `],"fee":%d,"sigops":%d,"weight":%d}`, fee, 1+rng.Uint64()%4, weight)
	}

	curTime := mainnetCurTime + seconds
	out = append(out, `],"coinbaseaux":{},`...)
	out = fmt.Appendf(out, `"coinbasevalue":%d,"longpollid":"`, subsidySats+fees)
	out = appendDisplay(out, prev)
	out = fmt.Appendf(out, `%d","target":"%s","mintime":%d,`, transactions, mainnetTarget, mainnetCurTime-3000)
	out = append(out, `"mutable":["time","transactions","prevblock"],"noncerange":"00000000ffffffff",`...)
	out = append(out, `"sigoplimit":80000,"sizelimit":4000000,"weightlimit":4000000,`...)
	out = fmt.Appendf(out, `"curtime":%d,"bits":"%s","height":%d,`, curTime, mainnetBits, height)
	out = append(out, `"default_witness_commitment":"6a24aa21a9ed`...)
	root := merkleRoot(wtxids)
	commitment := doubleSHA256(append(root[:], make([]byte, 32)...))
	out = hex.AppendEncode(out, commitment[:])
	return append(out, "\"},\"error\":null,\"id\":\"1\"}\n"...)
}

// randomTransaction returns a transaction as it stands in a block, and without its witness.
func randomTransaction(rng *rand.PCG, parent *[32]byte) (full, base []byte) {
	segwit := rng.Uint64()%3 != 0
	inputs := 1 + int(rng.Uint64()%3)*int(rng.Uint64()%2) // most have one
	outputs := 1 + int(rng.Uint64()%4)

	base = binary.LittleEndian.AppendUint32(base, 2)
	base = append(base, byte(inputs))
	for i := range inputs {
		if i == 0 && parent != nil {
			base = append(base, parent[:]...)
		} else {
			base = appendRandom(rng, base, 32)
		}
		base = binary.LittleEndian.AppendUint32(base, uint32(rng.Uint64()%4))
		if segwit {
			base = append(base, 0)
		} else { // a signature and a public key
			base = append(base, 107, 72)
			base = appendRandom(rng, base, 72)
			base = append(base, 33)
			base = appendRandom(rng, base, 33)
		}
		base = binary.LittleEndian.AppendUint32(base, 0xfffffffd)
	}
	base = append(base, byte(outputs))
	for range outputs {
		base = binary.LittleEndian.AppendUint64(base, rng.Uint64()%1e9)
		switch rng.Uint64() % 4 {
		case 0: // P2PKH
			base = append(base, 25, 0x76, 0xa9, 20)
			base = appendRandom(rng, base, 20)
			base = append(base, 0x88, 0xac)
		case 1: // P2TR
			base = append(base, 34, 0x51, 32)
			base = appendRandom(rng, base, 32)
		default: // P2WPKH
			base = append(base, 22, 0, 20)
			base = appendRandom(rng, base, 20)
		}
	}
	body := base[4:]
	if segwit {
		full = append(full, base[:4]...)
		full = append(full, 0, 1)
		full = append(full, body...)
		big := rng.Uint64()%40 == 0 // some carry a large witness, whose length takes three bytes
		for i := range inputs {
			if big && i == 0 {
				full = append(full, 1, 0xfd)
				full = binary.LittleEndian.AppendUint16(full, 4000)
				full = appendRandom(rng, full, 4000)
				continue
			}
			full = append(full, 2, 72)
			full = appendRandom(rng, full, 72)
			full = append(full, 33)
			full = appendRandom(rng, full, 33)
		}
	} else {
		full = append(full, base...)
	}
	base = append(base, 0, 0, 0, 0)
	full = append(full, 0, 0, 0, 0)
	return full, base
}

func fillRandom(rng *rand.PCG, b []byte) {
	for i := 0; i < len(b); i += 8 {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], rng.Uint64())
		copy(b[i:], word[:])
	}
}

func appendRandom(rng *rand.PCG, b []byte, n int) []byte {
	b = append(b, make([]byte, n)...)
	fillRandom(rng, b[len(b)-n:])
	return b
}

func appendDisplay(dst []byte, hash [32]byte) []byte {
	slices.Reverse(hash[:])
	return hex.AppendEncode(dst, hash[:])
}

func doubleSHA256(b []byte) [32]byte {
	first := sha256.Sum256(b)
	return sha256.Sum256(first[:])
}

// merkleRoot is the plain algorithm over a whole row, so that it can check package job's branches.
func merkleRoot(row [][32]byte) [32]byte {
	row = slices.Clone(row)
	for len(row) > 1 {
		if len(row)%2 == 1 {
			row = append(row, row[len(row)-1])
		}
		for i := range len(row) / 2 {
			row[i] = doubleSHA256(append(row[2*i][:], row[2*i+1][:]...))
		}
		row = row[:len(row)/2]
	}
	return row[0]
}
