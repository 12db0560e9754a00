// Package identity makes what a member proves itself with, and what it takes as proof.
package identity

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

// Identity is a member's own certificate and the two credentials that it takes, PEM as text.
type Identity struct {
	CA                 string `json:"ca"`
	ServingCertificate string `json:"servingCertificate"`
	ServingKey         string `json:"servingKey"`
	Certificate        string `json:"certificate"` // of the client "gateway", in the group system:masters
	Key                string `json:"key"`
	Token              string `json:"token"`
}

// Greeting is the one line that a member prints.
type Greeting struct {
	Endpoint    string `json:"endpoint"`
	CA          string `json:"ca"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	Token       string `json:"token"`
}

// New makes an identity with an authority of its own.
func New(name string) (*Identity, error) {
	caKey, ca, err := certificate(&x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
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
	keys := [2]string{}
	for i, key := range []*ecdsa.PrivateKey{servingKey, clientKey} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		keys[i] = encode("PRIVATE KEY", der)
	}
	return &Identity{
		CA:                 encode("CERTIFICATE", ca.Raw),
		ServingCertificate: encode("CERTIFICATE", serving.Raw),
		ServingKey:         keys[0],
		Certificate:        encode("CERTIFICATE", client.Raw),
		Key:                keys[1],
		Token:              rand.Text(),
	}, nil
}

// Greeting says how the member at an address is reached.
func (i *Identity) Greeting(endpoint string) Greeting {
	return Greeting{Endpoint: endpoint, CA: i.CA, Certificate: i.Certificate, Key: i.Key, Token: i.Token}
}

// ServerTLS serves with the identity's certificate and takes client certificates of its authority.
func (i *Identity) ServerTLS() (*tls.Config, error) {
	serving, err := tls.X509KeyPair([]byte(i.ServingCertificate), []byte(i.ServingKey))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(i.CA))
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{serving},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    pool,
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

func (i *Identity) client() *x509.Certificate {
	block, _ := pem.Decode([]byte(i.Certificate))
	if block == nil {
		return nil
	}
	parsed, _ := x509.ParseCertificate(block.Bytes)
	return parsed
}

// Method says by which credential the request proves itself: "x509", "token", or "" for none that is good.
func (i *Identity) Method(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && r.TLS.PeerCertificates[0].Equal(i.client()) {
		return "x509" // the handshake proved that the peer has the key
	}
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if given && subtle.ConstantTimeCompare([]byte(token), []byte(i.Token)) == 1 {
		return "token"
	}
	return ""
}
