package sv1

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how many arrays and objects may be open at once. A request needs three.
const maxDepth = 64

// The skip functions take the index of the first byte of a construct and return the index after its last byte, or -1
// when the construct is not JSON.

func skipSpace(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// skipValue skips the value at i inside depth open containers.
func skipValue(b []byte, i, depth int) int {
	if i >= len(b) {
		return -1
	}
	switch c := b[i]; {
	case c == '"':
		return skipString(b, i)
	case c == '-' || isDigit(c):
		return skipNumber(b, i)
	case c == '[':
		return skipArray(b, i, depth+1)
	case c == '{':
		return skipObject(b, i, depth+1)
	case c == 't':
		return skipWord(b, i, "true")
	case c == 'f':
		return skipWord(b, i, "false")
	case c == 'n':
		return skipWord(b, i, "null")
	}
	return -1
}

func skipWord(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func skipArray(b []byte, i, depth int) int {
	if depth > maxDepth {
		return -1
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i < len(b) && b[i] == '"' { // most of what arrays hold; skipValue would say the same
			i = skipString(b, i)
		} else {
			i = skipValue(b, i, depth)
		}
		if i < 0 {
			return -1
		}
		i = skipSpace(b, i)
		switch {
		case i >= len(b):
			return -1
		case b[i] == ']':
			return i + 1
		case b[i] != ',':
			return -1
		}
		i = skipSpace(b, i+1)
	}
}

func skipObject(b []byte, i, depth int) int {
	if depth > maxDepth {
		return -1
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if i = skipKey(b, i); i < 0 {
			return -1
		}
		if i = skipValue(b, i, depth); i < 0 {
			return -1
		}
		i = skipSpace(b, i)
		switch {
		case i >= len(b):
			return -1
		case b[i] == '}':
			return i + 1
		case b[i] != ',':
			return -1
		}
		i = skipSpace(b, i+1)
	}
}

// skipKey skips a key, its colon and the space around it.
func skipKey(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	if i = skipString(b, i); i < 0 {
		return -1
	}
	return skipColon(b, i)
}

func skipColon(b []byte, i int) int {
	if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
		return -1
	}
	return skipSpace(b, i+1)
}

// skipString looks at eight bytes at a time: a submit line is mostly text, and this halves the time to read one.
func skipString(b []byte, i int) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	i++
	for {
		for len(b)-i >= 8 {
			w := binary.LittleEndian.Uint64(b[i:])
			quote := w ^ '"'*ones
			slash := w ^ '\\'*ones
			// A set high bit marks a quote, a backslash or a control character. Carries can set bits too many, but
			// only above the first right one, and only the first is used.
			m := ((quote-ones)&^quote | (slash-ones)&^slash | (w-0x20*ones)&^w) & high
			if m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
			i += 8
		}
		for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= 0x20 {
			i++
		}
		switch {
		case i >= len(b) || b[i] < 0x20:
			return -1
		case b[i] == '"':
			return i + 1
		}
		if i = skipEscape(b, i); i < 0 {
			return -1
		}
	}
}

func skipEscape(b []byte, i int) int {
	if i+1 >= len(b) {
		return -1
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if len(b)-i < 6 {
			return -1
		}
		for _, c := range b[i+2 : i+6] {
			if hexValue[c] > 15 {
				return -1
			}
		}
		return i + 6
	}
	return -1
}

func skipNumber(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b) || !isDigit(b[i]):
		return -1
	case b[i] == '0':
		i++
	default:
		i = skipDigits(b, i)
	}
	if i < len(b) && b[i] == '.' {
		j := skipDigits(b, i+1)
		if j == i+1 {
			return -1
		}
		i = j
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		j := skipDigits(b, i)
		if j == i {
			return -1
		}
		i = j
	}
	return i
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// An envelope holds the raw values of the keys that matter in a line; nil where a key is missing.
type envelope struct {
	id, method, params, result, err []byte
}

func (e *envelope) parse(line []byte) error {
	*e = envelope{}
	b, i := line, skipSpace(line, 0)
	if i >= len(b) {
		return ErrSyntax
	}
	if b[i] != '{' {
		if i = skipValue(b, i, 0); b[skipSpace(b, 0)] == '[' && i >= 0 && skipSpace(b, i) == len(b) {
			return ErrBatch
		}
		return ErrSyntax
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		if skipSpace(b, i+1) != len(b) {
			return ErrSyntax
		}
		return nil
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return ErrSyntax
		}
		from := i
		if i = skipString(b, i); i < 0 {
			return ErrSyntax
		}
		field := e.field(b[from+1 : i-1])
		if i = skipColon(b, i); i < 0 {
			return ErrSyntax
		}
		from = i
		if i = skipValue(b, i, 1); i < 0 {
			return ErrSyntax
		}
		if field != nil {
			*field = b[from:i:i]
		}
		i = skipSpace(b, i)
		switch {
		case i >= len(b):
			return ErrSyntax
		case b[i] == '}':
			if skipSpace(b, i+1) != len(b) {
				return ErrSyntax
			}
			return nil
		case b[i] != ',':
			return ErrSyntax
		}
		i = skipSpace(b, i+1)
	}
}

// field returns where the value of a key goes, or nil.
func (e *envelope) field(key []byte) *[]byte {
	if bytes.IndexByte(key, '\\') >= 0 {
		if len(key) > 6*len("method") {
			return nil
		}
		key = appendUnescaped(nil, key)
	}
	switch string(key) {
	case "id":
		return &e.id
	case "method":
		return &e.method
	case "params":
		return &e.params
	case "result":
		return &e.result
	case "error":
		return &e.err
	}
	return nil
}

func isNull(tok []byte) bool { return len(tok) == 0 || tok[0] == 'n' }

// isText reports whether tok is a string.
func isText(tok []byte) bool { return len(tok) != 0 && tok[0] == '"' }

// text returns the content of a string token: a part of tok, or a copy when it holds escapes. ok is false when tok is
// not a string.
func text(tok []byte) (s []byte, ok bool) {
	if !isText(tok) {
		return nil, false
	}
	s = tok[1 : len(tok)-1 : len(tok)-1]
	if bytes.IndexByte(s, '\\') >= 0 {
		s = appendUnescaped(nil, s)
	}
	return s, true
}

// textOrNumber returns the content of a string or the digits of a number, and "" for everything else.
func textOrNumber(tok []byte) string {
	if s, ok := text(tok); ok {
		return string(s)
	}
	if len(tok) != 0 && (tok[0] == '-' || isDigit(tok[0])) {
		return string(tok)
	}
	return ""
}

// number reads a number or a string that holds one in decimal notation; it is always finite.
func number(tok []byte) (f float64, ok bool) {
	s, quoted := text(tok)
	if !quoted {
		s = tok
	}
	s = bytes.TrimSpace(s)
	if len(s) == 0 || len(s) > 400 {
		return 0, false
	}
	for _, c := range s {
		if !isDigit(c) && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false // ParseFloat would take "inf", "nan" and hexadecimal
		}
	}
	f, err := strconv.ParseFloat(string(s), 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// elements walks over the values of an array.
type elements struct {
	b    []byte
	i    int  // where the next value or the closing bracket is looked for
	done bool // the closing bracket was seen, or a fault
	bad  bool // a fault was seen
}

// over returns the elements of an array; nothing counts as an empty array.
func over(array []byte) elements {
	if len(array) == 0 {
		return elements{done: true}
	}
	i := skipSpace(array, 0)
	if i >= len(array) || array[i] != '[' {
		return elements{done: true, bad: true}
	}
	e := elements{b: array, i: skipSpace(array, i+1)}
	if e.i < len(array) && array[e.i] == ']' {
		e.end()
	}
	return e
}

// next returns the raw token of the next value, or nil at the end and at a fault.
func (e *elements) next() []byte {
	if e.done {
		return nil
	}
	b, from := e.b, e.i
	i := skipValue(b, from, 1)
	if i < 0 {
		e.done, e.bad = true, true
		return nil
	}
	tok := b[from:i:i]
	e.i = skipSpace(b, i)
	switch {
	case e.i >= len(b):
		e.done, e.bad = true, true
		return nil
	case b[e.i] == ',':
		e.i = skipSpace(b, e.i+1)
	case b[e.i] == ']':
		e.end()
	default:
		e.done, e.bad = true, true
		return nil
	}
	return tok
}

func (e *elements) end() {
	e.done = true
	e.bad = skipSpace(e.b, e.i+1) != len(e.b)
}

// finish walks over the rest and reports whether the whole array was JSON.
func (e *elements) finish() bool {
	for e.next() != nil {
	}
	return !e.bad
}

// members calls f with the raw tokens of each key and value of an object, in order. It returns false when object is
// not one.
func members(object []byte, f func(key, value []byte)) bool {
	b, i := object, skipSpace(object, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	if end := skipObject(b, i, 1); end < 0 || skipSpace(b, end) != len(b) {
		return false
	}
	for i = skipSpace(b, i+1); b[i] != '}'; {
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		from := i
		key := b[from:skipString(b, from)]
		from = skipKey(b, from)
		i = skipValue(b, from, 1)
		f(key, b[from:i:i])
		i = skipSpace(b, i)
	}
	return true
}

// appendUnescaped appends the text that the inside of a valid JSON string stands for. Half a surrogate pair becomes
// U+FFFD; bytes that are not UTF-8 are copied.
func appendUnescaped(dst, s []byte) []byte {
	for len(s) > 0 {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		r, n := unescape(s[i:])
		dst = utf8.AppendRune(dst, r)
		s = s[i+n:]
	}
	return dst
}

// unescape reads the escape that s begins with and returns its length.
func unescape(s []byte) (rune, int) {
	switch s[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := unescapeU(s)
		if utf16.IsSurrogate(r) {
			if pair := utf16.DecodeRune(r, unescapeU(s[6:])); pair != unicode.ReplacementChar {
				return pair, 12
			}
			return unicode.ReplacementChar, 6
		}
		return r, 6
	}
	return rune(s[1]), 2
}

// unescapeU reads \uXXXX, or returns -1 when s does not begin with it.
func unescapeU(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range s[2:6] {
		r = r<<4 | rune(hexValue[c])
	}
	return r
}

// printable reports whether a string token is valid UTF-8 without control characters, written out or as escapes.
func printable(tok []byte) bool {
	s, ok := text(tok)
	if !ok {
		return false
	}
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		if unicode.IsControl(r) || r == utf8.RuneError {
			return false
		}
		s = s[n:]
	}
	return true
}

// appendText appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendText[T string | []byte](dst []byte, s T) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}
