// Package requests remembers what a member was asked.
package requests

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"

	"onepass.test/gomember/identity"
)

// Path is where a member tells its log, in JSON.
const Path = "/debug/requests"

const remembered = 2000

// request is what the log tells of one request, written down before it is answered.
type request struct {
	Proto  string              `json:"proto"`
	Method string              `json:"method"`
	URI    string              `json:"uri"`
	Host   string              `json:"host"`
	By     string              `json:"by"`   // "x509", "token" or ""
	Peer   string              `json:"peer"` // the common name of the client certificate
	Header map[string][]string `json:"header"`
}

// Log is the newest requests, oldest first.
type Log struct {
	own    *identity.Identity
	mutex  sync.Mutex
	newest []request
}

// NewLog is an empty log of what comes to this identity.
func NewLog(own *identity.Identity) *Log { return &Log{own: own, newest: []request{}} }

// Record answers questions for the log, writes every other request down, and hands it on. A question takes one of the
// identity's credentials.
func (l *Log) Record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		by := l.own.Method(r)
		if r.URL.Path == Path && by != "" {
			l.tell(w)
			return
		}
		l.remember(r, by)
		next.ServeHTTP(w, r)
	})
}

func (l *Log) tell(w http.ResponseWriter) {
	l.mutex.Lock()
	newest := slices.Clone(l.newest)
	l.mutex.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(newest)
}

func (l *Log) remember(r *http.Request, by string) {
	seen := request{Proto: r.Proto, Method: r.Method, URI: r.RequestURI, Host: r.Host, By: by, Header: r.Header.Clone()}
	if len(r.TLS.PeerCertificates) > 0 {
		seen.Peer = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.newest = append(l.newest, seen)
	if len(l.newest) > remembered {
		l.newest = slices.Clone(l.newest[remembered/2:])
	}
}
