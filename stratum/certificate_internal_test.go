package stratum

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pair makes the files of a self-signed certificate for host, and a pool of roots that trusts it.
func pair(t testing.TB, host string) (certFile, keyFile string, roots *x509.CertPool) {
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, SelfSigned(certFile, keyFile, host))
	roots = x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(contents(t, certFile)))
	return certFile, keyFile, roots
}

func testCertificate(t testing.TB, host string) (tls.Certificate, *x509.CertPool) {
	certFile, keyFile, roots := pair(t, host)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	require.NoError(t, err)
	return cert, roots
}

func contents(t testing.TB, name string) []byte {
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return b
}

func overwrite(t testing.TB, name string, b []byte) { require.NoError(t, os.WriteFile(name, b, 0o600)) }

// A logBook keeps what is logged, one line a record.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// take returns the lines since the last call.
func (l *logBook) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := strings.TrimSuffix(l.b.String(), "\n")
	l.b.Reset()
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func TestSelfSignedMakesFilesThatWork(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, SelfSigned(certFile, keyFile, "pool.example", "192.0.2.1", "2001:db8::1"))
	if runtime.GOOS != "windows" {
		info, err := os.Stat(keyFile)
		require.NoError(t, err)
		require.EqualValues(t, 0o600, info.Mode().Perm())
	}
	c, err := OpenCertificate(certFile, keyFile, nil)
	require.NoError(t, err)
	require.NoError(t, c.Leaf().VerifyHostname("pool.example"))
	require.NoError(t, c.Leaf().VerifyHostname("192.0.2.1"))
	require.NoError(t, c.Leaf().VerifyHostname("2001:db8::1"))
	require.Error(t, c.Leaf().VerifyHostname("other.example"))
	require.Greater(t, time.Until(c.Leaf().NotAfter), 9*365*24*time.Hour)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2, "temporary files are left behind")

	// The second start finds them and leaves them alone, even when asked for other hosts.
	cert, key := contents(t, certFile), contents(t, keyFile)
	require.NoError(t, SelfSigned(certFile, keyFile, "other.example"))
	require.Equal(t, cert, contents(t, certFile))
	require.Equal(t, key, contents(t, keyFile))

	// A stop between the two files leaves a key, which is kept.
	require.NoError(t, os.Remove(certFile))
	require.NoError(t, SelfSigned(certFile, keyFile))
	require.Equal(t, key, contents(t, keyFile))
	c, err = OpenCertificate(certFile, keyFile, nil)
	require.NoError(t, err)
	require.NoError(t, c.Leaf().VerifyHostname("localhost"))
	require.NoError(t, c.Leaf().VerifyHostname("127.0.0.1"))

	require.NoError(t, os.Remove(keyFile))
	require.ErrorContains(t, SelfSigned(certFile, keyFile), "key.pem is missing")
	require.NoFileExists(t, keyFile)
}

func TestSelfSignedRefuses(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for _, host := range []string{"", "a b", "pool.example:3333", ".", "a..b", "-a", "fe80::1%eth0", "https://pool.example",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "aa", "*", "*.", "münze.example"} {
		require.ErrorContains(t, SelfSigned(certFile, keyFile, "pool.example", host), "neither a host name nor an address", "%q", host)
		require.NoFileExists(t, keyFile)
	}
	require.NoError(t, SelfSigned(filepath.Join(dir, "c"), filepath.Join(dir, "k"), "*.pool.example", strings.Repeat("a", 63)+".example"))
	require.ErrorIs(t, SelfSigned(filepath.Join(dir, "none", "cert.pem"), filepath.Join(dir, "none", "key.pem")), os.ErrNotExist)

	overwrite(t, keyFile, []byte("not a key"))
	require.ErrorContains(t, SelfSigned(certFile, keyFile), "no PEM file")
	overwrite(t, keyFile, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	require.ErrorContains(t, SelfSigned(certFile, keyFile), "key.pem")
	require.NoFileExists(t, certFile)
	require.Contains(t, string(contents(t, keyFile)), "AAAA", "the key was touched")
}

func TestOpenCertificateSaysWhatIsWrong(t *testing.T) {
	certFile, keyFile, _ := pair(t, "pool.example")
	_, otherKey, _ := pair(t, "other.example")
	big := filepath.Join(t.TempDir(), "big.pem")
	overwrite(t, big, make([]byte, maxCertificateFile+1))
	for _, test := range []struct{ name, cert, key, says string }{
		{"no certificate", certFile + "x", keyFile, "no such file"},
		{"no key", certFile, keyFile + "x", "no such file"},
		{"a key of another certificate", certFile, otherKey, "does not match"},
		{"files the wrong way round", keyFile, certFile, "switched"},
		{"a folder", filepath.Dir(certFile), keyFile, "directory"},
		{"a file without end", big, keyFile, "more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := OpenCertificate(test.cert, test.key, nil)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "stratum: ")
			require.Nil(t, c)
		})
	}
	_, err := OpenCertificate(certFile, keyFile, &CertificateOptions{Interval: -1})
	require.ErrorContains(t, err, "negative interval")
}

// A tlsEcho answers every byte with itself, over TLS.
func tlsEcho(t *testing.T, config *tls.Config) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				secured := tls.Server(conn, config)
				_, _ = io.Copy(secured, secured)
			})
		}
	})
	return ln.Addr().String()
}

func echo(t *testing.T, conn net.Conn) {
	_, err := conn.Write([]byte("x"))
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = io.ReadFull(conn, b)
	require.NoError(t, err)
}

func TestReloadKeepsConnectionsAndServesTheNewCertificate(t *testing.T) {
	certFile, keyFile, oldRoots := pair(t, "pool.example")
	newCert, newKey, newRoots := pair(t, "pool.example")
	c, err := OpenCertificate(certFile, keyFile, nil)
	require.NoError(t, err)
	addr := tlsEcho(t, c.TLSConfig())
	dial := func(roots *x509.CertPool) (*tls.Conn, error) {
		return tls.Dial("tcp", addr, &tls.Config{ServerName: "pool.example", RootCAs: roots})
	}

	before, err := dial(oldRoots)
	require.NoError(t, err)
	defer before.Close()
	echo(t, before)
	_, err = dial(newRoots)
	require.Error(t, err, "the new certificate is not there yet")

	// The key first, then the certificate: between them the pair does not match.
	oldKey := contents(t, keyFile)
	overwrite(t, keyFile, contents(t, newKey))
	require.ErrorContains(t, c.Reload(), "does not match")
	between, err := dial(oldRoots)
	require.NoError(t, err, "the old pair must stay until the new one is whole")
	defer between.Close()
	overwrite(t, certFile, contents(t, newCert))
	require.NoError(t, c.Reload())

	after, err := dial(newRoots)
	require.NoError(t, err)
	defer after.Close()
	_, err = dial(oldRoots)
	require.Error(t, err)
	for _, conn := range []net.Conn{before, between, after} {
		echo(t, conn)
	}

	// A file that is gone, or cut off, changes nothing either.
	for _, spoil := range []func(){
		func() { overwrite(t, keyFile, oldKey[:len(oldKey)/2]) },
		func() { overwrite(t, certFile, nil) },
		func() { require.NoError(t, os.Remove(certFile)) },
	} {
		spoil()
		require.Error(t, c.Reload())
		again, err := dial(newRoots)
		require.NoError(t, err)
		again.Close()
	}
}

func TestTLSConfigRefusesOldVersions(t *testing.T) {
	certFile, keyFile, roots := pair(t, "pool.example")
	c, err := OpenCertificate(certFile, keyFile, nil)
	require.NoError(t, err)
	addr := tlsEcho(t, c.TLSConfig())
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "pool.example", RootCAs: roots, MinVersion: version, MaxVersion: version})
		if version < tls.VersionTLS12 {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		echo(t, conn)
		conn.Close()
	}
}

func TestRunFollowsTheFilesAndLogsOnce(t *testing.T) {
	certFile, keyFile, _ := pair(t, "old.example")
	newCert, newKey, _ := pair(t, "new.example")
	oldCert := contents(t, certFile)
	made := time.Now()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(made)) // a bubble begins in the year 2000
		var log logBook
		c, err := OpenCertificate(certFile, keyFile, &CertificateOptions{WarnBefore: -1, Logger: log.logger()})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		minute := func() []string {
			time.Sleep(time.Minute) // of the bubble's clock
			synctest.Wait()
			return log.take()
		}
		name := func() string { return c.Leaf().DNSNames[0] }
		synctest.Wait()

		require.Empty(t, minute())
		overwrite(t, certFile, contents(t, newCert))
		lines := minute()
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], "certificate not reloaded, the old one stays")
		require.Contains(t, lines[0], "does not match")
		require.Equal(t, "old.example", name())
		require.Empty(t, minute(), "the same failure is logged once")

		require.NoError(t, os.Remove(certFile))
		lines = minute()
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], "no such file")
		require.Empty(t, minute(), "the same failure is logged once")

		overwrite(t, certFile, oldCert)
		lines = minute()
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], "again what they were")
		require.Empty(t, minute())

		overwrite(t, certFile, contents(t, newCert))
		require.Len(t, minute(), 1)
		overwrite(t, keyFile, contents(t, newKey))
		lines = minute()
		require.Len(t, lines, 1)
		require.Contains(t, lines[0], "certificate reloaded")
		require.Contains(t, lines[0], "new.example")
		require.Equal(t, "new.example", name())
		require.Empty(t, minute())

		stop()
		require.NoError(t, <-done)
	})
}

func TestAnExpiryIsLoggedDaily(t *testing.T) {
	certFile, keyFile, _ := pair(t, "pool.example")
	const day = 24 * time.Hour
	var log logBook
	c, err := OpenCertificate(certFile, keyFile, &CertificateOptions{Logger: log.logger()})
	require.NoError(t, err)
	require.Empty(t, log.take(), "ten years are left")
	expiry := c.Leaf().NotAfter
	for _, test := range []struct {
		at   time.Time
		says string
	}{
		{expiry.Add(-15 * day), ""},
		{expiry.Add(-14*day + time.Minute), "expires soon"},
		{expiry.Add(-14*day + 2*time.Minute), ""},
		{expiry.Add(-13*day + 2*time.Minute), "days=12"},
		{expiry.Add(time.Minute), "has expired"},
		{expiry.Add(2 * time.Minute), ""},
		{expiry.Add(2 * day), "has expired"},
		{c.Leaf().NotBefore.Add(-time.Hour), ""}, // the clock was set back: not before a day has passed
	} {
		c.poll(test.at)
		lines := log.take()
		if test.says == "" {
			require.Empty(t, lines, "%v", test.at)
			continue
		}
		require.Len(t, lines, 1, "%v", test.at)
		require.Contains(t, lines[0], test.says)
		require.Contains(t, lines[0], "level=WARN")
		require.Contains(t, lines[0], "pool.example")
	}

	// One that is opened so close to its end says so at once, and so does one of tomorrow.
	lines := openedAfter(t, certFile, keyFile, &CertificateOptions{WarnBefore: 20 * 365 * day})
	require.Len(t, lines, 1)
	require.Contains(t, lines[0], "expires soon")
	require.Empty(t, openedAfter(t, certFile, keyFile, &CertificateOptions{WarnBefore: -1}))
	early, _ := OpenCertificate(certFile, keyFile, &CertificateOptions{Logger: log.logger()})
	early.poll(c.Leaf().NotBefore.Add(-time.Hour))
	lines = log.take()
	require.Len(t, lines, 1)
	require.Contains(t, lines[0], "not yet valid")
}

func openedAfter(t *testing.T, certFile, keyFile string, opts *CertificateOptions) []string {
	var log logBook
	opts.Logger = log.logger()
	_, err := OpenCertificate(certFile, keyFile, opts)
	require.NoError(t, err)
	return log.take()
}

// Handshakes go on while the certificate is replaced; the race detector looks on.
func TestReloadsAndHandshakesAtOnce(t *testing.T) {
	certFile, keyFile, roots := pair(t, "pool.example")
	c, err := OpenCertificate(certFile, keyFile, nil)
	require.NoError(t, err)
	addr := tlsEcho(t, c.TLSConfig())
	var wg sync.WaitGroup
	failed := make(chan error, 8)
	for range 4 {
		wg.Go(func() {
			for range 10 {
				conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "pool.example", RootCAs: roots})
				if err != nil {
					failed <- fmt.Errorf("dial: %w", err)
					return
				}
				conn.Close()
			}
		})
		wg.Go(func() {
			for range 20 {
				if err := c.Reload(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}
