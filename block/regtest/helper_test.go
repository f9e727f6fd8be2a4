package regtest

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/poolkit/poolkit/job"
	"github.com/stretchr/testify/require"
)

// quick is for tests that do not look at transactions: signatures are slow under the race detector.
var quick = Options{TxsPerBlock: 1, TxInterval: -1}

func openChain(t testing.TB, dir string, opts Options) *Chain {
	t.Helper()
	c, err := Open(dir, &opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func template(t testing.TB, c *Chain) *job.Template {
	t.Helper()
	tmpl, err := c.Template()
	require.NoError(t, err)
	return tmpl
}

// foreignScript is an output script that the chain's wallet knows nothing of.
func foreignScript(t testing.TB, c *Chain) []byte {
	t.Helper()
	script, err := txscript.PayToAddrScript(c.ThrowawayAddress())
	require.NoError(t, err)
	return script
}

// extra makes the coinbases of buildBlock differ.
var extra int64

// buildBlock makes a block of a template with the means of btcd and without those of this package: what a pool does.
func buildBlock(t testing.TB, tmpl *job.Template, payee []byte) *wire.MsgBlock {
	t.Helper()
	extra++
	script, err := txscript.NewScriptBuilder().AddInt64(int64(tmpl.Height)).AddInt64(extra).
		AddData([]byte("a pool")).Script()
	require.NoError(t, err)
	coinbase := wire.NewMsgTx(1)
	coinbase.AddTxIn(&wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Index: 0xffffffff},
		SignatureScript:  script,
		Witness:          wire.TxWitness{make([]byte, 32)},
		Sequence:         0xffffffff,
	})
	coinbase.AddTxOut(wire.NewTxOut(tmpl.CoinbaseValue, payee))
	coinbase.AddTxOut(wire.NewTxOut(0, bytes.Clone(tmpl.WitnessCommitment)))
	b := wire.NewMsgBlock(&wire.BlockHeader{
		Version:   tmpl.Version,
		PrevBlock: tmpl.PrevHash,
		Timestamp: time.Unix(int64(tmpl.CurTime), 0),
		Bits:      tmpl.Bits,
	})
	require.NoError(t, b.AddTransaction(coinbase))
	for i := range tmpl.Transactions {
		tx := new(wire.MsgTx)
		require.NoError(t, tx.Deserialize(bytes.NewReader(tmpl.Transactions[i].Data)))
		require.NoError(t, b.AddTransaction(tx))
	}
	return b
}

// commit sets the witness commitment in the coinbase to what the transactions ask for.
func commit(b *wire.MsgBlock) {
	root := blockchain.CalcMerkleRoot(btcutil.NewBlock(b).Transactions(), true)
	hash := chainhash.DoubleHashB(append(root[:], make([]byte, 32)...))
	b.Transactions[0].TxOut[1].PkScript = append([]byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed}, hash...)
}

// solve sets the merkle root and finds a nonce.
func solve(t testing.TB, b *wire.MsgBlock) []byte {
	t.Helper()
	b.Header.MerkleRoot = blockchain.CalcMerkleRoot(btcutil.NewBlock(b).Transactions(), false)
	return solveHeader(t, b, true)
}

// solveHeader finds a nonce with which the header meets its bits, or does not.
func solveHeader(t testing.TB, b *wire.MsgBlock, meets bool) []byte {
	t.Helper()
	target := blockchain.CompactToBig(b.Header.Bits)
	header := new(bytes.Buffer)
	require.NoError(t, b.Header.Serialize(header))
	raw := header.Bytes()
	for nonce := uint32(0); ; nonce++ {
		binary.LittleEndian.PutUint32(raw[76:], nonce)
		hash := chainhash.DoubleHashH(raw)
		if (blockchain.HashToBig(&hash).Cmp(target) <= 0) == meets {
			b.Header.Nonce = nonce
			return serialize(t, b)
		}
		require.Less(t, nonce, uint32(1<<26), "no nonce")
	}
}

func serialize(t testing.TB, b *wire.MsgBlock) []byte {
	t.Helper()
	var buf bytes.Buffer
	require.NoError(t, b.Serialize(&buf))
	return buf.Bytes()
}

// mineForeign mines a block of the current template that pays somebody else.
func mineForeign(t testing.TB, c *Chain) chainhash.Hash {
	t.Helper()
	b := buildBlock(t, template(t, c), foreignScript(t, c))
	require.NoError(t, c.Submit(t.Context(), solve(t, b)))
	return b.BlockHash()
}
