package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

// identity is the member's own certificate and the two credentials that it takes.
type identity struct {
	greeting greeting
	serving  tls.Certificate
	pool     *x509.CertPool
}

func newIdentity() (*identity, error) {
	caKey, ca, err := certificate(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "gomember"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, nil, nil)
	if err != nil {
		return nil, err
	}
	servingKey, serving, err := certificate(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		DNSNames:    []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	if err != nil {
		return nil, err
	}
	clientKey, client, err := certificate(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "gateway", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, caKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(clientKey)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &identity{
		pool:    pool,
		serving: tls.Certificate{Certificate: [][]byte{serving.Raw}, PrivateKey: servingKey},
		greeting: greeting{
			CA:          encode("CERTIFICATE", ca.Raw),
			Certificate: encode("CERTIFICATE", client.Raw),
			Key:         encode("PRIVATE KEY", keyDER),
			Token:       rand.Text(),
		},
	}, nil
}

// certificate signs the template with the authority, or with its own key when there is none.
func certificate(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(24 * time.Hour)
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	made, err := x509.ParseCertificate(der)
	return key, made, err
}

func encode(kind string, der []byte) string {
	var text bytes.Buffer
	_ = pem.Encode(&text, &pem.Block{Type: kind, Bytes: der})
	return text.String()
}

// method says by which credential the request proves itself: "x509", "token", or "" for none that is good.
func (i *identity) method(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return "x509"
	}
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if given && subtle.ConstantTimeCompare([]byte(token), []byte(i.greeting.Token)) == 1 {
		return "token"
	}
	return ""
}
