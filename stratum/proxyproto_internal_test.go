package stratum

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func appendProxyV1(dst []byte, src, to netip.AddrPort) []byte {
	protocol := "TCP4 "
	if src.Addr().Is6() {
		protocol = "TCP6 "
	}
	dst = append(append(dst, "PROXY "...), protocol...)
	dst = append(src.Addr().AppendTo(dst), ' ')
	dst = append(to.Addr().AppendTo(dst), ' ')
	_, port, _ := strings.Cut(netip.AddrPortFrom(netip.IPv4Unspecified(), src.Port()).String(), ":")
	dst = append(append(dst, port...), ' ')
	_, port, _ = strings.Cut(netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port()).String(), ":")
	return append(append(dst, port...), "\r\n"...)
}

func appendProxyV2(dst []byte, src, to netip.AddrPort, tlvs []byte) []byte {
	family, body := byte(0x11), append(src.Addr().AsSlice(), to.Addr().AsSlice()...)
	if src.Addr().Is6() {
		family = 0x21
	}
	body = binary.BigEndian.AppendUint16(body, src.Port())
	body = binary.BigEndian.AppendUint16(body, to.Port())
	return appendProxyV2Raw(dst, 0x21, family, append(body, tlvs...))
}

func appendProxyV2Raw(dst []byte, command, family byte, body []byte) []byte {
	dst = append(append(dst, proxyV2Signature...), command, family)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(body)))
	return append(dst, body...)
}

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(t, err)
	return b
}

// The bytes are written out by hand from the protocol's description, not by the encoders above.
var proxyHeaders = []struct {
	name string
	text string // version 1
	hex  string // version 2
	src  string // "" is the peer's own
}{
	{name: "v1 IPv4", text: "PROXY TCP4 203.0.113.7 192.0.2.1 56324 3333\r\n", src: "203.0.113.7:56324"},
	{name: "v1 IPv4 at its longest", text: "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", src: "255.255.255.255:65535"},
	{name: "v1 IPv6", text: "PROXY TCP6 2001:db8::7 2001:db8::1 1 3333\r\n", src: "[2001:db8::7]:1"},
	{name: "v1 IPv6 at its longest", text: "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		src: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
	{name: "v1 IPv4 as IPv6", text: "PROXY TCP6 ::ffff:203.0.113.7 ::1 0 3333\r\n", src: "203.0.113.7:0"},
	{name: "v1 unknown, short", text: "PROXY UNKNOWN\r\n"},
	{name: "v1 unknown, with addresses to ignore", text: "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"},
	{name: "v1 unknown, with 107 bytes", text: "PROXY UNKNOWN " + strings.Repeat("x", 107-14-2) + "\r\n"},

	{name: "v2 IPv4", hex: "0d0a0d0a000d0a515549540a 21 11 000c cb007107 c0000201 dc04 0d05", src: "203.0.113.7:56324"},
	{name: "v2 IPv4 with TLVs", hex: "0d0a0d0a000d0a515549540a 21 11 0013 cb007107 c0000201 dc04 0d05 04 0004 00000000", src: "203.0.113.7:56324"},
	{name: "v2 IPv6", hex: "0d0a0d0a000d0a515549540a 21 21 0024 20010db8000000000000000000000007 20010db8000000000000000000000001 dc04 0d05",
		src: "[2001:db8::7]:56324"},
	{name: "v2 IPv4 as IPv6", hex: "0d0a0d0a000d0a515549540a 21 21 0024 00000000000000000000ffffcb007107 00000000000000000000ffffc0000201 dc04 0d05",
		src: "203.0.113.7:56324"},
	{name: "v2 local", hex: "0d0a0d0a000d0a515549540a 20 00 0000"},
	{name: "v2 local with an address to ignore", hex: "0d0a0d0a000d0a515549540a 20 11 000c cb007107 c0000201 dc04 0d05"},
	{name: "v2 local of a family that does not exist", hex: "0d0a0d0a000d0a515549540a 20 f7 0001 00"},
	{name: "v2 unspecified", hex: "0d0a0d0a000d0a515549540a 21 00 0003 010203"},
	{name: "v2 Unix", hex: "0d0a0d0a000d0a515549540a 21 31 00d8" + strings.Repeat("2f", 216)},
	{name: "v2 of 536 bytes", hex: "0d0a0d0a000d0a515549540a 21 11 0208 cb007107 c0000201 dc04 0d05" + strings.Repeat("00", 508),
		src: "203.0.113.7:56324"},
}

func TestProxyHeaders(t *testing.T) {
	for _, test := range proxyHeaders {
		t.Run(test.name, func(t *testing.T) {
			header := []byte(test.text)
			if test.hex != "" {
				header = unhex(t, test.hex)
			}
			var want netip.AddrPort
			if test.src != "" {
				want = netip.MustParseAddrPort(test.src)
			}
			// Whatever follows belongs to the miner, and however the bytes come in the verdict is the same.
			for _, after := range []string{"", "\n", "{\"id\":1}\n", "\r\n", strings.Repeat("\xff", 600)} {
				all := append(header[:len(header):len(header)], after...)
				for n := range all {
					src, size, err := parseProxy(all[:n])
					require.NoError(t, err, "after %d bytes", n)
					if n < len(header) {
						require.Zero(t, size, "after %d bytes", n)
						require.Zero(t, src, "after %d bytes", n)
					} else {
						require.Equal(t, len(header), size, "after %d bytes", n)
						require.Equal(t, want, src, "after %d bytes", n)
					}
				}
				src, size, err := parseProxy(all)
				require.NoError(t, err)
				require.Equal(t, len(header), size)
				require.Equal(t, want, src)
			}
		})
	}
}

func TestProxyHeadersThatAreRefused(t *testing.T) {
	const sig = "0d0a0d0a000d0a515549540a"
	for _, test := range []struct {
		name string
		text string
		hex  string
		says string
	}{
		{name: "a request", text: "{", says: "does not begin with one"},
		{name: "a TLS hello", text: "\x16\x03", says: "does not begin with one"},
		{name: "small letters", text: "proxy TCP4", says: "does not begin with one"},
		{name: "a blank line, then a request", text: "\r\n{", says: "does not begin with one"},
		{name: "no protocol", text: "PROXY \r\n", says: `protocol ""`},
		{name: "an unknown protocol", text: "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", says: `protocol "UDP4"`},
		{name: "a protocol of small letters", text: "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n", says: `protocol "tcp4"`},
		{name: "two spaces after the token", text: "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n", says: `protocol ""`},
		{name: "two spaces between fields", text: "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n", says: "5 fields"},
		{name: "a space at the end", text: "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", says: "5 fields"},
		{name: "a port missing", text: "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", says: "3 fields"},
		{name: "nothing after TCP4", text: "PROXY TCP4\r\n", says: "1 fields"},
		{name: "IPv6 as TCP4", text: "PROXY TCP4 ::1 ::1 1 2\r\n", says: `"::1" is no address of TCP4`},
		{name: "IPv4 as TCP6", text: "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", says: `"1.1.1.1" is no address of TCP6`},
		{name: "a destination that is none", text: "PROXY TCP4 1.1.1.1 pool 1 2\r\n", says: `"pool" is no address`},
		{name: "an address with leading zeros", text: "PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n", says: "no address"},
		{name: "an address with a zone", text: "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", says: "no address"},
		{name: "a port of 65536", text: "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", says: `"65536" is no port`},
		{name: "a port of six digits", text: "PROXY TCP4 1.1.1.1 2.2.2.2 100000 2\r\n", says: `"100000" is no port`},
		{name: "a port with leading zeros", text: "PROXY TCP4 1.1.1.1 2.2.2.2 0080 2\r\n", says: `"0080" is no port`},
		{name: "a port with a sign", text: "PROXY TCP4 1.1.1.1 2.2.2.2 +80 2\r\n", says: `"+80" is no port`},
		{name: "a destination port that is none", text: "PROXY TCP4 1.1.1.1 2.2.2.2 80 x\r\n", says: `"x" is no port`},
		{name: "a line feed alone", text: "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", says: "CR LF"},
		{name: "a carriage return alone", text: "PROXY UNKNOWN\rx", says: "CR LF"},
		{name: "no end in 107 bytes", text: "PROXY UNKNOWN " + strings.Repeat("x", 107-14), says: "107"},
		{name: "an end after 108 bytes", text: "PROXY UNKNOWN " + strings.Repeat("x", 108-14-2) + "\r\n", says: "107"},

		{name: "version 1 in binary", hex: sig + "11", says: "0x11"},
		{name: "version 3", hex: sig + "31", says: "0x31"},
		{name: "a command that does not exist", hex: sig + "22", says: "0x22"},
		{name: "datagrams", hex: sig + "21 12 000c 01010101 02020202 0001 0002", says: "0x12"},
		{name: "a family without a transport", hex: sig + "21 10 000c", says: "0x10"},
		{name: "a family that does not exist", hex: sig + "21 41 000c", says: "0x41"},
		{name: "too short for IPv4", hex: sig + "21 11 000b", says: "too few"},
		{name: "too short for IPv6", hex: sig + "21 21 0023", says: "too few"},
		{name: "too short for Unix", hex: sig + "21 31 00d7", says: "too few"},
		{name: "537 bytes", hex: sig + "21 11 0209", says: "537"},
		{name: "64 KiB of a local command", hex: sig + "20 00 ffff", says: "the most is 536"},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := []byte(test.text)
			if test.hex != "" {
				header = unhex(t, test.hex)
			}
			src, n, err := parseProxy(header)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "stratum: proxy header: ")
			require.Zero(t, n)
			require.Zero(t, src)
			// No beginning of it may be taken for a header.
			for i := range header {
				_, n, _ := parseProxy(header[:i])
				require.Zero(t, n, "after %d bytes", i)
			}
		})
	}
}

func TestWhatIsEncodedIsReadBack(t *testing.T) {
	for _, s := range []string{"1.2.3.4:5", "255.0.0.1:65535", "[2001:db8::1]:3333", "[::]:0"} {
		src := netip.MustParseAddrPort(s)
		for _, b := range [][]byte{appendProxyV1(nil, src, src), appendProxyV2(nil, src, src, []byte{4, 0, 1, 0})} {
			got, n, err := parseProxy(b)
			require.NoError(t, err)
			require.Equal(t, len(b), n)
			require.Equal(t, src, got)
		}
	}
}

// The bytes of a header decide alone: what follows them, and how they are cut, never does.
func FuzzParseProxy(f *testing.F) {
	for _, test := range proxyHeaders {
		if test.hex != "" {
			f.Add(unhex(f, test.hex))
		}
		f.Add([]byte(test.text))
	}
	f.Add([]byte("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r"))
	f.Add(appendProxyV2Raw(nil, 0x21, 0x12, make([]byte, 12)))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, n, err := parseProxy(b)
		if err != nil || n == 0 {
			require.Zero(t, n)
			require.Zero(t, src)
			if err == nil {
				require.Less(t, len(b), proxyV2Max, "a header that needs more than its bound")
			}
			return
		}
		require.LessOrEqual(t, n, len(b))
		require.LessOrEqual(t, n, proxyV2Max)
		require.False(t, src.Addr().Is4In6())
		require.Empty(t, src.Addr().Zone())
		require.Equal(t, kindProxy, classify(b), "the sniffer must agree")
		for i := range n {
			_, m, err := parseProxy(b[:i])
			require.NoError(t, err)
			require.Zero(t, m)
		}
		if src.IsValid() {
			for _, again := range [][]byte{appendProxyV1(nil, src, src), appendProxyV2(nil, src, src, nil)} {
				got, _, err := parseProxy(again)
				require.NoError(t, err)
				require.Equal(t, src, got)
			}
		}
	})
}

func BenchmarkParseProxyV2(b *testing.B) {
	header := unhex(b, "0d0a0d0a000d0a515549540a 21 11 000c cb007107 c0000201 dc04 0d05")
	b.ReportAllocs()
	for b.Loop() {
		if _, n, _ := parseProxy(header); n == 0 {
			b.Fatal("incomplete")
		}
	}
}
