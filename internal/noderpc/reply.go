package noderpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

// ErrUnauthorized matches errors about a node that refused the user and password, or this machine's address.
var ErrUnauthorized = errors.New("node refused the credentials")

// Codes of errors that nodes report, as bitcoind and btcd both use them.
const (
	CodeMisc           = -1  // the method failed for a reason of its own
	CodeNotFound       = -5  // unknown block or transaction
	CodeParameter      = -8  // a parameter is out of range or missing
	CodeNotConnected   = -9  // no peers
	CodeDownloading    = -10 // the chain is not synced yet
	CodeDecode         = -22 // what was sent does not decode
	CodeVerify         = -25 // verification failed
	CodeVerifyRejected = -26 // refused by the rules
	CodeInChain        = -27 // in the chain already
	CodeWarmup         = -28 // the node is starting
	CodeNoMethod       = -32601
	CodeInternal       = -32603
)

// An RPCError is the error object that a node answered with. HTTP's status makes no difference: bitcoind sends 500 or
// 404 with it, btcd 200.
type RPCError struct {
	Node    string // scheme and host
	Method  string
	Code    int
	Message string
}

// Error names the node, the method and what the node said.
func (e *RPCError) Error() string {
	return fmt.Sprintf("node %s: %s: error %d: %s", e.Node, e.Method, e.Code, e.Message)
}

// An HTTPError is an HTTP status without a JSON-RPC error that would explain it.
type HTTPError struct {
	Node   string // scheme and host
	Method string
	Status int
	Body   string // how the reply begins, printable and cut short; never empty
}

// Error names the node, the method, the status, and how the reply begins.
func (e *HTTPError) Error() string {
	hint := ""
	switch e.Status {
	case http.StatusUnauthorized:
		hint = ", it refused the user and password"
	case http.StatusForbidden:
		hint = ", it refuses calls from this address (rpcallowip of bitcoind)"
	}
	return fmt.Sprintf("node %s: %s: HTTP status %d %s%s: %s",
		e.Node, e.Method, e.Status, http.StatusText(e.Status), hint, e.Body)
}

// Is reports whether target is [ErrUnauthorized] and the status says so.
func (e *HTTPError) Is(target error) bool {
	return target == ErrUnauthorized && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
}

// A ReplyError is a reply that is not JSON-RPC, or not of the shape that the call wants.
type ReplyError struct {
	Node   string // scheme and host
	Method string
	Reason string
	Body   string // how the reply begins, printable and cut short; never empty
}

// Error names the node, the method, what is wrong, and how the reply begins.
func (e *ReplyError) Error() string {
	return fmt.Sprintf("node %s: %s: %s; it sent %s", e.Node, e.Method, e.Reason, e.Body)
}

func success(status int) bool { return status >= 200 && status <= 208 }

// decodeReply returns the result in a reply's body, empty when there is none, or the error that the body or the HTTP
// status stands for. The result borrows from body.
func decodeReply(body []byte, status int) (json.RawMessage, error) {
	var reply struct {
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	var bad error
	switch first := firstByte(body); {
	case first == 0 && len(bytes.TrimSpace(body)) == 0:
		bad = &ReplyError{Reason: "an empty reply", Body: excerpt(body)}
	case first == '<':
		bad = &ReplyError{Reason: "a web page instead of JSON; is this the node's RPC port?", Body: excerpt(body)}
	case first != '{':
		bad = &ReplyError{Reason: "not a JSON object", Body: excerpt(body)}
	default:
		if err := json.Unmarshal(body, &reply); err != nil {
			bad = &ReplyError{Reason: "broken JSON: " + err.Error(), Body: excerpt(body)}
		}
	}
	if bad == nil && !null(reply.Error) {
		return nil, decodeError(reply.Error)
	}
	switch {
	case !success(status):
		return nil, &HTTPError{Status: status, Body: excerpt(body)}
	case bad != nil:
		return nil, bad
	case reply.Result == nil && reply.Error == nil:
		return nil, &ReplyError{Reason: "neither a result nor an error", Body: excerpt(body)}
	}
	return reply.Result, nil
}

// decodeError reads an error object; one that is of no known shape is its own message.
func decodeError(raw json.RawMessage) *RPCError {
	var e struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Code == 0 && e.Message == "" {
		return &RPCError{Message: excerpt(raw)}
	}
	return &RPCError{Code: e.Code, Message: printable(e.Message, maxMessage)}
}

const (
	maxExcerpt = 120
	maxMessage = 500
)

// excerpt quotes how b begins.
func excerpt(b []byte) string {
	if len(bytes.TrimSpace(b)) == 0 {
		return "nothing"
	}
	return `"` + printable(string(bytes.TrimSpace(b[:min(len(b), 4*maxExcerpt)])), maxExcerpt) + `"`
}

// printable makes one line of s, of at most about limit bytes, that cannot move a terminal's cursor.
func printable(s string, limit int) string {
	cut := len(s) > limit
	if cut {
		s = s[:limit]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError:
			return '.'
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return s
}

func null(raw json.RawMessage) bool { return len(raw) == 0 || bytes.Equal(raw, []byte("null")) }

// firstByte returns the first byte of b that is not white space, or 0.
func firstByte(b []byte) byte {
	for _, c := range b {
		switch c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}
