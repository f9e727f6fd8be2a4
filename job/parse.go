package job

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/difficulty"
)

// hexBytes decodes a hexadecimal JSON string straight from the input, which halves the memory that a template's
// transactions pass through.
type hexBytes []byte

// UnmarshalJSON implements [json.Unmarshaler].
func (h *hexBytes) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' {
		return fmt.Errorf("job: %.20q is not a hexadecimal string", b)
	}
	b = b[1 : len(b)-1]
	out := make([]byte, hex.DecodedLen(len(b)))
	if _, err := hex.Decode(out, b); err != nil {
		return err
	}
	*h = out
	return nil
}

func parseTemplate(body []byte, received time.Time) (*Template, error) {
	var t *Template
	var err error
	if txs, rest, ok := scanTransactions(body); ok {
		t, err = decodeTemplate(rest, txs)
	} else {
		t, err = decodeTemplate(body, nil)
	}
	if err != nil {
		return nil, err
	}
	t.ID = doubleSHA256(body)
	t.Received = received
	return t, nil
}

// decodeTemplate reads a reply; txs, unless nil, are the transactions that were cut out of it.
func decodeTemplate(body []byte, txs []Transaction) (*Template, error) {
	if start := bytes.TrimLeft(body, " \t\r\n"); len(start) == 0 || start[0] != '{' {
		return nil, fmt.Errorf("job: template: the reply is not a JSON object, it begins %.40q", start)
	}
	var reply struct {
		Result *templateJSON   `json:"result"`
		Error  json.RawMessage `json:"error"`
		templateJSON
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&reply); err != nil {
		return nil, fmt.Errorf("job: template: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("job: template: data after the reply")
	}
	if len(reply.Error) > 0 && !bytes.Equal(reply.Error, []byte("null")) {
		e := struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		}{}
		if json.Unmarshal(reply.Error, &e) != nil {
			e.Message = string(reply.Error)
		}
		return nil, &RPCError{Code: e.Code, Message: e.Message}
	}
	src := &reply.templateJSON
	if reply.Result != nil {
		src = reply.Result
	}
	return src.template(txs)
}

// template checks every field and converts it. The checks come in the order in which BIP 22 lists the fields, but for
// the rules, which decide whether the rest can be understood at all. The transactions are txs where these are given.
func (s *templateJSON) template(txs []Transaction) (*Template, error) {
	if err := checkRules(s.Rules); err != nil {
		return nil, err
	}
	missing := ""
	switch {
	case s.PreviousBlockHash == nil:
		missing = "previousblockhash"
	case s.Height == nil:
		missing = "height"
	case s.Bits == nil:
		missing = "bits"
	case s.CurTime == nil:
		missing = "curtime"
	case s.Version == nil:
		missing = "version"
	case s.Transactions == nil:
		missing = "transactions"
	case s.CoinbaseValue == nil && s.CoinbaseTxn == nil:
		missing = "coinbasevalue"
	}
	if missing != "" {
		return nil, &FieldError{missing, "missing"}
	}

	t := &Template{
		Version:      *s.Version,
		Rules:        s.Rules,
		VBAvailable:  s.VBAvailable,
		VBRequired:   s.VBRequired,
		Capabilities: s.Capabilities,
		Mutable:      s.Mutable,
		LongPollID:   s.LongPollID,
		LongPollURI:  s.LongPollURI,
		SubmitOld:    s.SubmitOld == nil || *s.SubmitOld,
		WorkID:       s.WorkID,
		Expires:      time.Duration(s.Expires) * time.Second,
		SigOpLimit:   s.SigOpLimit,
		SizeLimit:    s.SizeLimit,
		WeightLimit:  s.WeightLimit,
	}
	fail := func(field, format string, args ...any) (*Template, error) {
		return nil, &FieldError{field, fmt.Sprintf(format, args...)}
	}

	if err := decodeHash(&t.PrevHash, *s.PreviousBlockHash); err != nil {
		return fail("previousblockhash", "%v", err)
	}
	// One below the highest int32, so that the height can be doubled with a flag in its lowest bit.
	if *s.Height < 0 || *s.Height >= math.MaxInt32 {
		return fail("height", "%d is not a block height", *s.Height)
	}
	t.Height = int32(*s.Height)
	bits, err := strconv.ParseUint(*s.Bits, 16, 32)
	if err != nil || len(*s.Bits) != 8 {
		return fail("bits", "%.20q is not 8 hexadecimal digits", *s.Bits)
	}
	t.Bits = uint32(bits)
	if t.Target, err = difficulty.FromBits(t.Bits); err != nil {
		return fail("bits", "%v", err)
	}
	if s.Target != "" {
		target, err := difficulty.ParseTarget(s.Target)
		if err != nil {
			return fail("target", "%v", err)
		}
		// Nodes print the target that the bits stand for; a share target above it would be news, one below a lie.
		if target != t.Target {
			return fail("target", "%s contradicts bits %08x", s.Target, t.Bits)
		}
	}
	if t.CurTime, err = headerTime(s.CurTime); err != nil {
		return fail("curtime", "%v", err)
	}
	t.MinTime = t.CurTime
	if s.MinTime != nil {
		if t.MinTime, err = headerTime(s.MinTime); err != nil {
			return fail("mintime", "%v", err)
		}
	}
	if t.MinTime > t.CurTime {
		return fail("mintime", "%d is after curtime %d", t.MinTime, t.CurTime)
	}
	if s.MaxTime != nil {
		if t.MaxTime, err = headerTime(s.MaxTime); err != nil {
			return fail("maxtime", "%v", err)
		}
		if t.MaxTime < t.MinTime {
			return fail("maxtime", "%d is before mintime %d", t.MaxTime, t.MinTime)
		}
	}
	if s.NonceRange != "" {
		lo, errLo := strconv.ParseUint(s.NonceRange[:min(8, len(s.NonceRange))], 16, 32)
		hi, errHi := strconv.ParseUint(s.NonceRange[min(8, len(s.NonceRange)):], 16, 32)
		if len(s.NonceRange) != 16 || errLo != nil || errHi != nil {
			return fail("noncerange", "%.40q is not 16 hexadecimal digits", s.NonceRange)
		}
		if lo > hi {
			return fail("noncerange", "%s is empty", s.NonceRange)
		}
		t.NonceRange = [2]uint32{uint32(lo), uint32(hi)}
	}
	if s.Expires < 0 || s.Expires > math.MaxInt32 {
		return fail("expires", "%d seconds cannot be", s.Expires)
	}
	for _, limit := range []struct {
		field string
		value int64
	}{{"sigoplimit", s.SigOpLimit}, {"sizelimit", s.SizeLimit}, {"weightlimit", s.WeightLimit}} {
		if limit.value < 0 {
			return fail(limit.field, "%d is negative", limit.value)
		}
	}
	if s.SignetChallenge != "" {
		if t.SignetChallenge, err = hex.DecodeString(s.SignetChallenge); err != nil {
			return fail("signet_challenge", "%v", err)
		}
	}
	for name, value := range s.CoinbaseAux {
		b, err := hex.DecodeString(value)
		if err != nil {
			return fail("coinbaseaux."+name, "%v", err)
		}
		if t.CoinbaseAux == nil {
			t.CoinbaseAux = make(map[string][]byte, len(s.CoinbaseAux))
		}
		t.CoinbaseAux[name] = b
	}

	if t.Transactions = txs; txs == nil {
		t.Transactions = make([]Transaction, len(*s.Transactions))
		for i := range *s.Transactions {
			src := &(*s.Transactions)[i]
			if err := src.transaction(&t.Transactions[i]); err != nil {
				return fail(fmt.Sprintf("transactions[%d].%s", i, err.Field), "%s", err.Reason)
			}
			for _, d := range src.Depends {
				if d < 1 || d > i {
					return fail(fmt.Sprintf("transactions[%d].depends", i), "%d is not an earlier transaction", d)
				}
			}
		}
	}
	witness := false
	for i := range t.Transactions {
		witness = witness || t.Transactions[i].TxID != t.Transactions[i].WTxID
	}

	if s.CoinbaseTxn != nil {
		t.CoinbaseTxn = new(Transaction)
		if err := s.CoinbaseTxn.transaction(t.CoinbaseTxn); err != nil {
			return fail("coinbasetxn."+err.Field, "%s", err.Reason)
		}
	}
	if s.CoinbaseValue == nil {
		return fail("coinbasevalue", "missing: the node insists on its own coinbase, which pays its operator")
	}
	if t.CoinbaseValue = *s.CoinbaseValue; t.CoinbaseValue < 0 || t.CoinbaseValue > maxMoney {
		return fail("coinbasevalue", "%d satoshi cannot be", t.CoinbaseValue)
	}

	switch {
	case s.DefaultWitnessCommitment != "":
		script, err := hex.DecodeString(s.DefaultWitnessCommitment)
		if err != nil {
			return fail("default_witness_commitment", "%v", err)
		}
		if len(script) == len(chainhash.Hash{}) {
			// btcd names what is committed to, where BIP 145 wants the whole script.
			script = append(bytes.Clone(witnessTag), script...)
		}
		if !isWitnessCommitment(script) {
			return fail("default_witness_commitment", "%.80q is not a commitment output (BIP 141)", s.DefaultWitnessCommitment)
		}
		t.WitnessCommitment = script
	case witness:
		t.WitnessCommitment = WitnessCommitment(t.Transactions)
	}
	return t, nil
}

const maxMoney = 21e6 * 1e8

func headerTime(v *int64) (uint32, error) {
	if *v < 0 || *v > math.MaxUint32 {
		return 0, fmt.Errorf("%d is not a header time", *v)
	}
	return uint32(*v), nil
}

// decodeHash reads a hash in display order, all 64 digits of it.
func decodeHash(dst *chainhash.Hash, s string) error {
	if len(s) != 64 {
		return fmt.Errorf("%d hexadecimal digits, want 64", len(s))
	}
	return chainhash.Decode(dst, s)
}

func (s *transactionJSON) transaction(t *Transaction) *FieldError {
	if len(s.Data) == 0 {
		return &FieldError{"data", "missing"}
	}
	t.Data = s.Data
	if _, err := t.hash(nil); err != nil {
		return &FieldError{"data", err.Error()}
	}
	if s.TxID != "" && !strings.EqualFold(s.TxID, t.TxID.String()) {
		return &FieldError{"txid", fmt.Sprintf("%.64s is not the id of data, %v", s.TxID, t.TxID)}
	}
	// Nodes that know no witnesses call the id "hash", and leave "txid" out.
	if s.Hash != "" && !strings.EqualFold(s.Hash, t.WTxID.String()) &&
		(s.TxID != "" || !strings.EqualFold(s.Hash, t.TxID.String())) {
		return &FieldError{"hash", fmt.Sprintf("%.64s is not the hash of data, %v", s.Hash, t.WTxID)}
	}
	t.Depends = s.Depends
	t.Fee, t.SigOps = -1, -1
	if s.Fee != nil {
		t.Fee = *s.Fee
	}
	if s.SigOps != nil {
		t.SigOps = *s.SigOps
	}
	t.Weight = s.Weight
	t.Required = s.Required
	return nil
}

// hash computes both ids of the transaction from its data. It uses scratch, which may be nil, and returns what has
// become of it.
func (t *Transaction) hash(scratch []byte) ([]byte, error) {
	stripped, err := stripWitness(t.Data, scratch[:0])
	if err != nil {
		return scratch, err
	}
	t.WTxID = doubleSHA256(t.Data)
	if len(stripped) == len(t.Data) {
		t.TxID = t.WTxID
		return scratch, nil
	}
	t.TxID = doubleSHA256(stripped)
	return stripped, nil
}

// isWitnessCommitment reports whether script is the output that BIP 141 looks for: OP_RETURN, a push of at least 36
// bytes, and the tag.
func isWitnessCommitment(script []byte) bool {
	return len(script) >= 38 && bytes.HasPrefix(script, witnessTag)
}

var witnessTag = []byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed}

// WitnessCommitment returns the output script that commits to the witnesses of a block with the given transactions
// after its coinbase, with a reserved value of 32 zero bytes (BIP 141).
func WitnessCommitment(txs []Transaction) []byte {
	ids := make([]chainhash.Hash, len(txs))
	for i := range txs {
		ids[i] = txs[i].WTxID
	}
	// The coinbase counts as 32 zero bytes; its branch leads to the root as that of any block does.
	root := chainhash.Hash{}
	var pair [64]byte
	for _, step := range MerkleBranch(ids) {
		copy(pair[:32], root[:])
		copy(pair[32:], step[:])
		root = doubleSHA256(pair[:])
	}
	copy(pair[:32], root[:])
	clear(pair[32:])
	commitment := doubleSHA256(pair[:])
	return append(bytes.Clone(witnessTag), commitment[:]...)
}

// errTx says how a transaction's bytes end or go wrong.
var (
	errShortTx = errors.New("transaction ends early")
	errLongTx  = errors.New("bytes after the end of the transaction")
	errNoInput = errors.New("transaction without inputs or outputs")
	errFlagTx  = errors.New("unknown transaction flag")
)

// stripWitness returns the serialisation without witness (BIP 144) of the one transaction in data, which is data
// itself when there is none and else stands in scratch, and an error when data is not exactly one well-formed
// transaction. It walks the bytes
// without decoding scripts, which is what lets a template of thousands of transactions be read in milliseconds.
func stripWitness(data, scratch []byte) ([]byte, error) {
	r := txReader{b: data}
	r.skip(4)
	segwit := len(data) > 6 && data[4] == 0
	if segwit {
		if data[5] != 1 {
			return nil, errFlagTx
		}
		r.skip(2)
	}
	bodyStart := r.pos
	inputs := r.varint()
	if inputs == 0 && r.ok() {
		return nil, errNoInput
	}
	for i := uint64(0); i < inputs && r.ok(); i++ {
		r.skip(36)
		r.skipN(r.varint())
		r.skip(4)
	}
	outputs := r.varint()
	if outputs == 0 && r.ok() {
		return nil, errNoInput
	}
	for i := uint64(0); i < outputs && r.ok(); i++ {
		r.skip(8)
		r.skipN(r.varint())
	}
	bodyEnd := r.pos
	if segwit {
		for i := uint64(0); i < inputs && r.ok(); i++ {
			items := r.varint()
			for k := uint64(0); k < items && r.ok(); k++ {
				r.skipN(r.varint())
			}
		}
	}
	r.skip(4)
	switch {
	case !r.ok():
		return nil, errShortTx
	case r.pos != len(data):
		return nil, errLongTx
	case !segwit:
		return data, nil
	}
	out := append(slices.Grow(scratch, 8+bodyEnd-bodyStart), data[:4]...)
	out = append(out, data[bodyStart:bodyEnd]...)
	return append(out, data[len(data)-4:]...), nil
}

// A txReader walks serialised transactions; once it runs off the end it stays there.
type txReader struct {
	b   []byte
	pos int
	bad bool
}

func (r *txReader) ok() bool { return !r.bad }

func (r *txReader) skip(n int) { r.skipN(uint64(n)) }

func (r *txReader) skipN(n uint64) {
	if r.bad || n > uint64(len(r.b)-r.pos) {
		r.bad = true
		return
	}
	r.pos += int(n)
}

func (r *txReader) varint() uint64 {
	if r.bad || r.pos >= len(r.b) {
		r.bad = true
		return 0
	}
	first := r.b[r.pos]
	r.pos++
	size := 0
	switch first {
	default:
		return uint64(first)
	case 0xfd:
		size = 2
	case 0xfe:
		size = 4
	case 0xff:
		size = 8
	}
	if len(r.b)-r.pos < size {
		r.bad = true
		return 0
	}
	var v uint64
	for i := size - 1; i >= 0; i-- {
		v = v<<8 | uint64(r.b[r.pos+i])
	}
	r.pos += size
	return v
}
