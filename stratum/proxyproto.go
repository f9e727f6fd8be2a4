package stratum

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// A balancer that forwards connections writes a PROXY protocol header in front of them, before TLS, that names the
// miner's own address. Version 1 is a line of text, version 2 binary (the protocol is HAProxy's, described in its
// proxy-protocol.txt):
//
//	PROXY TCP4 203.0.113.7 192.0.2.1 56324 3333\r\n
//
//	| 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A | 2c | ft | length, big-endian | source, destination, ports, TLVs |
//
// with c the command (0 LOCAL, 1 PROXY), f the family (1 IPv4, 2 IPv6, 3 Unix) and t the transport (1 stream, 2
// datagram). It counts only as the very first bytes of a connection from a trusted address: taken later, or from
// anybody, it would let a miner choose its own address.
const (
	proxyV1Max = 107 // the longest line of version 1, with its CRLF

	// proxyV2Max bounds a header of version 2. Senders must keep it within 536 bytes, the least that every TCP
	// carries in one segment.
	proxyV2Max = 536

	proxyV2Fixed = 16 // up to and with the length
)

var (
	proxyV1Signature = []byte("PROXY ")
	proxyV2Signature = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// parseProxy reads the PROXY protocol header that b begins with. It returns the miner's address and the header's
// length; a length of 0 without an error asks for more bytes, of which it never needs more than proxyV2Max in all. The
// address is the zero AddrPort where the header names none that a connection of ours could have (LOCAL, UNKNOWN, Unix
// sockets): the peer's own address then stands. IPv4 addresses written as IPv6 come back as IPv4.
func parseProxy(b []byte) (src netip.AddrPort, n int, err error) {
	switch {
	case begins(b, proxyV1Signature):
		return parseProxyV1(b)
	case begins(b, proxyV2Signature):
		return parseProxyV2(b)
	}
	return netip.AddrPort{}, 0, errors.New("stratum: proxy header: the connection does not begin with one")
}

// begins reports whether b and signature agree as far as both go.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

func parseProxyV1(b []byte) (src netip.AddrPort, n int, err error) {
	bad := func(format string, args ...any) (netip.AddrPort, int, error) {
		return netip.AddrPort{}, 0, fmt.Errorf("stratum: proxy header: version 1: "+format, args...)
	}
	line := b[:min(len(b), proxyV1Max)]
	end := bytes.IndexAny(line, "\r\n")
	switch {
	case end < 0 && len(line) < proxyV1Max:
		return netip.AddrPort{}, 0, nil
	case end == len(line)-1 && line[end] == '\r' && len(line) < proxyV1Max:
		return netip.AddrPort{}, 0, nil
	case end < 0 || end == len(line)-1 && line[end] == '\r':
		return bad("no end of line within %d bytes", proxyV1Max)
	case line[end] != '\r' || line[end+1] != '\n':
		return bad("the line does not end in CR LF")
	}
	n = end + 2
	protocol, rest, _ := strings.Cut(string(line[len(proxyV1Signature):end]), " ")
	switch protocol {
	case "UNKNOWN":
		return netip.AddrPort{}, n, nil // whatever follows is to be ignored
	case "TCP4", "TCP6":
	default:
		return bad("protocol %q is neither TCP4, TCP6 nor UNKNOWN", protocol)
	}
	fields := strings.Split(rest, " ")
	if len(fields) != 4 {
		return bad("%d fields after %s, want 4", len(fields), protocol)
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(fields[i])
		if err != nil || addr.Zone() != "" || addr.Is4() != (protocol == "TCP4") {
			return bad("%q is no address of %s", fields[i], protocol)
		}
		port, ok := parsePort(fields[2+i])
		if !ok {
			return bad("%q is no port", fields[2+i])
		}
		ends[i] = netip.AddrPortFrom(addr.Unmap(), port)
	}
	return ends[0], n, nil
}

// parsePort reads decimal digits without leading zeros, up to 65535.
func parsePort(s string) (port uint16, ok bool) {
	if s == "" || len(s) > 5 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	v := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = 10*v + int(c-'0')
	}
	return uint16(v), v <= 0xffff
}

func parseProxyV2(b []byte) (src netip.AddrPort, n int, err error) {
	bad := func(format string, args ...any) (netip.AddrPort, int, error) {
		return netip.AddrPort{}, 0, fmt.Errorf("stratum: proxy header: version 2: "+format, args...)
	}
	const local, proxy = 0x20, 0x21
	if len(b) > 12 && b[12] != local && b[12] != proxy {
		return bad("%#02x is no version and command", b[12])
	}
	if len(b) < proxyV2Fixed {
		return netip.AddrPort{}, 0, nil
	}
	n = proxyV2Fixed + int(binary.BigEndian.Uint16(b[14:]))
	if n > proxyV2Max {
		return bad("%d bytes, the most is %d", n, proxyV2Max)
	}
	// The sizes are those of both addresses and both ports. LOCAL, a health check of the balancer's own, comes with
	// any family and is about no miner.
	size := 0
	if b[12] == proxy {
		switch family := b[13]; family {
		case 0x00: // unspecified
		case 0x11:
			size = 2*4 + 2*2
		case 0x21:
			size = 2*16 + 2*2
		case 0x31:
			size = 2 * 108
		default:
			return bad("%#02x is no family that a stream comes with", family)
		}
	}
	if n < proxyV2Fixed+size {
		return bad("%d bytes are too few for family %#02x", n, b[13])
	}
	if len(b) < n {
		return netip.AddrPort{}, 0, nil
	}
	// What follows the addresses are TLVs, which say nothing that matters here.
	body := b[proxyV2Fixed:n]
	switch size {
	case 2*4 + 2*2:
		addr := netip.AddrFrom4([4]byte(body))
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(body[8:])), n, nil
	case 2*16 + 2*2:
		addr := netip.AddrFrom16([16]byte(body)).Unmap()
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(body[32:])), n, nil
	}
	return netip.AddrPort{}, n, nil
}
