package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"
)

// ServeTLS is Serve over TLS, with a certificate for 127.0.0.1 and no other name. The authority's certificate is
// written to the file.
func ServeTLS(handler http.Handler, file string) {
	authority, server := key(), key()
	issuer := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "interop"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    issuer.NotBefore,
		NotAfter:     issuer.NotAfter,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sign(issuer, issuer, authority, authority)})
	if err := os.WriteFile(file, root, 0o600); err != nil {
		Fail("%v", err)
	}
	chain := tls.Certificate{Certificate: [][]byte{sign(leaf, issuer, server, authority)}, PrivateKey: server}
	listener, _ := Listen()
	Print(map[string]string{"listening": "https://" + listener.Addr().String()})
	Fail("%v", http.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{chain}}), handler))
}

func key() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		Fail("%v", err)
	}
	return key
}

func sign(what, issuer *x509.Certificate, its, issuers *ecdsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, what, issuer, its.Public(), issuers)
	if err != nil {
		Fail("%v", err)
	}
	return der
}
