package stratum_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"

	"github.com/poolkit/poolkit/stratum"
)

// A port serves miners that encrypt and miners that do not; renewed certificates are noticed.
func ExampleCertificate() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")

	// Where no authority has signed one, a pool signs its own.
	if err := stratum.SelfSigned(certFile, keyFile, "pool.example"); err != nil {
		fmt.Println(err)
		return
	}
	cert, err := stratum.OpenCertificate(certFile, keyFile, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- cert.Run(ctx) }() // renewals are noticed from here on

	port := stratum.Port{TLS: cert.TLSConfig()}
	fmt.Println(cert.Leaf().DNSNames, port.TLS.MinVersion == tls.VersionTLS12)
	stop()
	fmt.Println(<-done)
	// Output:
	// [pool.example] true
	// <nil>
}
