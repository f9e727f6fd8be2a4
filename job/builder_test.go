package job_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/stretchr/testify/require"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/job/jobtest"
)

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

var exampleTime = time.Unix(0x66236c80, 0)

func exampleBuilder(t testing.TB, opts *job.BuilderOptions) *job.Builder {
	t.Helper()
	b, err := job.NewBuilder("btc", fromHex(t, "76a914"+strings.Repeat("11", 20)+"88ac"), opts)
	require.NoError(t, err)
	return b
}

func exampleTemplate(t testing.TB) *job.Template {
	t.Helper()
	return &job.Template{
		Height: 840000, Version: 0x20000000, Bits: 0x17034219, CurTime: 1713597568, MinTime: 1713590000,
		CoinbaseValue: 313734567, WitnessCommitment: fromHex(t, "6a24aa21a9ed"+strings.Repeat("33", 32)),
	}
}

// The coinbase of the worked example that BTCPool's job maker was described with, byte for byte.
func TestBuildMakesTheCoinbaseOfBTCPool(t *testing.T) {
	j, err := exampleBuilder(t, &job.BuilderOptions{Text: "region1/GoPool/"}).Build(exampleTemplate(t), 7, exampleTime)
	require.NoError(t, err)
	require.Equal(t, fromHex(t, "02000000 01 "+strings.Repeat("00", 32)+" ffffffff 24 0340d10c 04806c2366 726567696f6e312f476f506f6f6c2f"), j.Coinb1)
	require.Equal(t, fromHex(t, "ffffffff 02 a735b31200000000 19 76a914"+strings.Repeat("11", 20)+"88ac"+
		"0000000000000000 26 6a24aa21a9ed"+strings.Repeat("33", 32)+" 00000000"), j.Coinb2)
	coinbase := j.AppendCoinbase(nil, (*[job.ExtranonceSize]byte)(fromHex(t, "01000002 0000000000000007")))
	require.Len(t, coinbase, 168)
	require.Equal(t, "27216a9fccf1741fbabb65a859270e9014871af659ace2612632cb0620b21b68", job.MerkleRoot(coinbase, nil).String())

	require.Equal(t, job.ID(7), j.ID)
	require.Equal(t, job.Chain("btc"), j.Chain)
	require.Equal(t, uint32(1713597568), j.Time)
	require.Equal(t, uint32(1713590000), j.MinTime)
	require.True(t, j.Empty())
	require.False(t, j.Clean)
}

func TestBuildOfARealTemplate(t *testing.T) {
	tpl := jobtest.Template(t, "mainnet")
	b := exampleBuilder(t, &job.BuilderOptions{Text: "/poolkit/"})
	j, err := b.Build(tpl, 1, exampleTime)
	require.NoError(t, err)
	require.Same(t, tpl, j.Template)
	require.Equal(t, tpl.ID, j.TemplateID)
	require.Len(t, j.Branch, 12)
	require.Equal(t, tpl.PrevHash, j.PrevHash)
	later, err := b.Build(tpl, 2, exampleTime.Add(time.Second))
	require.NoError(t, err)
	require.False(t, j.SameWork(later), "two jobs of one template have different search spaces")
	require.NotEqual(t, j.Coinb1, later.Coinb1)
}

// BIP 34: the height is the shortest push there is.
func TestBuildPushesTheHeight(t *testing.T) {
	for height, push := range map[int32]string{
		0: "00", 1: "51", 16: "60", 17: "0111", 127: "017f", 128: "028000", 255: "02ff00", 256: "020001",
		32767: "02ff7f", 32768: "03008000", 840000: "0340d10c", 8388607: "03ffff7f", 8388608: "0400008000",
	} {
		tpl := exampleTemplate(t)
		tpl.Height = height
		j, err := exampleBuilder(t, nil).Build(tpl, 1, exampleTime)
		require.NoError(t, err)
		require.Equal(t, push+"04806c2366", hex.EncodeToString(j.Coinb1[42:]), "height %d", height)
	}
}

func TestBuildKeepsItsLimits(t *testing.T) {
	text := strings.Repeat("x", job.MaxCoinbaseText)
	j, err := exampleBuilder(t, &job.BuilderOptions{Text: text}).Build(exampleTemplate(t), 1, exampleTime)
	require.NoError(t, err)
	require.EqualValues(t, job.MaxCoinbaseScript, j.Coinb1[41], "the script has its largest size")

	_, err = job.NewBuilder("", fromHex(t, "51"), &job.BuilderOptions{Text: text + "x"})
	require.ErrorContains(t, err, "79 bytes, at most 78 fit")
	_, err = job.NewBuilder("", nil, &job.BuilderOptions{Text: text + "x", MaxCoinbaseSize: -1})
	for _, want := range []string{"no payout script", "79 bytes", "limit of -1 bytes"} {
		require.ErrorContains(t, err, want)
	}

	tpl := exampleTemplate(t)
	tpl.Height = 8388608 // takes a byte more
	_, err = exampleBuilder(t, &job.BuilderOptions{Text: text}).Build(tpl, 1, exampleTime)
	var size *job.CoinbaseSizeError
	require.ErrorAs(t, err, &size)
	require.Equal(t, job.CoinbaseSizeError{Part: "script", Size: 100, Most: 99}, *size)

	_, err = exampleBuilder(t, &job.BuilderOptions{MaxCoinbaseSize: 152}).Build(exampleTemplate(t), 1, exampleTime)
	require.ErrorAs(t, err, &size)
	require.Equal(t, job.CoinbaseSizeError{Part: "transaction", Size: 153, Most: 152}, *size)
	_, err = exampleBuilder(t, &job.BuilderOptions{MaxCoinbaseSize: 153}).Build(exampleTemplate(t), 1, exampleTime)
	require.NoError(t, err)
}

// BIP 22 recommends the node's coinbaseaux; the pool's text comes first where both do not fit.
func TestBuildAddsTheNodesWishes(t *testing.T) {
	tpl := exampleTemplate(t)
	tpl.CoinbaseAux = map[string][]byte{"flags": []byte("FLAGS"), "b": []byte("BB"), "empty": nil}
	j, err := exampleBuilder(t, &job.BuilderOptions{Text: "/pool/"}).Build(tpl, 1, exampleTime)
	require.NoError(t, err)
	require.Equal(t, "BBFLAGS/pool/", string(j.Coinb1[51:]))

	long := strings.Repeat("x", job.MaxCoinbaseText-3)
	j, err = exampleBuilder(t, &job.BuilderOptions{Text: long}).Build(tpl, 1, exampleTime)
	require.NoError(t, err)
	require.Equal(t, "BB"+long, string(j.Coinb1[51:]), "the flags do not fit any more")
}

func TestBuildWithoutAWitnessCommitment(t *testing.T) {
	tpl := exampleTemplate(t)
	tpl.WitnessCommitment = nil
	j, err := exampleBuilder(t, nil).Build(tpl, 1, exampleTime)
	require.NoError(t, err)
	require.Equal(t, fromHex(t, "ffffffff 01 a735b31200000000 19 76a914"+strings.Repeat("11", 20)+"88ac 00000000"), j.Coinb2)
}

// Bits that miners may roll are cleared, so that replacing, flipping and or-ing them in come to the same header.
func TestBuildClearsTheBitsThatMinersRoll(t *testing.T) {
	tpl := exampleTemplate(t)
	tpl.Version = 0x20402004
	j, err := exampleBuilder(t, nil).Build(tpl, 1, exampleTime)
	require.NoError(t, err)
	require.Equal(t, int32(0x20000004), j.Version)
	tpl.VBRequired = 0x00400000
	j, err = exampleBuilder(t, nil).Build(tpl, 1, exampleTime)
	require.NoError(t, err)
	require.Equal(t, int32(0x20400004), j.Version, "what the template requires stays")
	j, err = exampleBuilder(t, &job.BuilderOptions{Version: 0x30000000, VersionMask: 0x00ff0000}).Build(tpl, 1, exampleTime)
	require.NoError(t, err)
	require.Equal(t, int32(0x30000000), j.Version)
}

func TestBuildRefusesATemplateWithBadBits(t *testing.T) {
	tpl := exampleTemplate(t)
	tpl.Bits = 0
	_, err := exampleBuilder(t, nil).Build(tpl, 1, exampleTime)
	require.Error(t, err)
}

func TestPayoutScriptOfEveryTypeOfAddress(t *testing.T) {
	twenty, thirtyTwo := make([]byte, 20), make([]byte, 32)
	for i := range thirtyTwo {
		thirtyTwo[i] = byte(i)
	}
	copy(twenty, thirtyTwo)
	for _, net := range []*chaincfg.Params{
		&chaincfg.MainNetParams, &chaincfg.TestNet4Params, &chaincfg.SigNetParams, &chaincfg.RegressionNetParams,
	} {
		p2pkh, err := address.NewAddressPubKeyHash(twenty, net)
		require.NoError(t, err)
		p2sh, err := address.NewAddressScriptHashFromHash(twenty, net)
		require.NoError(t, err)
		p2wpkh, err := address.NewAddressWitnessPubKeyHash(twenty, net)
		require.NoError(t, err)
		p2wsh, err := address.NewAddressWitnessScriptHash(thirtyTwo, net)
		require.NoError(t, err)
		p2tr, err := address.NewAddressTaproot(thirtyTwo, net)
		require.NoError(t, err)
		for _, a := range []address.Address{p2pkh, p2sh, p2wpkh, p2wsh, p2tr} {
			want, err := txscript.PayToAddrScript(a)
			require.NoError(t, err)
			got, err := job.PayoutScript(a.EncodeAddress(), net)
			require.NoError(t, err, "%s on %s", a, net.Name)
			require.Equal(t, want, got)
		}
	}
}

func TestPayoutScriptRefuses(t *testing.T) {
	for _, test := range []struct {
		name, addr, want string
		net              *chaincfg.Params
	}{
		{"nothing", "", "payout address", &chaincfg.MainNetParams},
		{"rubbish", "hello", "payout address", &chaincfg.MainNetParams},
		{"a wrong checksum", "1BoatSLRHtKNngkdXEeobR76b53LETtpyU", "payout address", &chaincfg.MainNetParams},
		{"base58 of mainnet", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "for mainnet, not for regtest", &chaincfg.RegressionNetParams},
		{"bech32 of mainnet", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "for mainnet, not for testnet4", &chaincfg.TestNet4Params},
		{"bech32 of regtest", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "for regtest, not for mainnet", &chaincfg.MainNetParams},
		{"a public key", "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798", "public key", &chaincfg.MainNetParams},
	} {
		_, err := job.PayoutScript(test.addr, test.net)
		require.ErrorContains(t, err, test.want, test.name)
	}
}

func ExampleBuilder() {
	payout, err := job.PayoutScript("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", &chaincfg.MainNetParams)
	if err != nil {
		fmt.Println(err)
		return
	}
	builder, err := job.NewBuilder("btc", payout, &job.BuilderOptions{Text: "/mypool/"})
	if err != nil {
		fmt.Println(err)
		return
	}
	template := &job.Template{Height: 840000, Bits: 0x17034219, CoinbaseValue: 312500000}
	j, err := builder.Build(template, 1, time.Unix(1713597568, 0))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q\n", j.Coinb1[42:])
	fmt.Println(j.Target().Difficulty())
	// Output:
	// "\x03@\xd1\f\x04\x80l#f/mypool/"
	// 86388558925171.02
}

func BenchmarkBuild(b *testing.B) {
	tpl := jobtest.Template(b, "mainnet")
	builder := exampleBuilder(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := builder.Build(tpl, 1, exampleTime); err != nil {
			b.Fatal(err)
		}
	}
}
