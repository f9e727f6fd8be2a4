package sv1

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Subscribe holds the parameters of mining.subscribe. Both may be empty and may hold anything.
type Subscribe struct {
	Agent    string // name and version of the miner's software
	ResumeID string // id of the subscription the miner would like to go on with
}

// Decode reads params, which may be empty; those that are not strings count as empty. The host and port that some
// miners add are ignored.
func (s *Subscribe) Decode(params []byte) error {
	*s = Subscribe{}
	e := over(params)
	agent, _ := text(e.next())
	resume, _ := text(e.next())
	if !e.finish() {
		return errNotArray
	}
	s.Agent, s.ResumeID = string(agent), string(resume)
	return nil
}

// An Authorize holds the parameters of mining.authorize.
type Authorize struct {
	User     string // user and worker, such as "alice.rig01"; it may be empty and may hold anything
	Password string // options of the miner, or nothing of meaning
}

// Decode reads params. Missing ones, and those that are neither strings nor numbers, count as empty: an empty user is
// to be answered with CodeInvalidUser rather than CodeIllegalParams.
func (a *Authorize) Decode(params []byte) error {
	*a = Authorize{}
	e := over(params)
	user, password := textOrNumber(e.next()), textOrNumber(e.next())
	if !e.finish() {
		return errNotArray
	}
	a.User, a.Password = user, password
	return nil
}

// Names of the extensions of BIP 310.
const (
	ExtensionVersionRolling      = "version-rolling"
	ExtensionMinimumDifficulty   = "minimum-difficulty"
	ExtensionSubscribeExtranonce = "subscribe-extranonce"
	ExtensionInfo                = "info"
)

// MaxExtensions is how many extensions one mining.configure may name. BIP 310 defines four.
const MaxExtensions = 32

// A Configure holds the parameters of mining.configure, BIP 310. An extension whose own parameters cannot be read is
// named in Extensions but not set in its field, so that it is answered with false like an unknown one.
type Configure struct {
	Extensions []string // every extension asked for, in the miner's order and each once

	VersionRolling         bool
	VersionRollingMask     uint32 // the bits the miner can roll; all when it did not say
	VersionRollingMinBits  int    // how many bits the miner needs; 0 when it did not say, and some say 16 in vain
	MinimumDifficulty      bool
	MinimumDifficultyValue float64 // finite; 0 takes an earlier minimum back
	SubscribeExtranonce    bool

	Info          bool
	ConnectionURL string // info.connection-url: what the miner believes to be connected to
	HWVersion     string // info.hw-version
	SWVersion     string // info.sw-version
	HWID          string // info.hw-id
}

// Decode reads params: a list of names and an object, which may be missing, with the parameters of all of them. It
// returns [ErrParams] when the first is not a list of strings, holds more than [MaxExtensions] names, or the second is
// neither an object nor null.
func (c *Configure) Decode(params []byte) error {
	*c = Configure{}
	e := over(params)
	list, object := e.next(), e.next()
	if !e.finish() {
		return errNotArray
	}
	if isNull(list) {
		return errExtensions
	}
	names := over(list)
	for tok := names.next(); tok != nil; tok = names.next() {
		name, ok := text(tok)
		if !ok {
			return errExtensions
		}
		if slices.Contains(c.Extensions, string(name)) {
			continue
		}
		if len(c.Extensions) == MaxExtensions {
			return errExtensionCount
		}
		c.Extensions = append(c.Extensions, string(name))
	}
	if names.bad {
		return errExtensions
	}
	for _, name := range c.Extensions {
		switch name {
		case ExtensionVersionRolling:
			c.VersionRolling = true
			c.VersionRollingMask = math.MaxUint32
		case ExtensionMinimumDifficulty:
			c.MinimumDifficulty = true
			c.MinimumDifficultyValue = -1 // not given
		case ExtensionSubscribeExtranonce:
			c.SubscribeExtranonce = true
		case ExtensionInfo:
			c.Info = true
		}
	}
	if !isNull(object) && !members(object, c.set) {
		return errExtensionParams
	}
	if c.MinimumDifficultyValue < 0 {
		c.MinimumDifficulty, c.MinimumDifficultyValue = false, 0
	}
	if !c.VersionRolling {
		c.VersionRollingMask, c.VersionRollingMinBits = 0, 0
	}
	return nil
}

// set takes one parameter; those of an extension that was not asked for mean nothing.
func (c *Configure) set(key, value []byte) {
	name, _ := text(key)
	extension, _, _ := strings.Cut(string(name), ".")
	if !slices.Contains(c.Extensions, extension) {
		return
	}
	switch string(name) {
	case "version-rolling.mask":
		if isNull(value) {
			c.VersionRolling, c.VersionRollingMask = true, math.MaxUint32
		} else {
			c.VersionRollingMask, c.VersionRolling = hexToken(value)
		}
	case "version-rolling.min-bit-count":
		c.VersionRollingMinBits = 0
		if n, ok := number(value); ok && n >= 0 && n <= 32 {
			c.VersionRollingMinBits = int(n)
		}
	case "minimum-difficulty.value":
		c.MinimumDifficultyValue = -1
		if d, ok := number(value); ok && d >= 0 {
			c.MinimumDifficulty, c.MinimumDifficultyValue = true, math.Abs(d) // no negative zero
		}
	case "info.connection-url":
		c.ConnectionURL = textOrNumber(value)
	case "info.hw-version":
		c.HWVersion = textOrNumber(value)
	case "info.sw-version":
		c.SWVersion = textOrNumber(value)
	case "info.hw-id":
		c.HWID = textOrNumber(value)
	}
}

// A SuggestDifficulty holds the parameter of mining.suggest_difficulty.
type SuggestDifficulty struct {
	Difficulty float64 // positive and finite
}

// Decode reads params: one number, in quotes or not. It returns [ErrParams] when it is not positive and finite.
func (s *SuggestDifficulty) Decode(params []byte) error {
	var err error
	s.Difficulty, err = onePositive(params)
	return err
}

func onePositive(params []byte) (float64, error) {
	e := over(params)
	tok := e.next()
	if !e.finish() {
		return 0, errNotArray
	}
	d, ok := number(tok)
	if !ok || d <= 0 {
		return 0, errDifficulty
	}
	return d, nil
}

// A SuggestTarget holds the parameter of mining.suggest_target.
type SuggestTarget struct {
	Target [32]byte // big-endian: the first byte is the most significant, as in the text; not zero
}

// Decode reads params: 64 hex digits. It returns [ErrParams] for anything else and for zero.
func (s *SuggestTarget) Decode(params []byte) error {
	*s = SuggestTarget{}
	e := over(params)
	digits, _ := text(e.next())
	if !e.finish() {
		return errNotArray
	}
	if !decodeHex(s.Target[:], digits) || s.Target == [32]byte{} {
		s.Target = [32]byte{}
		return errTarget
	}
	return nil
}

// A GetTransactions holds the parameter of mining.get_transactions.
type GetTransactions struct {
	Job string // the id of a job; it may hold anything
}

// Decode reads params: a job id, in quotes or a bare number.
func (g *GetTransactions) Decode(params []byte) error {
	*g = GetTransactions{}
	e := over(params)
	job := textOrNumber(e.next())
	if !e.finish() {
		return errNotArray
	}
	if job == "" {
		return errJob
	}
	g.Job = job
	return nil
}

// A SetDifficulty holds the parameter of mining.set_difficulty. It applies from the next mining.notify.
type SetDifficulty struct {
	Difficulty float64 // positive and finite
}

// Decode reads params: one number, in quotes or not. It returns [ErrParams] when it is not positive and finite.
func (s *SetDifficulty) Decode(params []byte) error {
	var err error
	s.Difficulty, err = onePositive(params)
	return err
}

// A SetVersionMask holds the parameter of mining.set_version_mask, BIP 310. It applies at once.
type SetVersionMask struct {
	Mask uint32 // the bits of a header's version that the miner may roll
}

// Decode reads params: 1 to 8 hex digits.
func (s *SetVersionMask) Decode(params []byte) error {
	*s = SetVersionMask{}
	e := over(params)
	mask, ok := hexToken(e.next())
	if !e.finish() {
		return errNotArray
	}
	if !ok {
		return errVersionMask
	}
	s.Mask = mask
	return nil
}

// Bounds of what a client takes from a server.
const (
	maxExtranonce1 = 32
	maxExtranonce2 = 100
)

// A SetExtranonce holds the parameters of mining.set_extranonce. It applies from the next mining.notify.
type SetExtranonce struct {
	Extranonce1     []byte // what goes between the first part of the coinbase and extranonce2; at most 32 bytes
	Extranonce2Size int    // in bytes, 1 to 100
}

// Decode reads params: hex digits and a size. Extranonce1 is a copy.
func (s *SetExtranonce) Decode(params []byte) error {
	*s = SetExtranonce{}
	e := over(params)
	extranonce1, ok := hexBytes(e.next(), maxExtranonce1)
	size, sizeOK := count(e.next(), 1, maxExtranonce2)
	switch {
	case !e.finish():
		return errNotArray
	case !ok:
		return errExtranonce1
	case !sizeOK:
		return errSize
	}
	s.Extranonce1, s.Extranonce2Size = extranonce1, size
	return nil
}

// count reads a whole number from lo to hi.
func count(tok []byte, lo, hi int) (int, bool) {
	if len(tok) > 10 {
		return 0, false
	}
	n, err := strconv.Atoi(string(tok))
	return n, err == nil && n >= lo && n <= hi
}

// A Reconnect holds the parameters of client.reconnect. A client that follows it to a host of another domain hands its
// hashrate to whoever can write on the connection.
type Reconnect struct {
	Host        string // empty: the same host again
	Port        int    // 0: the same port again
	WaitSeconds int    // how long to wait first, at most a day
}

// Decode reads params: nothing, or a host, a port and perhaps a wait in seconds, as numbers or strings.
func (r *Reconnect) Decode(params []byte) error {
	*r = Reconnect{}
	e := over(params)
	host, port, wait := e.next(), e.next(), e.next()
	if !e.finish() {
		return errNotArray
	}
	if host == nil {
		return nil
	}
	name, ok := text(host)
	n, portOK := count([]byte(textOrNumber(port)), 1, math.MaxUint16)
	if !ok || len(name) == 0 || !portOK {
		return errReconnect
	}
	r.Host, r.Port = string(name), n
	if seconds, ok := number(wait); ok {
		r.WaitSeconds = int(min(max(seconds, 0), 24*60*60))
	}
	return nil
}

// A ShowMessage holds the parameter of client.show_message.
type ShowMessage struct {
	Text string // for people; it may hold anything
}

// Decode reads params: one string.
func (s *ShowMessage) Decode(params []byte) error {
	*s = ShowMessage{}
	e := over(params)
	words, ok := text(e.next())
	if !e.finish() {
		return errNotArray
	}
	if !ok {
		return errMessageText
	}
	s.Text = string(words)
	return nil
}
