package job

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// Nearly all of a template reply is its array of transactions, three megabytes of hexadecimal digits on the main
// chain. encoding/json looks at every byte of it three times and takes 35 ms, which is time that miners spend on the old
// block; the scanner in this file takes a quarter of that. It knows only the form that nodes really write and gives up
// on everything else: the caller then takes the way through encoding/json, which finds the words for what is wrong. So
// it may refuse what is right, but what it accepts must be what encoding/json would have read. A fuzz target holds the
// two side by side.

// scanTransactions looks for the transactions of a reply. It returns them, checked, and the reply without them, an
// empty array in their place; or false when it cannot be sure.
func scanTransactions(body []byte) (txs []Transaction, rest []byte, ok bool) {
	s := scanner{b: body}
	start, end, found := 0, 0, false

	// object walks one object and returns false when there is anything but plain keys, each of those that matter once.
	var object func(top bool) bool
	object = func(top bool) bool {
		results := 0
		return s.object(func(key []byte) bool {
			switch {
			case string(key) == "transactions":
				if found {
					return false
				}
				found = true
				start = s.pos
				if s.peek() != '[' || !s.skip() {
					return false
				}
				end = s.pos
				return true
			case top && string(key) == "result":
				results++
				if results > 1 {
					return false
				}
				if s.peek() == '{' {
					return object(false)
				}
				return s.skip()
			case strings.EqualFold(string(key), "transactions"), top && strings.EqualFold(string(key), "result"):
				return false // encoding/json does not mind the case
			}
			return s.skip()
		})
	}
	if !object(true) || !found {
		return nil, nil, false
	}
	if txs, ok = parseTransactionArray(body[start:end]); !ok {
		return nil, nil, false
	}
	rest = make([]byte, 0, len(body)-(end-start)+2)
	rest = append(rest, body[:start]...)
	rest = append(rest, "[]"...)
	rest = append(rest, body[end:]...)
	return txs, rest, true
}

// parseTransactionArray reads and checks the whole array, as transactionJSON.transaction does for one entry.
func parseTransactionArray(array []byte) ([]Transaction, bool) {
	s := scanner{b: array}
	txs := make([]Transaction, 0, min(bytes.Count(array, []byte(`"data"`)), len(array)/64))
	var scratch []byte
	ok := s.array(func() bool {
		txs = append(txs, Transaction{Fee: -1, SigOps: -1})
		t := &txs[len(txs)-1]
		var txid, hash chainhash.Hash
		var hasTxID, hasHash bool
		// No field may come twice, so that the order of assignment does not matter.
		const (
			data = 1 << iota
			txidBit
			hashBit
			depends
			fee
			sigops
			weight
			required
		)
		seen := 0
		once := func(field int) bool {
			if seen&field != 0 {
				return false
			}
			seen |= field
			return true
		}
		ok := s.object(func(key []byte) bool {
			var ok bool
			switch string(key) {
			case "data":
				t.Data, ok = s.hex()
				return ok && once(data)
			case "txid":
				hasTxID = s.hash(&txid)
				return hasTxID && once(txidBit)
			case "hash":
				hasHash = s.hash(&hash)
				return hasHash && once(hashBit)
			case "depends":
				t.Depends = []int{}
				return once(depends) && s.array(func() bool {
					d, ok := s.int()
					t.Depends = append(t.Depends, int(d))
					return ok && d >= 1 && d < int64(len(txs))
				})
			case "fee":
				t.Fee, ok = s.int()
				return ok && once(fee)
			case "sigops":
				t.SigOps, ok = s.int()
				return ok && once(sigops)
			case "weight":
				t.Weight, ok = s.int()
				return ok && once(weight)
			case "required":
				t.Required = s.peek() == 't'
				return once(required) && (s.literal("true") || s.literal("false"))
			}
			return false
		})
		if !ok || len(t.Data) == 0 {
			return false
		}
		var err error
		if scratch, err = t.hash(scratch); err != nil {
			return false
		}
		return (!hasTxID || txid == t.TxID) &&
			(!hasHash || hash == t.WTxID || !hasTxID && hash == t.TxID)
	})
	return txs, ok && s.pos == len(array)
}

// A scanner walks JSON text. Every method returns false, and leaves pos wherever it is, when the text is not what the
// method is for.
type scanner struct {
	b   []byte
	pos int
}

// peek skips white space and returns the byte after it, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.b) {
		switch c := s.b[s.pos]; c {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) byte(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) literal(l string) bool {
	s.peek()
	if len(s.b)-s.pos < len(l) || string(s.b[s.pos:s.pos+len(l)]) != l {
		return false
	}
	s.pos += len(l)
	return true
}

// object calls field after each key; field consumes the value.
func (s *scanner) object(field func(key []byte) bool) bool {
	if !s.byte('{') {
		return false
	}
	if s.byte('}') {
		return true
	}
	for {
		key, ok := s.plain()
		if !ok || !s.byte(':') || !field(key) {
			return false
		}
		if s.byte('}') {
			return true
		}
		if !s.byte(',') {
			return false
		}
	}
}

// array calls element in front of each one; element consumes it.
func (s *scanner) array(element func() bool) bool {
	if !s.byte('[') {
		return false
	}
	if s.byte(']') {
		return true
	}
	for {
		if !element() {
			return false
		}
		if s.byte(']') {
			return true
		}
		if !s.byte(',') {
			return false
		}
	}
}

// plain returns a string without escapes. It is a part of the input.
func (s *scanner) plain() ([]byte, bool) {
	if !s.byte('"') {
		return nil, false
	}
	n := bytes.IndexByte(s.b[s.pos:], '"')
	if n < 0 {
		return nil, false
	}
	text := s.b[s.pos : s.pos+n]
	s.pos += n + 1
	return text, bytes.IndexByte(text, '\\') < 0
}

// hex returns the bytes that a string of hexadecimal digits stands for.
func (s *scanner) hex() ([]byte, bool) {
	text, ok := s.plain()
	if !ok {
		return nil, false
	}
	out := make([]byte, len(text)/2)
	_, err := hex.Decode(out, text)
	return out, err == nil
}

// hash reads a hash in display order.
func (s *scanner) hash(h *chainhash.Hash) bool {
	text, ok := s.plain()
	if !ok || len(text) != 2*len(h) {
		return false
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return false
	}
	slices.Reverse(h[:])
	return true
}

// int reads a whole number of up to 18 digits, which cannot overflow.
func (s *scanner) int() (int64, bool) {
	negative := s.byte('-')
	if !negative {
		s.peek()
	}
	first := s.pos
	var v int64
	for s.pos < len(s.b) && s.b[s.pos] >= '0' && s.b[s.pos] <= '9' {
		if s.pos-first >= 18 {
			return 0, false
		}
		v = 10*v + int64(s.b[s.pos]-'0')
		s.pos++
	}
	digits := s.pos - first
	if digits == 0 || digits > 1 && s.b[first] == '0' {
		return 0, false
	}
	if negative {
		v = -v
	}
	return v, true
}

// skip passes over one value. It does not check the inside of strings, numbers and nested values: their bytes are
// either left to encoding/json or read again.
func (s *scanner) skip() bool {
	for depth := 0; ; {
		switch s.peek() {
		case 0:
			return false
		case '"':
			if !s.skipString() {
				return false
			}
		case '{', '[':
			depth++
			s.pos++
			continue
		case '}', ']':
			depth--
			s.pos++
		case ',', ':':
			if depth == 0 {
				return false
			}
			s.pos++
			continue
		default:
			for s.pos < len(s.b) && bytes.IndexByte([]byte(" \t\r\n,:{}[]\""), s.b[s.pos]) < 0 {
				s.pos++
			}
		}
		if depth <= 0 {
			return depth == 0
		}
	}
}

func (s *scanner) skipString() bool {
	s.pos++
	for {
		n := bytes.IndexByte(s.b[s.pos:], '"')
		if n < 0 {
			return false
		}
		start := s.pos
		s.pos += n + 1
		// A quote after an odd number of backslashes belongs to the string.
		slashes := 0
		for i := s.pos - 2; i >= start && s.b[i] == '\\'; i-- {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
	}
}
