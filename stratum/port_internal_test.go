package stratum

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/stretchr/testify/require"
)

type namedListener struct {
	net.Listener
	addr net.Addr
}

func (l namedListener) Addr() net.Addr { return l.addr }

func TestPortCheck(t *testing.T) {
	ln := namedListener{addr: &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 3333}}
	withCert := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}
	prefixes := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	for _, test := range []struct {
		name string
		port Port
		says []string // nothing when the port is sound
	}{
		{name: "only a listener", port: Port{Listener: ln}},
		{name: "everything", port: Port{Listener: ln, TLS: withCert, RequireTLS: true, TrustedProxies: prefixes("10.0.0.0/8"),
			StartDifficulty: 0.5, MinDifficulty: 0.25}},
		{name: "a certificate of its own", port: Port{Listener: ln, TLS: &tls.Config{Certificates: make([]tls.Certificate, 1)}}},
		{name: "a start difficulty alone", port: Port{Listener: ln, StartDifficulty: 1024}},
		{name: "a minimum difficulty alone", port: Port{Listener: ln, MinDifficulty: 500000}},
		{name: "no listener", says: []string{"port without a listener: a listener is needed"}},
		{name: "TLS required of nobody", port: Port{Listener: ln, RequireTLS: true}, says: []string{"port [fe80::1%eth0]:3333: TLS is required"}},
		{name: "TLS without a certificate", port: Port{Listener: ln, TLS: &tls.Config{}}, says: []string{"no certificate"}},
		{name: "an empty network", port: Port{Listener: ln, TrustedProxies: []netip.Prefix{{}}}, says: []string{"an empty network"}},
		{name: "a network with host bits", port: Port{Listener: ln, TrustedProxies: prefixes("10.0.0.1/8")}, says: []string{"10.0.0.0/8 or 10.0.0.1"}},
		{name: "a network that would never match", port: Port{Listener: ln, TrustedProxies: prefixes("::ffff:10.0.0.0/104")}, says: []string{"as IPv4"}},
		{name: "a difficulty that does not sum exactly", port: Port{Listener: ln, StartDifficulty: 1.5}, says: []string{"start difficulty 1.5"}},
		{name: "a negative difficulty", port: Port{Listener: ln, MinDifficulty: -1}, says: []string{"minimum difficulty -1"}},
		{name: "a difficulty beyond all bounds", port: Port{Listener: ln, MinDifficulty: 2 * difficulty.Max}, says: []string{"minimum difficulty"}},
		{name: "start below the minimum", port: Port{Listener: ln, StartDifficulty: 64, MinDifficulty: 128}, says: []string{"64 is below the minimum 128"}},
		{name: "all of it at once", port: Port{RequireTLS: true, StartDifficulty: 0.3, MinDifficulty: 0.7, TrustedProxies: prefixes("1.2.3.4/0")},
			says: []string{"listener is needed", "TLS is required", "0.0.0.0/0", "start difficulty 0.3", "minimum difficulty 0.7", "0.3 is below"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.port.check()
			if len(test.says) == 0 {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			for _, says := range test.says {
				require.ErrorContains(t, err, says)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.True(t, strings.HasPrefix(line, "stratum: port "), line)
			}
		})
	}
}

func TestParsePrefixes(t *testing.T) {
	for _, test := range []struct {
		list, want, says string
	}{
		{list: "", want: "[]"},
		{list: "  ", want: "[]"},
		{list: "10.0.0.0/8,::1", want: "[10.0.0.0/8 ::1/128]"},
		{list: " 192.0.2.1 , 2001:db8::/32 ", want: "[192.0.2.1/32 2001:db8::/32]"},
		{list: "::ffff:192.0.2.1", want: "[192.0.2.1/32]"},
		{list: "0.0.0.0/0,::/0", want: "[0.0.0.0/0 ::/0]"},
		{list: "10.0.0.0/8,", says: `"" is neither`},
		{list: "10.0.0.0/33", says: `"10.0.0.0/33" is no network`},
		{list: "10.0.0.1/8", says: "meant is 10.0.0.0/8 or 10.0.0.1"},
		{list: "balancer.example", says: `"balancer.example" is neither`},
		{list: "fe80::1%eth0", says: "neither"},
		{list: "::ffff:10.0.0.0/104", says: "as IPv4"},
		{list: "x,y", says: `"y"`},
		{list: "x,10.0.0.0/8", says: `"x"`},
	} {
		got, err := ParsePrefixes(test.list)
		if test.says != "" {
			require.ErrorContains(t, err, test.says, "%q", test.list)
			require.Nil(t, got)
			continue
		}
		require.NoError(t, err, "%q", test.list)
		require.Equal(t, test.want, fmt.Sprint(got), "%q", test.list)
	}
}

func TestTrusted(t *testing.T) {
	prefixes, err := ParsePrefixes("10.0.0.0/8,192.0.2.1,fe80::/10")
	require.NoError(t, err)
	p := &Port{TrustedProxies: prefixes}
	for addr, want := range map[string]bool{
		"10.255.0.1": true, "11.0.0.1": false, "192.0.2.1": true, "192.0.2.2": false,
		"::ffff:10.0.0.1": true, "::ffff:11.0.0.1": false, "fe80::1%eth0": true, "::1": false,
	} {
		require.Equal(t, want, p.trusted(netip.MustParseAddr(addr)), addr)
	}
	require.False(t, p.trusted(netip.Addr{}), "a connection without an address")
	require.False(t, new(Port).trusted(netip.MustParseAddr("127.0.0.1")), "nobody is trusted unless named")
}
