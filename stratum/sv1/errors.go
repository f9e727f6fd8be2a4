package sv1

import (
	"errors"
	"fmt"
	"strconv"
)

// Errors of the decoders. They are compared with errors.Is: some are wrapped to say more.
var (
	// ErrSyntax is a line that is not a JSON object, or is nested more than 64 deep.
	ErrSyntax = errors.New("sv1: not a JSON object")

	// ErrBatch is a line that is a JSON array: a JSON-RPC batch, which Stratum does not have.
	ErrBatch = errors.New("sv1: JSON-RPC batch")

	// ErrParams is a request or a notification whose method or parameters have the wrong type, number or form. A
	// server answers it with CodeIllegalParams.
	ErrParams = errors.New("sv1: illegal params")

	// ErrJobID is a mining.submit that is well formed except for a job id that no server of ours hands out. A server
	// answers it with CodeJobNotFound.
	ErrJobID = errors.New("sv1: job id is not a decimal number")

	// ErrLineTooLong is a line above the limit of a Reader.
	ErrLineTooLong = errors.New("sv1: line too long")
)

// illegal makes the errors below, once: a decoder on the hot path allocates nothing even for a bad line.
func illegal(what string) error { return fmt.Errorf("%w: %s", ErrParams, what) }

var (
	errNotArray        = illegal("params are not an array")
	errMethod          = illegal("method is not a non-empty string")
	errSubmitCount     = illegal("mining.submit has fewer than 5 params")
	errSubmitSize      = illegal("extranonce2 size is not 1 to 8 bytes")
	errExtranonce2     = illegal("extranonce2 is not hex of the agreed size")
	errNTime           = illegal("ntime is not 8 hex digits")
	errNonce           = illegal("nonce is not 8 hex digits")
	errVersionBits     = illegal("version bits are not 1 to 8 hex digits")
	errExtensions      = illegal("mining.configure without a list of extension names")
	errExtensionCount  = illegal("mining.configure with too many extensions")
	errExtensionParams = illegal("mining.configure parameters are not an object")
	errDifficulty      = illegal("difficulty is not a positive number")
	errTarget          = illegal("target is not 64 hex digits, or is zero")
	errJob             = illegal("no job id")
	errVersionMask     = illegal("version mask is not 1 to 8 hex digits")
	errExtranonce1     = illegal("extranonce1 is not hex of at most 32 bytes")
	errSize            = illegal("extranonce2 size is not 1 to 100")
	errNotifyCount     = illegal("mining.notify has fewer than 9 params")
	errNotifyPrevHash  = illegal("previous hash is not 64 hex digits")
	errNotifyCoinbase  = illegal("coinbase part is not hex")
	errNotifyBranch    = illegal("merkle branch is not an array of 64 hex digits each")
	errNotifyNumber    = illegal("version, bits or ntime is not 1 to 8 hex digits")
	errNotifyClean     = illegal("clean jobs is not a boolean")
	errReconnect       = illegal("client.reconnect names no host and port")
	errMessageText     = illegal("client.show_message without a text")
	errResult          = illegal("result has the wrong form")
)

// Error codes of replies, as BTCPool numbers them; 20 to 25 are common to all pools.
const (
	CodeOther         = 20 // anything without a code of its own
	CodeJobNotFound   = 21 // the job is unknown or stale
	CodeDuplicate     = 22 // the share was submitted before
	CodeLowDifficulty = 23 // the hash is above the target of the job
	CodeUnauthorized  = 24 // mining.submit before mining.authorize
	CodeNotSubscribed = 25 // mining.authorize before mining.subscribe
	CodeIllegalMethod = 26 // no such method
	CodeIllegalParams = 27 // see ErrParams
	CodeBanned        = 28 // the address is banned
	CodeInvalidUser   = 29 // no such user
	CodeInternal      = 30 // the server's own fault
	CodeTimeTooOld    = 31 // ntime below what the block template allows
	CodeTimeTooNew    = 32 // ntime too far in the future
	CodeVersionMask   = 33 // version bits outside the agreed mask
)

// CodeText returns the words BTCPool sends with an error code, which some miners show to their users. A code that is
// not one of the constants gives those of CodeOther.
func CodeText(code int) string {
	switch code {
	case CodeJobNotFound:
		return "Job not found (=stale)"
	case CodeDuplicate:
		return "Duplicate share"
	case CodeLowDifficulty:
		return "Low difficulty"
	case CodeUnauthorized:
		return "Unauthorized worker"
	case CodeNotSubscribed:
		return "Not subscribed"
	case CodeIllegalMethod:
		return "Illegal method"
	case CodeIllegalParams:
		return "Illegal params"
	case CodeBanned:
		return "Ip banned"
	case CodeInvalidUser:
		return "Invalid username"
	case CodeInternal:
		return "Internal error"
	case CodeTimeTooOld:
		return "Time too old"
	case CodeTimeTooNew:
		return "Time too new"
	case CodeVersionMask:
		return "Invalid version mask"
	}
	return "Unknown"
}

// A ReplyError is the error member of a reply: what the server holds against a request.
type ReplyError struct {
	Code    int    // one of the Code constants, or a code of the server's own
	Message string // text for people, as it came; it may be empty and may hold anything
}

// Error returns the code and the message, quoted.
func (e *ReplyError) Error() string {
	return "sv1: error " + strconv.Itoa(e.Code) + " from the server: " + strconv.Quote(e.Message)
}
