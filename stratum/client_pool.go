package stratum

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/poolkit/poolkit/stratum/sv1"
)

// A clientPool is where a Client connects to.
type clientPool struct {
	index          int    // in order of preference
	scheme         string // in the spelling it was configured in
	host           string // lower case
	port           string
	tls            bool
	user, password string
}

// parsePool reads scheme://user:password@host:port, of which only the host and the port must be there.
func parsePool(s string, o *ClientOptions) (clientPool, error) {
	fail := func(format string, args ...any) (clientPool, error) {
		return clientPool{}, fmt.Errorf("stratum: client: pool %q: "+format, append([]any{redactPool(s)}, args...)...)
	}
	raw := s
	if !strings.Contains(raw, "://") {
		raw = "stratum+tcp://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		// The error of url.Parse quotes the whole URL, password included.
		return fail("not a URL of the form stratum+tcp://host:port")
	}
	p := clientPool{scheme: u.Scheme, host: plainHost(u.Hostname()), port: u.Port(), user: o.User, password: o.Password}
	switch u.Scheme {
	case "stratum+tcp":
	case "stratum+ssl", "stratum+tls", "stratum+tcps":
		p.tls = true
	default:
		return fail("unknown scheme %q, want stratum+tcp, stratum+ssl, stratum+tls or stratum+tcps", u.Scheme)
	}
	if u.User != nil {
		p.user = u.User.Username()
		if password, ok := u.User.Password(); ok {
			p.password = password
		}
	}
	n, err := strconv.ParseUint(p.port, 10, 16)
	switch {
	case !validHost(p.host):
		return fail("no host")
	case err != nil || n == 0:
		return fail("no port from 1 to 65535")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return fail("text after the port")
	case p.user == "":
		return fail("no user, neither in the options nor in the URL")
	}
	return p, nil
}

// redactPool cuts what may be credentials off a pool that need not be a URL.
func redactPool(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		scheme, _, ok := strings.Cut(s, "://")
		if !ok {
			scheme = "stratum+tcp"
		}
		return scheme + "://***@" + s[i+1:]
	}
	return s
}

func (p *clientPool) addr() string { return net.JoinHostPort(p.host, p.port) }

// String returns the URL without credentials.
func (p *clientPool) String() string { return p.scheme + "://" + p.addr() }

var errReconnectHost = errors.New("the host is of another domain")

// redirected returns the pool that client.reconnect names, sent by from: itself, or with another host or port. What is
// allowed depends on the pool as it was configured, so that several steps lead no further than one.
func (c *Client) redirected(from clientPool, r *sv1.Reconnect) (clientPool, error) {
	host, configured := plainHost(r.Host), c.pools[from.index].host
	switch {
	case host == "":
		return from, nil
	case !validHost(host):
		return from, errors.New("not a host name")
	case host != from.host && host != configured && !c.opts.AllowReconnect(configured, host):
		return from, errReconnectHost
	}
	from.host, from.port = host, strconv.Itoa(r.Port)
	return from, nil
}

// plainHost returns a host in the form that hosts are compared in.
func plainHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	if len(host) == 0 || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) == 0 || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// sameDomain reports whether the owner of host from also owns host to, as far as names tell. Addresses belong to
// nobody.
func sameDomain(from, to string) bool {
	if from == to {
		return true
	}
	for _, host := range [...]string{from, to} {
		if _, err := netip.ParseAddr(host); err == nil {
			return false
		}
	}
	if strings.Contains(from, ".") && strings.HasSuffix(to, "."+from) {
		return true
	}
	_, parent, _ := strings.Cut(from, ".")
	return !isRegistry(parent) && (to == parent || strings.HasSuffix(to, "."+parent))
}

// isRegistry reports whether anybody can register a name below domain: a single label, or a short one below a
// country's, as in co.uk, com.cn and or.jp.
func isRegistry(domain string) bool {
	name, rest, ok := strings.Cut(domain, ".")
	return !ok || len(name) <= 3 && len(rest) == 2
}
