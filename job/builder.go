package job

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"
)

// Limits of a coinbase. Consensus allows a script of 2 to 100 bytes; pools stay one below, as BTCPool does.
const (
	MaxCoinbaseScript      = 99
	DefaultMaxCoinbaseSize = 499 // of the transaction without witness, in bytes: more than this NiceHash refuses

	// MaxCoinbaseText is the room for the pool's text next to a height below 8,388,608, the time and the extranonce.
	MaxCoinbaseText = MaxCoinbaseScript - 4 - 5 - ExtranonceSize
)

// DefaultVersionMask holds the version bits that miners may roll (BIP 310, bits 13 to 28 of BIP 320).
const DefaultVersionMask uint32 = 0x1fffe000

// BuilderOptions tune a [Builder]. The zero value writes no text and rolls the usual version bits.
type BuilderOptions struct {
	// Text is put into the coinbase script as it stands, without a push opcode: "/mypool/". At most
	// MaxCoinbaseText bytes.
	Text string

	// Version replaces the template's block version when it is not 0.
	Version int32

	// VersionMask holds the bits that miners may roll. They are cleared in the job's version, so that every
	// reading of the rolled bits (replace, or, xor) comes to the same header; bits that the template requires stay
	// set. 0 means DefaultVersionMask.
	VersionMask uint32

	// MaxCoinbaseSize bounds the coinbase transaction without witness, in bytes; 0 means DefaultMaxCoinbaseSize.
	// Firmware differs: some stop at 730 bytes, some at 2,250.
	MaxCoinbaseSize int
}

// A Builder makes jobs of templates. It is safe for concurrent use.
type Builder struct {
	chain  Chain
	payout []byte
	opts   BuilderOptions
}

// NewBuilder returns a Builder for jobs of the given chain whose coinbase pays everything to the output script payout;
// [PayoutScript] makes one of an address.
func NewBuilder(chain Chain, payout []byte, opts *BuilderOptions) (*Builder, error) {
	b := &Builder{chain: chain, payout: bytes.Clone(payout)}
	if opts != nil {
		b.opts = *opts
	}
	if b.opts.VersionMask == 0 {
		b.opts.VersionMask = DefaultVersionMask
	}
	if b.opts.MaxCoinbaseSize == 0 {
		b.opts.MaxCoinbaseSize = DefaultMaxCoinbaseSize
	}
	var errs []error
	if len(payout) == 0 {
		errs = append(errs, errors.New("job: new builder: no payout script"))
	}
	if n := len(b.opts.Text); n > MaxCoinbaseText {
		errs = append(errs, fmt.Errorf("job: new builder: coinbase text of %d bytes, at most %d fit", n, MaxCoinbaseText))
	}
	if b.opts.MaxCoinbaseSize < 0 {
		errs = append(errs, fmt.Errorf("job: new builder: coinbase limit of %d bytes", b.opts.MaxCoinbaseSize))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return b, nil
}

// A CoinbaseSizeError reports a coinbase that exceeds one of its limits.
type CoinbaseSizeError struct {
	Part       string // "script" or "transaction"
	Size, Most int    // bytes
}

// Error names the part and both sizes.
func (e *CoinbaseSizeError) Error() string {
	return fmt.Sprintf("job: build: coinbase %s of %d bytes, at most %d are allowed", e.Part, e.Size, e.Most)
}

// Build makes the job with the given ID from t. now goes into the coinbase, which gives two jobs from one template
// different search spaces.
//
// The coinbase script holds, in this order, the height as BIP 34 wants it, the time, the node's coinbaseaux (BIP 22)
// where it fits, the pool's text and the extranonce:
//
//	03 40d10c  04 806c2366  [aux]  /mypool/  eeeeeeee eeeeeeeeeeeeeeee
//	height     time                text      extranonce1, extranonce2
func (b *Builder) Build(t *Template, id ID, now time.Time) (*Job, error) {
	script := appendScriptNum(nil, int64(t.Height))
	script = appendPush(script, scriptNumBytes(now.Unix()))
	script = b.appendAux(script, t.CoinbaseAux)
	script = append(script, b.opts.Text...)
	scriptSize := len(script) + ExtranonceSize
	if scriptSize > MaxCoinbaseScript {
		return nil, &CoinbaseSizeError{"script", scriptSize, MaxCoinbaseScript}
	}

	var coinb1 []byte
	coinb1 = append(coinb1, 2, 0, 0, 0) // version
	coinb1 = append(coinb1, 1)          // inputs
	coinb1 = append(coinb1, make([]byte, 32)...)
	coinb1 = append(coinb1, 0xff, 0xff, 0xff, 0xff)
	coinb1 = append(coinb1, byte(scriptSize)) // below 0xfd, so the length is one byte
	coinb1 = append(coinb1, script...)

	coinb2 := []byte{0xff, 0xff, 0xff, 0xff} // sequence
	outputs := 1
	if len(t.WitnessCommitment) > 0 {
		outputs++
	}
	coinb2 = appendVarint(coinb2, uint64(outputs))
	coinb2 = appendOutput(coinb2, t.CoinbaseValue, b.payout)
	if len(t.WitnessCommitment) > 0 {
		coinb2 = appendOutput(coinb2, 0, t.WitnessCommitment)
	}
	coinb2 = append(coinb2, 0, 0, 0, 0) // lock time
	if size := len(coinb1) + ExtranonceSize + len(coinb2); size > b.opts.MaxCoinbaseSize {
		return nil, &CoinbaseSizeError{"transaction", size, b.opts.MaxCoinbaseSize}
	}

	version := t.Version
	if b.opts.Version != 0 {
		version = b.opts.Version
	}
	version &^= int32(b.opts.VersionMask &^ t.VBRequired)

	txids := make([]Hash, len(t.Transactions))
	for i := range t.Transactions {
		txids[i] = t.Transactions[i].TxID
	}
	return New(Job{
		ID:                id,
		Chain:             b.chain,
		TemplateID:        t.ID,
		Template:          t,
		Height:            t.Height,
		PrevHash:          t.PrevHash,
		Version:           version,
		Bits:              t.Bits,
		Time:              t.CurTime,
		MinTime:           t.MinTime,
		MaxTime:           t.MaxTime,
		Coinb1:            coinb1,
		Coinb2:            coinb2,
		Branch:            MerkleBranch(txids),
		CoinbaseValue:     t.CoinbaseValue,
		WitnessCommitment: t.WitnessCommitment,
	})
}

// appendAux adds the node's wishes in the order of their names. BIP 22 recommends them, so they give way to the pool's
// text where both do not fit.
func (b *Builder) appendAux(script []byte, aux map[string][]byte) []byte {
	for _, name := range slices.Sorted(maps.Keys(aux)) {
		if len(script)+len(aux[name])+len(b.opts.Text)+ExtranonceSize <= MaxCoinbaseScript {
			script = append(script, aux[name]...)
		}
	}
	return script
}

// appendScriptNum appends the shortest push of n, which is what BIP 34 compares the coinbase script with.
func appendScriptNum(script []byte, n int64) []byte {
	switch {
	case n == 0:
		return append(script, txscript.OP_0)
	case 1 <= n && n <= 16:
		return append(script, byte(txscript.OP_1-1+n))
	}
	return appendPush(script, scriptNumBytes(n))
}

// scriptNumBytes returns n, which is not negative, little-endian with a zero byte where the top bit would read as a
// sign.
func scriptNumBytes(n int64) []byte {
	var b []byte
	for ; n > 0; n >>= 8 {
		b = append(b, byte(n))
	}
	if len(b) > 0 && b[len(b)-1]&0x80 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendPush(script, data []byte) []byte {
	return append(append(script, byte(len(data))), data...)
}

func appendOutput(dst []byte, valueSats int64, script []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(valueSats))
	dst = appendVarint(dst, uint64(len(script)))
	return append(dst, script...)
}

func appendVarint(dst []byte, n uint64) []byte {
	switch {
	case n < 0xfd:
		return append(dst, byte(n))
	case n <= 0xffff:
		return binary.LittleEndian.AppendUint16(append(dst, 0xfd), uint16(n))
	case n <= 0xffffffff:
		return binary.LittleEndian.AppendUint32(append(dst, 0xfe), uint32(n))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0xff), n)
}

// PayoutScript returns the output script that pays to addr, an address of any type (P2PKH, P2SH, P2WPKH, P2WSH, P2TR)
// of the given network. An address of another network is refused.
func PayoutScript(addr string, net *chaincfg.Params) ([]byte, error) {
	a, err := address.DecodeAddress(addr, net)
	if err != nil || !a.IsForNet(net) {
		for _, other := range []*chaincfg.Params{
			&chaincfg.MainNetParams, &chaincfg.TestNet4Params, &chaincfg.RegressionNetParams, &chaincfg.SigNetParams,
		} {
			if o, err := address.DecodeAddress(addr, other); err == nil && o.IsForNet(other) {
				return nil, fmt.Errorf("job: payout address %q is for %s, not for %s", addr, other.Name, net.Name)
			}
		}
		return nil, fmt.Errorf("job: payout address %q is no address of %s: %w", addr, net.Name, cmp.Or(err, errForeignAddress))
	}
	if _, ok := a.(*address.AddressPubKey); ok {
		return nil, fmt.Errorf("job: payout address %q is a public key, not an address", addr)
	}
	script, err := txscript.PayToAddrScript(a)
	if err != nil {
		return nil, fmt.Errorf("job: payout address %q: %w", addr, err)
	}
	return script, nil
}

var errForeignAddress = errors.New("it belongs to another network")
