package stratum

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/poolkit/poolkit/stratum/sv1"
)

// What comes before the first request of a connection, in this order.
type stage uint8

const (
	stageProxy stage = iota // a PROXY protocol header, from a balancer that we trust
	stageSniff              // TLS, or not
	stageOpen               // requests
)

var (
	errNoProxyHeader = errors.New("a trusted proxy sent no PROXY protocol header")
	errPlain         = errors.New("the port speaks TLS only")
)

// preface handles what comes before requests and returns what is left of data. more says that data begins something
// that has not come in whole. Each step is decided by the first bytes alone, so that a miner who sends its requests in
// pieces loses none.
func (s *Session) preface(sc *scratch, data []byte) (rest []byte, more bool, err error) {
	if s.stage == stageProxy {
		src, n, err := parseProxy(data)
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", errNoProxyHeader, err)
		}
		if n == 0 {
			return data, true, nil
		}
		if src.IsValid() {
			s.mu.Lock()
			s.remote = src
			s.mu.Unlock()
		}
		s.stage = stageSniff
		if err := s.meet(); err != nil {
			return nil, false, err
		}
		if data = data[n:]; len(data) == 0 {
			return nil, false, nil
		}
	}
	k := classify(data[:min(len(data), sniffMax)])
	switch {
	case k == needMore:
		return data, true, nil
	case k == kindTLS && s.port.TLS != nil && !s.secured:
		// The hello has been read already and is read again by the handshake, which the next read begins.
		s.out.secure(tls.Server(&prefixConn{Conn: s.out.conn, prefix: bytes.Clone(data)}, s.port.TLS))
		s.secured = true
		return nil, false, nil
	case k == kindLine && s.port.RequireTLS && !s.secured:
		s.lastWords(refusalOf(kindLine))
		return nil, false, errPlain
	case k != kindLine:
		s.lastWords(refusalOf(k))
		s.srv.counters.malformed.Add(1)
		return nil, false, fmt.Errorf("%w but %v", errNotStratum, k)
	}
	s.stage = stageOpen
	return data, false, nil
}

// lastWords writes what a peer is told before it is closed.
func (s *Session) lastWords(text string) {
	switch { // it is being closed, whatever becomes of this
	case text == "":
	case s.out.raw != nil:
		_ = s.out.push([]byte(text)) // nobody is made to wait for it
	default:
		_ = s.out.write([]byte(text))
	}
}

// meet asks the guard about the address, once that is known.
func (s *Session) meet() error {
	if r := s.srv.guard.connect(&s.guard, s.remote.Addr(), s.srv.clock(time.Now())); r != nil {
		s.lastWords(string(sv1.AppendError(nil, nil, r.code, r.text)))
		return r
	}
	s.greeted = true
	if hook := s.srv.opts.Hooks.Connected; hook != nil {
		hook(s)
	}
	return nil
}

// clock returns a time as the guard counts it, which no setting of the clock can change.
func (s *Server) clock(now time.Time) int64 { return int64(now.Sub(s.made)) }

// plainPort is the Port of listeners that are none.
var plainPort = &Port{}

func portOf(ln any) *Port {
	switch p := ln.(type) {
	case *Port:
		return p
	case Port:
		return &p
	}
	return plainPort
}

// trustedPeer reports whether a connection from addr begins with a PROXY protocol header.
func (p *Port) trustedPeer(addr netip.AddrPort) bool {
	return len(p.TrustedProxies) > 0 && p.trusted(addr.Addr())
}
