package sv1

import (
	"bytes"
	"strconv"
)

// A Message is what a server sent: a reply, or a notification or request. All slices borrow from the decoded line, or
// from constants, and must not be modified.
type Message struct {
	// ID is the raw JSON token of the id: in a reply that of the request, as the client wrote it. It is nil when the
	// id was null, missing or of a kind that is not echoed; notifications have none.
	ID []byte

	IsReply bool        // the line has a result or an error and no method
	Result  []byte      // of a reply: the raw JSON token; nil when missing or null
	Err     *ReplyError // of a reply: nil unless the server refused

	Method Method // of a notification or request, like the following
	Name   []byte
	Params []byte // a JSON array; "[]" when there were none
}

// Decode reads one line without its terminator, with the rules and errors of [Request.Decode].
func (m *Message) Decode(line []byte) error {
	*m = Message{Params: emptyParams}
	var e envelope
	if err := e.parse(line); err != nil {
		return err
	}
	m.ID = replyID(e.id)
	if isNull(e.method) && (e.result != nil || e.err != nil) {
		m.IsReply = true
		if !isNull(e.result) {
			m.Result = e.result
		}
		m.Err = replyError(e.err)
		return nil
	}
	var err error
	m.Method, m.Name, m.Params, err = e.call()
	return err
}

// Accepted reports whether m is a reply without error whose result is not false or null: whether a submit was
// accepted, or a login let in.
func (m *Message) Accepted() bool {
	return m.IsReply && m.Err == nil && m.Result != nil && !bytes.Equal(m.Result, []byte("false"))
}

// IDNumber returns the id as the number that the Append…Request functions take, if it is one.
func (m *Message) IDNumber() (id uint64, ok bool) {
	if isText(m.ID) {
		return 0, false
	}
	return jobNumber(m.ID)
}

// replyError reads an error as pools send it: [code, message, …], {"code":…, "message":…} as in JSON-RPC 2, or only a
// code or a message.
func replyError(tok []byte) *ReplyError {
	if isNull(tok) {
		return nil
	}
	r := &ReplyError{Code: CodeOther}
	setCode := func(tok []byte) {
		if n, err := strconv.ParseInt(textOrNumber(tok), 10, 32); err == nil {
			r.Code = int(n)
		}
	}
	setMessage := func(tok []byte) {
		s, _ := text(tok)
		r.Message = string(s)
	}
	switch tok[0] {
	case '[':
		e := over(tok)
		if code := e.next(); isText(code) && len(tok) > 2 {
			setMessage(code) // ["message"]
		} else {
			setCode(code)
			setMessage(e.next())
		}
	case '{':
		members(tok, func(key, value []byte) {
			switch name, _ := text(key); string(name) {
			case "code":
				setCode(value)
			case "message":
				setMessage(value)
			}
		})
	case '"':
		setMessage(tok)
	default:
		setCode(tok)
	}
	return r
}

// A SubscribeResult holds the result of mining.subscribe.
type SubscribeResult struct {
	SubscriptionID  string // what to send as [Subscribe.ResumeID] later; empty when the server named none
	Extranonce1     []byte // what goes between the first part of the coinbase and extranonce2; at most 32 bytes
	Extranonce2Size int    // in bytes, 1 to 100
}

// Decode reads the result of a reply to mining.subscribe. Extranonce1 is a copy.
func (s *SubscribeResult) Decode(result []byte) error {
	*s = SubscribeResult{}
	e := over(result)
	subscriptions := e.next()
	extranonce1, ok := hexBytes(e.next(), maxExtranonce1)
	size, sizeOK := count(e.next(), 1, maxExtranonce2)
	switch {
	case !e.finish():
		return errResult
	case !ok:
		return errExtranonce1
	case !sizeOK:
		return errSize
	}
	s.SubscriptionID = notifySubscription(subscriptions)
	s.Extranonce1, s.Extranonce2Size = extranonce1, size
	return nil
}

// notifySubscription returns the id next to "mining.notify" in a list of pairs, or in a single pair.
func notifySubscription(list []byte) string {
	e := over(list)
	for tok := e.next(); tok != nil; tok = e.next() {
		if tok[0] == '[' {
			if id := notifySubscription(tok); id != "" {
				return id
			}
		} else if name, _ := text(tok); string(name) == MethodNotify.String() {
			return textOrNumber(e.next())
		}
	}
	return ""
}

// Decode reads the result of a reply to mining.configure. An extension answered with anything but true counts as
// refused, and so does version rolling without a mask of 1 to 8 hex digits.
func (r *ConfigureResult) Decode(result []byte) error {
	*r = ConfigureResult{}
	var d ConfigureResult
	var mask bool
	ok := members(result, func(key, value []byte) {
		granted := bytes.Equal(value, []byte("true"))
		switch name, _ := text(key); string(name) {
		case ExtensionMinimumDifficulty:
			d.MinimumDifficulty = granted
		case ExtensionVersionRolling:
			d.VersionRolling = granted
		case ExtensionSubscribeExtranonce:
			d.SubscribeExtranonce = granted
		case ExtensionInfo:
			d.Info = granted
		case "version-rolling.mask":
			d.VersionMask, mask = hexToken(value)
		}
	})
	if !ok {
		return errResult
	}
	if !d.VersionRolling || !mask {
		d.VersionRolling, d.VersionMask = false, 0
	}
	*r = d
	return nil
}

// AppendConfigureRequest appends a mining.configure request that asks for the extensions set in c, with their
// parameters, and for those of c.Extensions that BIP 310 does not define.
func AppendConfigureRequest(dst []byte, id uint64, c *Configure) []byte {
	dst = appendRequestHead(dst, id, MethodConfigure)
	dst = append(dst, '[')
	name := func(set bool, name string) {
		if set {
			if dst[len(dst)-1] != '[' {
				dst = append(dst, ',')
			}
			dst = appendText(dst, name)
		}
	}
	name(c.VersionRolling, ExtensionVersionRolling)
	name(c.MinimumDifficulty, ExtensionMinimumDifficulty)
	name(c.SubscribeExtranonce, ExtensionSubscribeExtranonce)
	name(c.Info, ExtensionInfo)
	for _, extension := range c.Extensions {
		name(!knownExtension(extension), extension)
	}
	dst = append(dst, "],{"...)
	key := func(name string) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = appendText(dst, name)
		dst = append(dst, ':')
	}
	if c.VersionRolling {
		key("version-rolling.mask")
		dst = append(dst, '"')
		dst = appendHex32(dst, c.VersionRollingMask)
		dst = append(dst, '"')
		if c.VersionRollingMinBits > 0 {
			key("version-rolling.min-bit-count")
			dst = strconv.AppendInt(dst, int64(c.VersionRollingMinBits), 10)
		}
	}
	if c.MinimumDifficulty {
		key("minimum-difficulty.value")
		if c.MinimumDifficultyValue == 0 {
			dst = append(dst, '0')
		} else {
			dst = appendDifficulty(dst, c.MinimumDifficultyValue)
		}
	}
	if c.Info {
		for _, info := range [...]struct{ name, value string }{
			{"info.connection-url", c.ConnectionURL},
			{"info.hw-version", c.HWVersion},
			{"info.sw-version", c.SWVersion},
			{"info.hw-id", c.HWID},
		} {
			if info.value != "" {
				key(info.name)
				dst = appendText(dst, info.value)
			}
		}
	}
	return append(dst, "}"+notificationTail...)
}

// AppendSubscribeRequest appends a mining.subscribe request. A resume id is sent only with an agent.
func AppendSubscribeRequest(dst []byte, id uint64, s *Subscribe) []byte {
	dst = appendRequestHead(dst, id, MethodSubscribe)
	if s.Agent != "" {
		dst = appendText(dst, s.Agent)
		if s.ResumeID != "" {
			dst = append(dst, ',')
			dst = appendText(dst, s.ResumeID)
		}
	}
	return append(dst, notificationTail...)
}

// AppendAuthorizeRequest appends a mining.authorize request.
func AppendAuthorizeRequest(dst []byte, id uint64, a *Authorize) []byte {
	dst = appendRequestHead(dst, id, MethodAuthorize)
	dst = appendText(dst, a.User)
	dst = append(dst, ',')
	dst = appendText(dst, a.Password)
	return append(dst, notificationTail...)
}

// A SubmitRequest is a share as a client sends it, to any pool: other than [Submit] it has a job id of any text and an
// extranonce2 of any size.
type SubmitRequest struct {
	Worker         string
	JobID          string
	Extranonce2    []byte // in the order they go into the coinbase
	NTime          uint32
	Nonce          uint32
	VersionBits    uint32 // BIP 310: the rolled bits of the header's version
	HasVersionBits bool   // send VersionBits; only after version rolling was granted
}

// AppendSubmitRequest appends a mining.submit request.
func AppendSubmitRequest(dst []byte, id uint64, s *SubmitRequest) []byte {
	dst = appendRequestHead(dst, id, MethodSubmit)
	dst = appendText(dst, s.Worker)
	dst = append(dst, ',')
	dst = appendText(dst, s.JobID)
	dst = append(dst, `,"`...)
	dst = appendHex(dst, s.Extranonce2)
	dst = append(dst, `","`...)
	dst = appendHex32(dst, s.NTime)
	dst = append(dst, `","`...)
	dst = appendHex32(dst, s.Nonce)
	if s.HasVersionBits {
		dst = append(dst, `","`...)
		dst = appendHex32(dst, s.VersionBits)
	}
	return append(dst, `"`+notificationTail...)
}

// AppendSuggestDifficultyRequest appends a mining.suggest_difficulty request, with d written as by
// [AppendSetDifficulty].
func AppendSuggestDifficultyRequest(dst []byte, id uint64, d float64) []byte {
	dst = appendRequestHead(dst, id, MethodSuggestDifficulty)
	dst = appendDifficulty(dst, d)
	return append(dst, notificationTail...)
}

// AppendSuggestTargetRequest appends a mining.suggest_target request. The target is big-endian.
func AppendSuggestTargetRequest(dst []byte, id uint64, target *[32]byte) []byte {
	dst = appendRequestHead(dst, id, MethodSuggestTarget)
	dst = append(dst, '"')
	dst = appendHex(dst, target[:])
	return append(dst, `"`+notificationTail...)
}

// AppendExtranonceSubscribeRequest appends a mining.extranonce.subscribe request: the client can take
// mining.set_extranonce.
func AppendExtranonceSubscribeRequest(dst []byte, id uint64) []byte {
	return append(appendRequestHead(dst, id, MethodExtranonceSubscribe), notificationTail...)
}

// AppendGetTransactionsRequest appends a mining.get_transactions request for a job.
func AppendGetTransactionsRequest(dst []byte, id uint64, jobID string) []byte {
	dst = appendRequestHead(dst, id, MethodGetTransactions)
	dst = appendText(dst, jobID)
	return append(dst, notificationTail...)
}
