package main

import (
	"encoding/json"
	"net/http"
	"sync"
)

const remembered = 2000

// request is what /debug/requests tells of one request, written down before it is answered.
type request struct {
	Proto  string              `json:"proto"`
	Method string              `json:"method"`
	URI    string              `json:"uri"`
	Host   string              `json:"host"`
	By     string              `json:"by"`   // "x509", "token" or ""
	Peer   string              `json:"peer"` // the common name of the client certificate
	Header map[string][]string `json:"header"`
}

// record remembers the newest requests, turns those without a good credential away, as a kube-apiserver without
// anonymous access does, and hands the rest on.
func record(identity *identity, next http.Handler) http.Handler {
	var mutex sync.Mutex
	requests := []request{}
	remember := func(r *http.Request, by string) {
		seen := request{Proto: r.Proto, Method: r.Method, URI: r.RequestURI, Host: r.Host, By: by, Header: r.Header.Clone()}
		if len(r.TLS.PeerCertificates) > 0 {
			seen.Peer = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		mutex.Lock()
		defer mutex.Unlock()
		requests = append(requests, seen)
		if len(requests) > remembered {
			requests = append([]request{}, requests[remembered/2:]...)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		by := identity.method(r)
		switch {
		case by == "":
			remember(r, by)
			fail(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized")
		case r.URL.Path == "/debug/requests":
			mutex.Lock()
			defer mutex.Unlock()
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(requests)
		default:
			remember(r, by)
			next.ServeHTTP(w, r)
		}
	})
}
