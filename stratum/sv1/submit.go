package sv1

import "bytes"

// A Submit holds the parameters of mining.submit in binary: how the miner spelled them, upper or lower case, with or
// without 0x, does not survive.
type Submit struct {
	// Worker is the name the miner submits under, empty when it is not a string. It borrows from the params unless it
	// held escapes, and may hold anything. Proxies send names that never authorized.
	Worker []byte

	JobID       uint64  // the decimal number that mining.notify carried
	Extranonce2 [8]byte // in the order they go into the coinbase; beyond the agreed size zero
	NTime       uint32  // block time in Unix seconds; some miners send 0 for that of the job
	Nonce       uint32

	VersionBits    uint32 // BIP 310: the bits of the header's version that the miner rolled, 0 when not sent
	HasVersionBits bool   // the miner sent a sixth param
}

// Decode reads the params of a mining.submit of a session with the given extranonce2 size, 1 to 8 bytes. It returns
// [ErrParams] when there are fewer than 5, when the extranonce2 is not exactly 2*extranonce2Size hex digits, when ntime
// or nonce are not 8 (after an optional 0x), or when a sixth is neither null nor 1 to 8 of them. More params are
// ignored. It returns [ErrJobID] when only the job id is wrong: anything but a decimal number below 2^64 without sign,
// leading zeros or other text, in quotes or not. Decode allocates nothing, unless a string holds escapes.
func (s *Submit) Decode(params []byte, extranonce2Size int) error {
	*s = Submit{}
	if extranonce2Size < 1 || extranonce2Size > len(s.Extranonce2) {
		return errSubmitSize
	}
	if s.decodePlain(params, extranonce2Size) {
		return nil
	}
	*s = Submit{}
	return s.decodeAny(params, extranonce2Size)
}

// decodePlain reads params as nearly all miners write them: strings without escapes, with at most one space after a
// comma, and 8 digits to a number. It takes a third of the time of decodeAny, which would read the same from them. It
// returns false, with s in any state, for everything else.
func (s *Submit) decodePlain(b []byte, extranonce2Size int) bool {
	if len(b) < 2 || b[0] != '[' || b[1] != '"' {
		return false
	}
	i := skipString(b, 1)
	if i < 0 {
		return false
	}
	s.Worker = b[2 : i-1 : i-1]
	if bytes.IndexByte(s.Worker, '\\') >= 0 {
		return false
	}

	// An id below 10^19 cannot overflow.
	if i = plainNext(b, i, 2); i < 0 {
		return false
	}
	from := i
	for i < len(b) && i-from < 19 && isDigit(b[i]) {
		s.JobID = s.JobID*10 + uint64(b[i]-'0')
		i++
	}
	if i == from || b[from] == '0' && i-from > 1 || i >= len(b) || b[i] != '"' {
		return false
	}

	n := 2 * extranonce2Size
	if i = plainNext(b, i+1, n+1); i < 0 || b[i+n] != '"' || !decodeHex(s.Extranonce2[:extranonce2Size], b[i:i+n]) {
		return false
	}
	var ok bool
	if i = plainNext(b, i+n+1, 9); i < 0 || b[i+8] != '"' {
		return false
	}
	if s.NTime, ok = hexUint32(b[i : i+8]); !ok {
		return false
	}
	if i = plainNext(b, i+9, 9); i < 0 || b[i+8] != '"' {
		return false
	}
	if s.Nonce, ok = hexUint32(b[i : i+8]); !ok {
		return false
	}
	i += 9
	if i == len(b)-1 && b[i] == ']' {
		return true
	}
	if i = plainNext(b, i, 9); i < 0 || b[i+8] != '"' {
		return false
	}
	if s.VersionBits, s.HasVersionBits = hexUint32(b[i : i+8]); !s.HasVersionBits {
		return false
	}
	i += 9
	return i == len(b)-1 && b[i] == ']'
}

// plainNext expects a comma, perhaps a space, and a quote at i, and returns the index after them, or -1 when they are
// not there or fewer than n bytes follow.
func plainNext(b []byte, i, n int) int {
	if i+3 > len(b) || b[i] != ',' {
		return -1
	}
	if b[i+1] == ' ' {
		i++
	}
	i += 2
	if i+n > len(b) || b[i-1] != '"' {
		return -1
	}
	return i
}

func (s *Submit) decodeAny(params []byte, extranonce2Size int) error {
	e := over(params)
	worker, job, extranonce2, ntime, nonce := e.next(), e.next(), e.next(), e.next(), e.next()
	if nonce == nil {
		if e.bad {
			return errNotArray
		}
		return errSubmitCount
	}
	version := e.next()
	if !e.finish() {
		return errNotArray
	}
	s.Worker, _ = text(worker)
	if digits, ok := text(extranonce2); !ok || !decodeHex(s.Extranonce2[:extranonce2Size], digits) {
		return errExtranonce2
	}
	var ok bool
	if s.NTime, ok = hexWord(ntime); !ok {
		return errNTime
	}
	if s.Nonce, ok = hexWord(nonce); !ok {
		return errNonce
	}
	if !isNull(version) {
		if s.VersionBits, ok = hexToken(version); !ok {
			return errVersionBits
		}
		s.HasVersionBits = true
	}
	if s.JobID, ok = jobNumber(job); !ok {
		return ErrJobID
	}
	return nil
}

// hexWord reads a string token of 8 hex digits after an optional 0x.
func hexWord(tok []byte) (uint32, bool) {
	s, ok := text(tok)
	if len(s) == 10 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	if !ok || len(s) != 8 {
		return 0, false
	}
	return hexUint32(s)
}

// jobNumber reads a string or number token that is exactly what strconv.AppendUint writes for some number.
func jobNumber(tok []byte) (v uint64, ok bool) {
	digits, quoted := text(tok)
	if !quoted {
		digits = tok
	}
	if len(digits) == 0 || len(digits) > len("18446744073709551615") || digits[0] == '0' && len(digits) > 1 {
		return 0, false
	}
	for i, c := range digits {
		if !isDigit(c) {
			return 0, false
		}
		next := v*10 + uint64(c-'0')
		if i == len("18446744073709551615")-1 && (v > (1<<64-1)/10 || next < v) {
			return 0, false
		}
		v = next
	}
	return v, true
}
