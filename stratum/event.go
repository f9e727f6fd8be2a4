package stratum

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/poolkit/poolkit/share"
)

// An Event says that a miner came or went, as BTCPool tells the rest of a pool on its common-events topic. An event is
// news for people and their web pages, not money: sinks may lose some.
type Event struct {
	Created    time.Time // when it happened; written in UTC, in whole seconds
	Action     EventAction
	Desc       EventDesc
	UserID     int32
	UserName   string
	WorkerID   int64 // share.Worker.ID of the machine
	WorkerName string
	Agent      string // what the miner calls its software
	IP         netip.Addr
	SessionID  uint32 // extranonce1, written as 8 hex digits
	ExtUserID  int32  // the user's own number where one account is credited for all ([SingleUser]); 0 when there is none
}

// An EventAction is what happened to the miner, spelled as in BTCPool's messages.
type EventAction string

// The actions there are.
const (
	MinerConnect EventAction = "miner_connect" // a worker was let in
	MinerDead    EventAction = "miner_dead"    // one that had been let in is gone
)

// An EventDesc is why it happened, spelled as in BTCPool's messages. Readers must expect others.
type EventDesc string

// The reasons that BTCPool gives.
const (
	NewConnection    EventDesc = "new_conn"
	ClosedConnection EventDesc = "del_conn"
	SwitchedChain    EventDesc = "switch_chain"  // dead on the old chain and connected on the new one
	ToldByAgent      EventDesc = "from_btcagent" // a machine behind a BTCAgent came, moved or went
)

const (
	eventTimeLayout = "2006-01-02 15:04:05" // UTC
	eventType       = "worker_update"
)

// AppendJSON appends the event as one JSON object without a line end, with the keys of BTCPool's message in its order.
// ext_user_id comes last and only when it is not 0.
func (e *Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"created_at":"`...)
	dst = e.Created.UTC().AppendFormat(dst, eventTimeLayout)
	dst = append(dst, `","type":"`+eventType+`","action":`...)
	dst = appendJSONString(dst, string(e.Action))
	dst = append(dst, `,"content":{"user_id":`...)
	dst = strconv.AppendInt(dst, int64(e.UserID), 10)
	dst = append(dst, `,"user_name":`...)
	dst = appendJSONString(dst, e.UserName)
	dst = append(dst, `,"worker_id":`...)
	dst = strconv.AppendInt(dst, e.WorkerID, 10)
	dst = append(dst, `,"worker_name":`...)
	dst = appendJSONString(dst, e.WorkerName)
	dst = append(dst, `,"miner_agent":`...)
	dst = appendJSONString(dst, e.Agent)
	dst = append(dst, `,"ip":"`...)
	if ip := e.IP.Unmap().WithZone(""); ip.IsValid() {
		dst = ip.AppendTo(dst)
	}
	dst = fmt.Appendf(dst, `","session_id":"%08x","desc":`, e.SessionID)
	dst = appendJSONString(dst, string(e.Desc))
	if e.ExtUserID != 0 {
		dst = append(dst, `,"ext_user_id":`...)
		dst = strconv.AppendInt(dst, int64(e.ExtUserID), 10)
	}
	return append(dst, "}}"...)
}

// appendJSONString appends s as a JSON string. Names and agents are filtered where they enter the server, so nearly all
// go the short way.
func appendJSONString(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // cannot fail for a string
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// MarshalJSON is AppendJSON for package json.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// UnmarshalJSON reads an event of AppendJSON, of BTCPool's last version, and of its first ones, which put the action
// into "type", call the agent "client_agent", and lack the worker's id and often the session: the id then follows from
// the worker's name, the session is 0, and so is what else is missing. An action that is not one of the constants is an
// error; keys that are not known are skipped. The event is changed only when there is no error.
func (e *Event) UnmarshalJSON(text []byte) error {
	var m struct {
		CreatedAt string  `json:"created_at"`
		Type      string  `json:"type"`
		Action    *string `json:"action"`
		Content   *struct {
			UserID      int32   `json:"user_id"`
			UserName    string  `json:"user_name"`
			WorkerID    *int64  `json:"worker_id"`
			WorkerName  string  `json:"worker_name"`
			MinerAgent  *string `json:"miner_agent"`
			ClientAgent string  `json:"client_agent"`
			IP          string  `json:"ip"`
			SessionID   string  `json:"session_id"`
			Desc        string  `json:"desc"`
			ExtUserID   int32   `json:"ext_user_id"`
		} `json:"content"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("stratum: read event: %w", err)
	}
	if m.Content == nil {
		return errors.New("stratum: read event: it has no content")
	}
	c := m.Content
	read := Event{
		Action: EventAction(m.Type), Desc: EventDesc(c.Desc),
		UserID: c.UserID, UserName: c.UserName, WorkerName: c.WorkerName,
		Agent: c.ClientAgent, ExtUserID: c.ExtUserID,
	}
	if m.Action != nil {
		read.Action = EventAction(*m.Action)
		if m.Type != eventType {
			return fmt.Errorf("stratum: read event: type %.40q is not %q", m.Type, eventType)
		}
	}
	if read.Action != MinerConnect && read.Action != MinerDead {
		return fmt.Errorf("stratum: read event: action %.40q is not known", read.Action)
	}
	if c.MinerAgent != nil {
		read.Agent = *c.MinerAgent
	}
	if c.WorkerID != nil {
		read.WorkerID = *c.WorkerID
	} else {
		read.WorkerID = share.Worker{Name: c.WorkerName}.ID()
	}
	var err error
	if read.Created, err = time.Parse(eventTimeLayout, m.CreatedAt); err != nil {
		return fmt.Errorf("stratum: read event: created_at: %w", err)
	}
	read.Created = read.Created.Truncate(time.Second) // Parse takes a fraction that the layout does not name
	if c.IP != "" {
		ip, err := netip.ParseAddr(c.IP)
		if err != nil {
			return fmt.Errorf("stratum: read event: ip: %w", err)
		}
		read.IP = ip.Unmap().WithZone("")
	}
	if c.SessionID != "" {
		id, err := strconv.ParseUint(c.SessionID, 16, 32)
		if err != nil {
			return fmt.Errorf("stratum: read event: session_id: %w", err)
		}
		read.SessionID = uint32(id)
	}
	*e = read
	return nil
}

// An EventSink takes events, to store or forward them. Every EventSink
//   - NeverBlocks: PutEvent is called on the goroutines of sessions, so it hands the event on without waiting for a
//     disk, a network or anybody else, and drops events rather than wait. The session is locked meanwhile, so it must
//     call neither the server nor a session;
//   - KeepsOrder: what it does not drop comes out in the order of calls, where they do not overlap;
//   - AllowsConcurrentCalls.
type EventSink interface {
	PutEvent(e Event)
}

// EventSinkFunc is a function as an EventSink.
type EventSinkFunc func(e Event)

// PutEvent calls f.
func (f EventSinkFunc) PutEvent(e Event) { f(e) }
