package stratum

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/poolkit/poolkit/difficulty"
)

// A Port is a listener with rules of its own. Only Listener is needed: a Port of nothing else behaves like the
// listener it holds.
type Port struct {
	net.Listener

	// TLS, when set, lets miners encrypt: the first byte of a connection tells whether one does, so that one port
	// serves stratum+tcp:// and stratum+ssl://. Without it a TLS client is refused with a line of plain text.
	// See [Certificate.TLSConfig].
	TLS *tls.Config

	// RequireTLS refuses miners that do not encrypt.
	RequireTLS bool

	// TrustedProxies are the balancers that must begin a connection with a PROXY protocol header (version 1 or 2, in
	// front of TLS), which names the miner's own address. A connection of theirs without one is closed. From all
	// others the header is refused, for it would let miners choose their address. See [ParsePrefixes].
	TrustedProxies []netip.Prefix

	// StartDifficulty and MinDifficulty take the place of the server's for the miners of this port: a port for very
	// small miners, or for rented hashrate. 0 means the server's. Whole numbers or powers of two.
	StartDifficulty difficulty.Difficulty
	MinDifficulty   difficulty.Difficulty
}

// check reports everything that is wrong with the port.
func (p *Port) check() error {
	var errs []error
	name := "without a listener"
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("stratum: port "+name+": "+format, args...))
	}
	if p.Listener == nil {
		bad("a listener is needed")
	} else if addr := p.Addr(); addr != nil {
		name = strings.ReplaceAll(addr.String(), "%", "%%") // a zone
	}
	switch {
	case p.TLS == nil:
		if p.RequireTLS {
			bad("TLS is required but no certificate is there to serve it with")
		}
	case len(p.TLS.Certificates) == 0 && p.TLS.GetCertificate == nil && p.TLS.GetConfigForClient == nil:
		bad("the TLS configuration has no certificate")
	}
	for _, prefix := range p.TrustedProxies {
		if err := checkPrefix(prefix); err != nil {
			bad("trusted proxies: %w", err)
		}
	}
	for _, d := range []struct {
		name string
		d    difficulty.Difficulty
	}{{"start", p.StartDifficulty}, {"minimum", p.MinDifficulty}} {
		if d.d != 0 && !(d.d >= difficulty.Min && d.d <= difficulty.Max && d.d.Assignable()) {
			bad("%s difficulty %v is neither whole nor a power of two between 2^-32 and 2^62", d.name, d.d)
		}
	}
	if p.StartDifficulty != 0 && p.StartDifficulty < p.MinDifficulty {
		bad("start difficulty %v is below the minimum %v", p.StartDifficulty, p.MinDifficulty)
	}
	return errors.Join(errs...)
}

// trusted reports whether a connection from addr must begin with a PROXY protocol header. An IPv4 address is the same
// address when it comes as IPv6, as it does on a listener for both.
func (p *Port) trusted(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, prefix := range p.TrustedProxies {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// ParsePrefixes reads a list of networks and single addresses with commas between them, such as "10.0.0.0/8,::1". An
// empty list is no error and gives nil. Everything that is wrong with the list is reported at once.
func ParsePrefixes(list string) ([]netip.Prefix, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var prefixes []netip.Prefix
	var errs []error
	for item := range strings.SplitSeq(list, ",") {
		prefix, err := parsePrefix(strings.TrimSpace(item))
		if err != nil {
			errs = append(errs, fmt.Errorf("stratum: parse networks: %w", err))
			continue
		}
		prefixes = append(prefixes, prefix)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return prefixes, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	var prefix netip.Prefix
	if strings.Contains(s, "/") {
		var err error
		if prefix, err = netip.ParsePrefix(s); err != nil {
			return netip.Prefix{}, fmt.Errorf("%q is no network such as 10.0.0.0/8", s)
		}
	} else {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", s)
		}
		addr = addr.Unmap()
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	return prefix, checkPrefix(prefix)
}

// checkPrefix refuses what would never match, or match more than it seems to.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("an empty network")
	case p.Addr().Is4In6():
		return fmt.Errorf("%v: write IPv4 networks as IPv4", p)
	case p != p.Masked():
		return fmt.Errorf("%v has bits set beyond its length: meant is %v or %v", p, p.Masked(), p.Addr())
	}
	return nil
}
