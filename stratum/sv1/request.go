package sv1

import "bytes"

// A Request is what a miner sent: a request or, when IsReply is set, its answer to something the server asked. All
// slices borrow from the decoded line, or from constants, and must not be modified.
type Request struct {
	// ID is the raw JSON token to answer with: a number or a string exactly as it came. It is nil, and answered with
	// null, when the id was missing, anything else, or a string with control characters or invalid UTF-8.
	ID []byte

	Method  Method
	Name    []byte // the method as the miner spelled it; it may hold anything
	Params  []byte // a JSON array; "[]" when the request had none
	IsReply bool   // the line has a result or an error and no method
	Result  []byte // of a reply, the raw JSON token of its result; nil when it had none
}

var (
	emptyParams           = []byte("[]")[:2:2]
	suggestDifficultyCall = []byte("mining.suggest_difficulty(")
)

// Decode reads one line without its terminator. It returns [ErrSyntax] for a line that is not a JSON object,
// [ErrBatch] for a JSON array, and [ErrParams] for a method that is not a non-empty string or params that are not an
// array; missing params and null are an empty array. With ErrParams the ID is set, so that it can be answered. Of a
// key that comes more than once the last one counts.
//
// A method spelled "mining.suggest_difficulty(2048)", as some firmware does, reads as mining.suggest_difficulty with
// the params [2048].
func (r *Request) Decode(line []byte) error {
	*r = Request{Params: emptyParams}
	var e envelope
	if err := e.parse(line); err != nil {
		return err
	}
	r.ID = replyID(e.id)
	if isNull(e.method) && (e.result != nil || e.err != nil) {
		r.IsReply = true
		r.Result = e.result
		return nil
	}
	var err error
	r.Method, r.Name, r.Params, err = e.call()
	return err
}

// call returns what a line with a method calls.
func (e *envelope) call() (m Method, name, params []byte, err error) {
	params = emptyParams
	name, ok := text(e.method)
	if !ok || len(name) == 0 {
		return MethodUnknown, nil, params, errMethod
	}
	m = methodOf(name)
	if !isNull(e.params) {
		if e.params[0] != '[' {
			return m, name, params, errNotArray
		}
		params = e.params
	}
	if arg, ok := bytes.CutPrefix(name, suggestDifficultyCall); ok && m == MethodUnknown {
		if arg, ok = bytes.CutSuffix(arg, []byte(")")); ok {
			m = MethodSuggestDifficulty
			arg = bytes.TrimSpace(arg)
			given := over(params)
			if given.next() == nil && len(arg) != 0 && skipValue(arg, 0, maxDepth) == len(arg) {
				params = append(append([]byte{'['}, arg...), ']')
			}
		}
	}
	return m, name, params, nil
}

// replyID returns the token of an id if it is one to echo.
func replyID(tok []byte) []byte {
	if len(tok) == 0 {
		return nil
	}
	if tok[0] == '-' || isDigit(tok[0]) || tok[0] == '"' && printable(tok) {
		return tok
	}
	return nil
}
