package stratum

import (
	"fmt"
	"net"
)

// A kind is what the first bytes of a connection show it to be.
type kind uint8

const (
	needMore  kind = iota // the bytes so far begin several kinds
	kindLine              // a Stratum request, or the blank space in front of one
	kindFrame             // a BTCAgent frame
	kindTLS               // a TLS ClientHello
	kindHTTP              // a browser, a crawler, a health check
	kindProxy             // a PROXY protocol header
	kindJunk              // none of these
	numOfKinds
)

func (k kind) String() string {
	switch k {
	case needMore:
		return "nothing yet"
	case kindLine:
		return "Stratum"
	case kindFrame:
		return "a BTCAgent frame"
	case kindTLS:
		return "TLS"
	case kindHTTP:
		return "HTTP"
	case kindProxy:
		return "a PROXY protocol header"
	case kindJunk:
		return "junk"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// sniffMax bytes are always enough to classify.
const sniffMax = 12

// httpStarts are how requests of HTTP/1 and the preface of HTTP/2 begin.
var httpStarts = [...]string{
	"GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "CONNECT ", "TRACE ", "PRI * ",
}

// classify tells what a connection is from its first bytes, at most sniffMax of them. A longer look never changes a
// verdict other than needMore. All but a handful of connections are decided by the first byte: only 'P', a carriage
// return and the like begin several kinds.
func classify(first []byte) kind {
	if len(first) == 0 {
		return needMore
	}
	switch c := first[0]; c {
	case '{', ' ', '\t', '\n':
		return kindLine
	case 0x7f:
		return kindFrame
	case 0x16: // a TLS record of type handshake, whose version is 3.x whatever is spoken later (RFC 8446, 5.1)
		switch {
		case len(first) < 2:
			return needMore
		case first[1] == 3:
			return kindTLS
		}
		return kindJunk
	case '\r':
		// Empty lines are ignored, and the signature of PROXY version 2 begins with two.
		switch {
		case !begins(first, proxyV2Signature):
			return kindLine
		case len(first) >= len(proxyV2Signature):
			return kindProxy
		}
		return needMore
	}
	if begins(first, proxyV1Signature) {
		if len(first) >= len(proxyV1Signature) {
			return kindProxy
		}
		return needMore
	}
	for _, start := range httpStarts {
		if begins(first, []byte(start)) {
			if len(first) >= len(start) {
				return kindHTTP
			}
			return needMore
		}
	}
	return kindJunk
}

// Refusals. Whoever sees one is an operator with a miner's or a browser's log in front of him, so they say what the
// port is for. A TLS client cannot read plain text as such, but its log or a packet dump shows it.
const (
	refusedTLS = `{"id":null,"result":null,"error":[20,"this port does not speak TLS: use stratum+tcp://",null]}` + "\n"

	refusedPlain = `{"id":null,"result":null,"error":[20,"this port speaks TLS only: use stratum+ssl://",null]}` + "\n"

	httpRefusal = "This port speaks Stratum, the protocol of mining machines, not HTTP.\n" +
		"Point a miner at it: stratum+tcp://, or stratum+ssl:// where TLS is offered.\n"
)

var refusedHTTP = fmt.Sprintf("HTTP/1.1 400 Bad Request\r\n"+
	"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
	len(httpRefusal), httpRefusal)

// refusalOf returns what is written to a connection of kind k before it is closed on a port that does not serve that
// kind. It is empty where nothing could be understood, and must not be changed.
func refusalOf(k kind) string {
	switch k {
	case kindTLS:
		return refusedTLS
	case kindHTTP:
		return refusedHTTP
	case kindLine:
		return refusedPlain
	}
	return ""
}

// A prefixConn is a connection of which some bytes have been read already: they are read once more, then it is the
// connection. Like a TLS connection it hides the descriptor beneath, which knows nothing of the bytes.
type prefixConn struct {
	net.Conn
	prefix []byte // still to be read; borrowed until it has been
}

func (c *prefixConn) Read(b []byte) (int, error) {
	if len(c.prefix) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.prefix)
	if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
		c.prefix = nil // let go of the array
	}
	return n, nil
}

// NetConn returns the connection beneath, for its socket options; tls.Conn has a method of this name too.
func (c *prefixConn) NetConn() net.Conn { return c.Conn }
