package stratum

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// CertificateOptions tune a Certificate. The zero value suits one that is renewed every few weeks.
type CertificateOptions struct {
	Interval   time.Duration // how often Run looks at the files; 0 means 1m
	WarnBefore time.Duration // an expiry nearer than this is logged as a warning, daily; 0 means 14 days, negative never
	Logger     *slog.Logger  // nil discards
}

// A Certificate is what a TLS listener shows, kept up to date with the files it comes from. Replacing it touches no
// connection: those that are open stay, and new ones are shown the new certificate. Its methods may be called at any
// time, by anyone.
type Certificate struct {
	certFile, keyFile string
	opts              CertificateOptions
	current           atomic.Pointer[tls.Certificate]

	mu     sync.Mutex
	loaded [2][]byte // the files that current was made of
	failed [2][]byte // the files that could not be used and were logged so, nil when none
	reason string    // of that failure
	warned time.Time // when the expiry was last logged
}

// maxCertificateFile bounds what is read of a file; a chain of three certificates has less than 10 KB.
const maxCertificateFile = 1 << 20

// OpenCertificate loads a PEM certificate chain, leaf first, and the PEM private key of its leaf. nil options mean all
// defaults.
func OpenCertificate(certFile, keyFile string, opts *CertificateOptions) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	if opts != nil {
		c.opts = *opts
	}
	if c.opts.Interval == 0 {
		c.opts.Interval = time.Minute
	}
	if c.opts.WarnBefore == 0 {
		c.opts.WarnBefore = 14 * 24 * time.Hour
	}
	if c.opts.Logger == nil {
		c.opts.Logger = slog.New(slog.DiscardHandler)
	}
	if c.opts.Interval < 0 {
		return nil, fmt.Errorf("stratum: open certificate: a negative interval of %v", c.opts.Interval)
	}
	if err := c.Reload(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warn(time.Now())
	return c, nil
}

// GetCertificate returns the current certificate; it has the form that a tls.Config wants.
func (c *Certificate) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// Leaf returns the current certificate itself, which must not be changed: its names, its expiry.
func (c *Certificate) Leaf() *x509.Certificate { return c.current.Load().Leaf }

// TLSConfig returns a configuration that always shows the current certificate, to clients of TLS 1.2 and later. It asks
// clients for no certificate of theirs. One value may serve several listeners; then a miner that moves between them
// can resume its TLS session.
func (c *Certificate) TLSConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.GetCertificate}
}

// Reload reads the files again. When they cannot be used the certificate stays what it was.
func (c *Certificate) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := c.read()
	if err != nil {
		return err
	}
	return c.use(files)
}

// Run looks for changes of the files until ctx ends, and then returns nil. It compares what is in them: a file may keep
// its size and its time, or be a link to one that changes, and reading two small files a minute costs nothing.
//
// The two are rarely replaced in the same moment. While they do not belong together, or one is missing or half
// written, the certificate stays what it was; that is logged once, and at every interval Run looks again.
func (c *Certificate) Run(ctx context.Context) error {
	tick := time.NewTicker(c.opts.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			c.poll(now)
		}
	}
}

func (c *Certificate) poll(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := c.read()
	switch {
	case err == nil && same(files, c.loaded):
		if c.reason != "" {
			c.opts.Logger.Info("the certificate's files are again what they were", "file", c.certFile)
		}
		c.failed, c.reason = [2][]byte{}, ""
	case err == nil && c.reason != "" && same(files, c.failed):
		// Logged already.
	case err == nil:
		before := c.current.Load().Leaf.NotAfter
		if err = c.use(files); err == nil {
			leaf := c.current.Load().Leaf
			c.opts.Logger.Info("certificate reloaded", "file", c.certFile, "names", names(leaf),
				"expires", leaf.NotAfter, "expired before", before)
			c.failed, c.reason = [2][]byte{}, ""
		}
	}
	if err != nil && (err.Error() != c.reason || !same(files, c.failed)) {
		c.opts.Logger.Warn("certificate not reloaded, the old one stays", "file", c.certFile, "error", err)
		c.failed, c.reason = files, err.Error()
	}
	c.warn(now)
}

func same(a, b [2][]byte) bool { return bytes.Equal(a[0], b[0]) && bytes.Equal(a[1], b[1]) }

func (c *Certificate) read() (files [2][]byte, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if files[i], err = readBounded(name); err != nil {
			return [2][]byte{}, fmt.Errorf("stratum: read certificate: %w", err)
		}
	}
	return files, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCertificateFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxCertificateFile {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxCertificateFile)
	}
	return b, nil
}

// use puts the certificate to work that the files make. The lock is held.
func (c *Certificate) use(files [2][]byte) error {
	cert, err := tls.X509KeyPair(files[0], files[1])
	if err != nil {
		return fmt.Errorf("stratum: load certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	if cert.Leaf == nil { // GODEBUG=x509keypairleaf=0
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return fmt.Errorf("stratum: load certificate %s: %w", c.certFile, err)
		}
	}
	c.current.Store(&cert)
	c.loaded, c.warned = files, time.Time{}
	return nil
}

// warn logs, at most once a day, that the certificate is not or soon no longer valid. The lock is held.
func (c *Certificate) warn(now time.Time) {
	leaf := c.current.Load().Leaf
	left := leaf.NotAfter.Sub(now)
	soon := c.opts.WarnBefore > 0 && left < c.opts.WarnBefore
	early := now.Before(leaf.NotBefore)
	if left > 0 && !soon && !early || !c.warned.IsZero() && now.Sub(c.warned) < 24*time.Hour {
		return
	}
	c.warned = now
	attrs := []any{"file", c.certFile, "names", names(leaf)}
	switch {
	case left <= 0:
		c.opts.Logger.Warn("the certificate has expired: miners that verify it cannot connect",
			append(attrs, "expired", leaf.NotAfter)...)
	case early:
		c.opts.Logger.Warn("the certificate is not yet valid: miners that verify it cannot connect",
			append(attrs, "valid from", leaf.NotBefore)...)
	default:
		c.opts.Logger.Warn("the certificate expires soon", append(attrs, "expires", leaf.NotAfter, "days", int(left.Hours()/24))...)
	}
}

// names returns what hosts a certificate is for.
func names(leaf *x509.Certificate) []string {
	all := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		all = append(all, leaf.Subject.CommonName)
	}
	return all
}

// selfSignedFor is how long a self-signed certificate lasts. Nobody renews one, and miners hold on to it by its
// fingerprint or do not look at all.
const selfSignedFor = 10 * 365 * 24 * time.Hour

// SelfSigned makes a private key and a certificate for it that is valid for ten years, in PEM files of their own, unless
// both are there. A pool that has no certificate from an authority is so still safe from all who only listen, and a
// miner can be told the certificate's fingerprint. Nothing is ever overwritten: for a key without a certificate one is
// made, a certificate without its key is an error. Each file appears whole or not at all; the key can be read by its
// owner only.
//
// hosts are the names and addresses that miners connect to; none means localhost and this machine's name. Two
// processes must not make the same files at once.
func SelfSigned(certFile, keyFile string, hosts ...string) error {
	bad := func(err error) error { return fmt.Errorf("stratum: make a self-signed certificate: %w", err) }
	haveCert, err := exists(certFile)
	if err != nil {
		return bad(err)
	}
	haveKey, err := exists(keyFile)
	if err != nil {
		return bad(err)
	}
	switch {
	case haveCert && haveKey:
		return nil
	case haveCert:
		return bad(fmt.Errorf("%s is there but its key %s is missing", certFile, keyFile))
	}
	template, err := selfSignedTemplate(hosts, time.Now())
	if err != nil {
		return bad(err)
	}
	key, err := loadOrMakeKey(keyFile, haveKey)
	if err != nil {
		return bad(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return bad(err)
	}
	if err := writePEM(certFile, "CERTIFICATE", der, 0o644); err != nil {
		return bad(err)
	}
	return nil
}

func exists(name string) (bool, error) {
	_, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func selfSignedTemplate(hosts []string, now time.Time) (*x509.Certificate, error) {
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
		if name, err := os.Hostname(); err == nil && isHostName(name) && name != "localhost" {
			hosts = append(hosts, name)
		}
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: hosts[0]},
		NotBefore:             now.Add(-24 * time.Hour), // clocks of miners are wrong
		NotAfter:              now.Add(selfSignedFor),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
			template.IPAddresses = append(template.IPAddresses, addr.Unmap().AsSlice())
		} else if isHostName(host) {
			template.DNSNames = append(template.DNSNames, host)
		} else {
			return nil, fmt.Errorf("%q is neither a host name nor an address", host)
		}
	}
	if len(hosts[0]) > 64 { // the most that X.520 allows a common name
		template.Subject.CommonName = ""
	}
	return template, nil
}

// isHostName reports whether s consists of labels of letters, digits, '-' and '_', the first of which may be '*'.
func isHostName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	if len(s) > 2 && s[:2] == "*." {
		s = s[2:]
	}
	label := 0
	for _, c := range []byte(s) {
		switch {
		case c == '.' && label > 0:
			label = 0
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-' && label > 0, c == '_':
			if label++; label > 63 {
				return false
			}
		default:
			return false
		}
	}
	return label > 0
}

func loadOrMakeKey(keyFile string, have bool) (crypto.Signer, error) {
	if !have {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return key, writePEM(keyFile, "PRIVATE KEY", der, 0o600)
	}
	b, err := readBounded(keyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s is no PEM file", keyFile)
	}
	var key any
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", keyFile, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key %s: %T cannot sign", keyFile, key)
	}
	return signer, nil
}

// writePEM makes a file that is whole or not there.
func writePEM(name, blockType string, der []byte, mode fs.FileMode) (err error) {
	// os.CreateTemp makes the file with mode 0600, so the key is never readable by others, not even for a moment.
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = pem.Encode(f, &pem.Block{Type: blockType, Bytes: der}); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
