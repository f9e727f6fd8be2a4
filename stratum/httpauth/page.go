package httpauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/poolkit/poolkit/share"
)

// A page is one answer of the API, or a cache file, which has the same form.
type page struct {
	list    string // in cache files, what says which URL they are of
	users   []listed
	highest int32 // of the numbers that are any good
	bad     int   // entries that name nobody, or give no number that a user can have
}

type listed struct {
	name string // as the list spells it
	id   int32  // 0 for a number that no user can have
}

// An apiError is an answer that says no.
type apiError struct {
	no  string
	msg string
}

func (e *apiError) Error() string { return fmt.Sprintf("the list says err_no %s, %q", e.no, e.msg) }

var (
	errNoData   = errors.New("the answer has no data")
	errTooLarge = errors.New("the answer is too large")
)

// decodePage reads an answer of at most maxBytes and maxUsers.
func decodePage(r io.Reader, maxBytes int64, maxUsers int) (*page, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > maxBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, maxBytes)
	}
	answer := struct {
		No   json.RawMessage `json:"err_no"`
		Msg  json.RawMessage `json:"err_msg"`
		List json.RawMessage `json:"list"`
		Data users           `json:"data"`
	}{Data: users{max: maxUsers}}
	if err := json.Unmarshal(text, &answer); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) {
			err = errors.New("the answer is not in the form of a list")
		}
		return nil, err
	}
	if no := string(answer.No); no != "" && no != "null" && no != "0" {
		return nil, &apiError{clip(no), clip(textOf(answer.Msg))}
	}
	if answer.Data.err != nil {
		return nil, answer.Data.err
	}
	if !answer.Data.present {
		return nil, errNoData
	}
	p := answer.Data.page
	p.list = textOf(answer.List)
	return &p, nil
}

func textOf(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s) // whatever is no text says nothing
	return s
}

// users reads the value of "data": an object of names and numbers, an empty array, or null, which is no data. It goes
// through the text itself: by the tokens of package json it took four times as long, with eleven allocations a user
// instead of one, and a list of a million that is served in one piece comes by every ten seconds.
type users struct {
	page
	max     int
	present bool
	err     error // what is wrong with it, for after err_no has been looked at
}

// UnmarshalJSON implements [json.Unmarshaler]. The text is known to be JSON, which is all that finding the ends of names
// and numbers relies on.
func (u *users) UnmarshalJSON(text []byte) error {
	switch {
	case u.present:
		u.err = errors.New("the answer has data twice")
		return nil
	case string(text) == "null":
		return nil
	case text[0] == '[' && len(bytes.TrimSpace(text[1:len(text)-1])) > 0:
		u.err = errors.New("data is an array with something in it")
		return nil
	case text[0] == '[':
		u.present = true
		return nil
	case text[0] != '{':
		u.err = errors.New("data is not an object")
		return nil
	}
	u.present = true
	for i := 1; ; {
		for text[i] != '"' {
			if text[i] == '}' {
				return nil
			}
			i++ // a space or a comma
		}
		end := endOfString(text, i)
		name, err := unquote(text[i:end])
		if err != nil {
			return err
		}
		for i = end; text[i] == ':' || isSpace(text[i]); i++ {
		}
		end = endOfValue(text, i)
		if len(u.users) == u.max {
			u.err = fmt.Errorf("%w: more than %d users", errTooLarge, u.max)
			return nil
		}
		u.add(name, text[i:end])
		i = end
	}
}

func (p *page) add(name string, number []byte) {
	e := listed{name: name}
	if len(number) <= len("2147483647") { // and what is shorter needs no copy
		if id, err := strconv.ParseInt(string(number), 10, 32); err == nil && id > 0 {
			e.id = int32(id)
		}
	}
	p.highest = max(p.highest, e.id)
	usable := e.name != "" && len(e.name) <= share.MaxUserName
	if e.id == 0 || !usable {
		p.bad++
	}
	if usable {
		p.users = append(p.users, e)
	}
}

// endOfString returns the index after the string that begins at i.
func endOfString(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// endOfValue returns the index after the value of a member that begins at i: where the member ends, or a space.
func endOfValue(text []byte, i int) int {
	for depth := 0; ; i++ {
		switch c := text[i]; {
		case c == '"':
			i = endOfString(text, i) - 1
		case c == '{' || c == '[':
			depth++
		case depth > 0 && (c == '}' || c == ']'):
			depth--
		case depth == 0 && (c == '}' || c == ',' || isSpace(c)):
			return i
		}
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func unquote(quoted []byte) (string, error) {
	for _, c := range quoted[1 : len(quoted)-1] {
		if c == '\\' || c > '~' {
			var s string
			err := json.Unmarshal(quoted, &s)
			return s, err
		}
	}
	return string(quoted[1 : len(quoted)-1]), nil
}

func clip(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}
