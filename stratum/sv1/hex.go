package sv1

import "encoding/hex"

// hexValue is the value of a hex digit of either case, or 0xff.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range 10 {
		t['0'+i] = byte(i)
	}
	for i := range 6 {
		t['a'+i] = byte(10 + i)
		t['A'+i] = byte(10 + i)
	}
	return t
}()

// decodeHex fills dst from exactly 2*len(dst) hex digits of either case.
func decodeHex(dst, digits []byte) bool {
	if len(digits) != 2*len(dst) {
		return false
	}
	for i := range dst {
		hi, lo := hexValue[digits[2*i]], hexValue[digits[2*i+1]]
		if hi|lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

// hexUint32 reads 1 to 8 hex digits of either case, the most significant first.
func hexUint32(digits []byte) (v uint32, ok bool) {
	if len(digits) == 0 || len(digits) > 8 {
		return 0, false
	}
	for _, c := range digits {
		d := hexValue[c]
		if d > 15 {
			return 0, false
		}
		v = v<<4 | uint32(d)
	}
	return v, true
}

// hexBytes returns the bytes of a hex string token of at most limit bytes.
func hexBytes(tok []byte, limit int) ([]byte, bool) {
	s, ok := text(tok)
	if !ok || len(s)%2 != 0 || len(s)/2 > limit {
		return nil, false
	}
	b := make([]byte, len(s)/2)
	return b, decodeHex(b, s)
}

// hexToken reads a string token of 1 to 8 hex digits.
func hexToken(tok []byte) (uint32, bool) {
	s, ok := text(tok)
	if !ok {
		return 0, false
	}
	return hexUint32(s)
}

func appendHex(dst, b []byte) []byte { return hex.AppendEncode(dst, b) }

// appendHex32 appends v as 8 lower-case hex digits, the most significant first.
func appendHex32(dst []byte, v uint32) []byte {
	const digits = "0123456789abcdef"
	return append(dst, digits[v>>28], digits[v>>24&15], digits[v>>20&15], digits[v>>16&15],
		digits[v>>12&15], digits[v>>8&15], digits[v>>4&15], digits[v&15])
}
