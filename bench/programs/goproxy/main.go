// Command goproxy is the yardstick: httputil.ReverseProxy between two TLS connections, without authorization and
// without anything else. It speaks to the member what its client speaks to it. It prints where it listens and runs
// until its standard input closes.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	upstream := flag.String("upstream", "", "URL of the member")
	upstreamCA := flag.String("upstream-ca", "", "PEM file of the member's authority")
	upstreamProof := flag.String("upstream-proof", "", "PEM file of the certificate and key shown to the member")
	serving := flag.String("serving", "", "PEM file of the serving certificate and key")
	clientCA := flag.String("client-ca", "", "PEM file of the authority whose client certificates are taken")
	offerHTTP2 := flag.Bool("http2", false, "HTTP/2 on both sides, instead of HTTP/1.1 on both")
	flag.Parse()
	log.SetFlags(0)
	target, err := url.Parse(*upstream)
	check(err)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!*offerHTTP2)
	protocols.SetHTTP2(*offerHTTP2)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			Protocols:           protocols,
			TLSClientConfig:     &tls.Config{RootCAs: pool(*upstreamCA), Certificates: []tls.Certificate{pair(*upstreamProof)}},
			MaxIdleConnsPerHost: 1024, // the default of 2 would measure handshakes
			IdleConnTimeout:     time.Minute,
		},
	}
	server := &http.Server{
		Handler:           proxy,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{pair(*serving)},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    pool(*clientCA),
		},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Printf("https://%s\n", listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	if err := server.ServeTLS(listener, "", ""); err != http.ErrServerClosed {
		check(err)
	}
}

func pair(file string) tls.Certificate {
	loaded, err := tls.LoadX509KeyPair(file, file)
	check(err)
	return loaded
}

func pool(file string) *x509.CertPool {
	text, err := os.ReadFile(file)
	check(err)
	made := x509.NewCertPool()
	if !made.AppendCertsFromPEM(text) {
		log.Fatalf("%s: no certificate in it", file)
	}
	return made
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
