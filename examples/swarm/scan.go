package main

import (
	"bytes"

	"github.com/poolkit/poolkit/stratum/sv1"
)

// A message is what a pool's line says, as far as a load program wants to know. All slices borrow from the line.
type message struct {
	reply    bool
	id       uint64 // of a reply, when hasID
	hasID    bool   // the id is a number
	textID   []byte // the id when it is a string
	accepted bool   // of a reply: no error, and a result that is neither false nor null
	code     int    // of a refusal; 0 when it gave none
	text     []byte // of a refusal
	result   []byte // raw JSON
	method   []byte
	params   []byte // raw JSON; nil when there are none
}

// scan reads a line. Nearly all lines are objects with plain keys, and of these it picks the tokens without looking
// into them, at a fraction of the cost of a full decoder; anything else goes to [sv1.Message.Decode]. It returns false
// for a line that is not a message.
func (m *message) scan(line []byte) bool {
	*m = message{}
	var id, result, errTok []byte
	i := space(line, 0)
	if i >= len(line) || line[i] != '{' {
		return false
	}
	i = space(line, i+1)
	for i < len(line) && line[i] == '"' {
		end := stringEnd(line, i)
		if end < 0 {
			return m.slow(line)
		}
		key := line[i+1 : end-1]
		i = space(line, end)
		if i >= len(line) || line[i] != ':' {
			return m.slow(line)
		}
		from := space(line, i+1)
		if i = valueEnd(line, from); i < 0 {
			return m.slow(line)
		}
		value := line[from:i:i]
		switch string(key) {
		case "id":
			id = value
		case "result":
			result = value
		case "error":
			errTok = value
		case "method":
			if value[0] == '"' {
				m.method = value[1 : len(value)-1]
			} else if string(value) != "null" {
				return m.slow(line)
			}
		case "params":
			m.params = value
		default:
			if bytes.IndexByte(key, '\\') >= 0 {
				return m.slow(line)
			}
		}
		i = space(line, i)
		if i >= len(line) || line[i] != ',' {
			break
		}
		i = space(line, i+1)
	}
	if i >= len(line) || line[i] != '}' || space(line, i+1) != len(line) {
		return m.slow(line)
	}
	if bytes.IndexByte(m.method, '\\') >= 0 {
		return m.slow(line)
	}
	if m.method != nil {
		return len(m.method) > 0
	}
	if result == nil && errTok == nil {
		return false
	}
	m.reply, m.result = true, result
	switch {
	case id == nil || string(id) == "null":
	case id[0] == '"':
		m.textID = id[1 : len(id)-1]
		if bytes.IndexByte(m.textID, '\\') >= 0 {
			return m.slow(line)
		}
		m.id, m.hasID = digits(m.textID) // a pool that quotes what it was sent
	default:
		m.id, m.hasID = digits(id)
	}
	if errTok != nil && string(errTok) != "null" {
		if !m.refusal(errTok) {
			return m.slow(line)
		}
		return true
	}
	m.accepted = result != nil && string(result) != "null" && string(result) != "false"
	return true
}

// refusal reads [code,"text",…], which is all that pools send but for a few.
func (m *message) refusal(tok []byte) bool {
	if tok[0] != '[' {
		return false
	}
	i := space(tok, 1)
	from := i
	if i < len(tok) && tok[i] == '-' {
		i++
	}
	n, d := 0, i
	for i < len(tok) && tok[i]-'0' <= 9 && i-d < 9 {
		n = 10*n + int(tok[i]-'0')
		i++
	}
	if i == d || tok[i] == '0' {
		return false
	}
	if tok[from] == '-' {
		n = -n
	}
	i = space(tok, i)
	if i >= len(tok) || tok[i] != ',' {
		return false
	}
	i = space(tok, i+1)
	if i >= len(tok) || tok[i] != '"' {
		return false
	}
	end := stringEnd(tok, i)
	if end < 0 || bytes.IndexByte(tok[i:end], '\\') >= 0 {
		return false
	}
	m.code, m.text = n, tok[i+1:end-1]
	return true
}

// slow reads what scan does not take, with the decoder that knows every form.
func (m *message) slow(line []byte) bool {
	*m = message{}
	var d sv1.Message
	if d.Decode(line) != nil {
		return false
	}
	m.reply, m.result, m.method, m.params = d.IsReply, d.Result, d.Name, d.Params
	m.id, m.hasID = digits(d.ID)
	if len(d.ID) > 1 && d.ID[0] == '"' {
		m.textID = d.ID[1 : len(d.ID)-1]
		m.id, m.hasID = digits(m.textID)
	}
	if m.reply {
		m.accepted = d.Accepted()
		if d.Err != nil {
			m.code, m.text = d.Err.Code, []byte(d.Err.Message)
		}
	}
	return true
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// stringEnd returns the index after the string that begins at i, or -1.
func stringEnd(b []byte, i int) int {
	for i++; ; {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		// A quote after an odd number of backslashes is part of the string.
		k := i
		for b[k-1] == '\\' {
			k--
		}
		i++
		if (i-1-k)%2 == 0 {
			return i
		}
	}
}

// valueEnd returns the index after the value that begins at i, or -1. It matches brackets and does not look at what is
// between them.
func valueEnd(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '[', '{':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				if i = stringEnd(b, i); i < 0 {
					return -1
				}
				continue
			case '[', '{':
				depth++
			case ']', '}':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return -1
	}
	from := i
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\t', '\r':
			if i == from {
				return -1
			}
			return i
		case '"', '[', '{', ':':
			return -1
		}
		i++
	}
	return -1
}

// digits reads a whole number below 10^19.
func digits(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	for _, c := range b {
		if c-'0' > 9 {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, b[0] != '0' || len(b) == 1
}

// element returns the elements of an array one after another; i is 1 for the first and comes back for the next. At the
// end, or at what is no array, it returns nil.
func element(array []byte, i int) (value []byte, next int) {
	if i >= len(array) || array[0] != '[' {
		return nil, i
	}
	i = space(array, i)
	end := valueEnd(array, i)
	if end < 0 || array[i] == ']' {
		return nil, len(array)
	}
	value = array[i:end]
	i = space(array, end)
	if i < len(array) && array[i] == ',' {
		i++
	}
	return value, i
}

// unquote returns the content of a string, and any other token as it is.
func unquote(tok []byte) []byte {
	if len(tok) >= 2 && tok[0] == '"' {
		return tok[1 : len(tok)-1]
	}
	return tok
}

// A notify is what a fast share needs to know of a mining.notify.
type notify struct {
	jobID    []byte // borrows
	prevHash []byte // borrows: the digits as they were sent
	ntime    uint32
	clean    bool
}

func (n *notify) scan(params []byte) bool {
	*n = notify{}
	i := 1
	var v []byte
	for k := range 9 {
		if v, i = element(params, i); v == nil {
			return false
		}
		switch k {
		case 0:
			n.jobID = unquote(v)
		case 1:
			n.prevHash = unquote(v)
		case 7:
			digits := unquote(v)
			if len(digits) == 0 || len(digits) > 8 {
				return false
			}
			for _, c := range digits {
				switch {
				case c-'0' <= 9:
					c -= '0'
				case c|0x20 >= 'a' && c|0x20 <= 'f':
					c = c | 0x20 - 'a' + 10
				default:
					return false
				}
				n.ntime = n.ntime<<4 | uint32(c)
			}
		case 8:
			n.clean = string(v) == "true"
		}
	}
	return len(n.jobID) > 0 && len(n.jobID) <= maxJobID
}

// maxJobID is the longest job id in bytes that a submit of ours carries.
const maxJobID = 128
