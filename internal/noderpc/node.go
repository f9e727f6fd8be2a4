// Package noderpc speaks JSON-RPC over HTTP and HTTPS to a bitcoind or btcd node.
//
// A [Node] says how to reach one, a [Client] made of it calls:
//
//	client, err := noderpc.New(noderpc.Node{URL: "http://127.0.0.1:8332", CookieFile: "/home/bitcoin/.bitcoin/.cookie"}, nil)
//	…
//	var height int64
//	err = client.Call(ctx, "getblockcount", nil, &height)
//
// Errors name the node and the method and never a password. What the node itself reports is an [*RPCError], whatever
// HTTP status it came with; what is no JSON-RPC at all is an [*HTTPError] or a [*ReplyError].
package noderpc

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// A Node says how to reach one bitcoind or btcd. Its String names the node without the password, and so do fmt's verbs
// and log/slog, so that a Node can be printed as it is.
type Node struct {
	// URL is where the node answers RPC, such as "http://127.0.0.1:8332" for bitcoind or "https://127.0.0.1:8334" for
	// btcd. A user and password may stand in it instead of in the fields below.
	URL string

	// User and Pass are the node's rpcuser and rpcpassword (bitcoind) or rpcpass (btcd).
	User, Pass string

	// CookieFile is the file in which bitcoind leaves a new password each time it starts, ".cookie" in its data
	// directory. It is read at the first call and again whenever the node refuses what was read; it takes the place of
	// User and Pass.
	CookieFile string

	// CertFile holds the certificate, or the authorities, that an https URL is trusted by, in PEM form: for btcd its
	// rpc.cert. Empty trusts what the system trusts.
	CertFile string

	// SkipVerify takes whatever certificate an https URL answers with. It invites whoever sits in between to hand out
	// templates of his own; CertFile is the better way.
	SkipVerify bool
}

// String returns the scheme and host of the node, the name that errors and logs call it by. Whatever else stands in
// the URL may be a secret.
func (n Node) String() string {
	u, err := url.Parse(strings.TrimSpace(n.URL))
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "(invalid URL)"
	}
	return u.Scheme + "://" + u.Host
}

// GoString is String, so that %#v prints no password either.
func (n Node) GoString() string { return "Node(" + n.String() + ")" }

// LogValue is String, for log/slog.
func (n Node) LogValue() slog.Value { return slog.StringValue(n.String()) }

// Validate reports everything that is wrong with n, and opens no connection to find out.
func (n Node) Validate() error {
	_, err := n.resolve()
	return err
}

// endpoint is a Node taken apart and found usable.
type endpoint struct {
	name       string // for errors
	url        string // without user and password
	user, pass string
	cookieFile string
	tls        *tls.Config // nil for http
}

func (n Node) resolve() (*endpoint, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	e := &endpoint{name: n.String(), user: n.User, pass: n.Pass, cookieFile: n.CookieFile}
	u, err := parseURL(n.URL)
	if err != nil {
		errs = append(errs, err)
		u = &url.URL{}
	}
	if u.User != nil {
		if n.User != "" || n.Pass != "" {
			fail("node %s: a user stands both in the URL and beside it", e.name)
		}
		e.user = u.User.Username()
		e.pass, _ = u.User.Password()
		u.User = nil
	}
	switch {
	case n.CookieFile != "" && (e.user != "" || e.pass != ""):
		fail("node %s: both a cookie file and a user or password; give one", e.name)
	case e.pass != "" && e.user == "":
		fail("node %s: a password without a user", e.name)
	case strings.Contains(e.user, ":"):
		fail("node %s: the user name holds a colon, which HTTP basic authentication cannot carry", e.name)
	}

	switch {
	case u.Scheme == "https":
		e.tls = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: n.SkipVerify}
		if n.CertFile != "" {
			if e.tls.RootCAs, err = readCerts(n.CertFile); err != nil {
				fail("node %s: %w", e.name, err)
			}
		}
	case u.Scheme == "http" && (n.CertFile != "" || n.SkipVerify):
		fail("node %s: a certificate is of no use with an http URL; does the node answer https?", e.name)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	e.url = u.String()
	return e, nil
}

// parseURL explains what is wrong with an URL in words that do not repeat its user and password.
func parseURL(raw string) (*url.URL, error) {
	raw = strings.TrimSpace(raw)
	if raw == "" {
		return nil, errors.New("node: no URL; it looks like http://127.0.0.1:8332")
	}
	scheme, _, ok := strings.Cut(raw, "://")
	if !ok {
		return nil, errors.New("node: the URL needs http:// or https:// in front, as in http://127.0.0.1:8332")
	}
	switch strings.ToLower(scheme) {
	case "http", "https":
	default:
		return nil, fmt.Errorf("node: the URL's scheme is %.20q; nodes answer http or https", scheme)
	}
	u, err := url.Parse(raw)
	if err != nil {
		// The error of url.Parse quotes the URL, password included; what it wraps quotes a part, which may be one too.
		return nil, errors.New("node: the URL cannot be parsed: a stray character in the user, host or port")
	}
	switch {
	case u.Hostname() == "":
		return nil, errors.New("node: the URL names no host")
	case u.Fragment != "":
		return nil, fmt.Errorf("node %s://%s: the URL ends in a fragment, from '#' on", u.Scheme, u.Host)
	}
	if p := u.Port(); p != "" {
		if port, err := strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return nil, fmt.Errorf("node %s://%s: %q is not a port", u.Scheme, u.Host, p)
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return nil, fmt.Errorf("node %s://%s: no port after the colon", u.Scheme, u.Host)
	}
	return u, nil
}

// maxCertFile bounds what is read as certificates, in bytes.
const maxCertFile = 1 << 20

func readCerts(name string) (*x509.CertPool, error) {
	raw, err := readSmall(name, maxCertFile)
	if err != nil {
		return nil, fmt.Errorf("certificate file: %w", err)
	}
	pool := x509.NewCertPool()
	n := 0
	for rest := raw; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate file %s: %w", name, err)
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("certificate file %s: no certificate in PEM form", name)
	}
	return pool, nil
}

// maxCookie bounds a cookie file, in bytes; bitcoind's has 75.
const maxCookie = 4 << 10

func readCookie(name string) (user, pass string, err error) {
	raw, err := readSmall(name, maxCookie)
	if err != nil {
		return "", "", fmt.Errorf("cookie file: %w", err)
	}
	u, p, ok := bytes.Cut(bytes.TrimSpace(raw), []byte(":"))
	if !ok || len(u) == 0 || len(p) == 0 {
		return "", "", fmt.Errorf("cookie file %s: not of the form user:password", name)
	}
	return string(u), string(p), nil
}

func readSmall(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := readBounded(f, 0, limit)
	if errors.Is(err, errTooLarge) {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return raw, err
}
