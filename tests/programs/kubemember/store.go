package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"onepass.test/gomember/identity"
)

// store is an etcd in this process, on sockets that only this user reaches.
type store struct {
	etcd    *embed.Etcd
	sockets string
}

func startStore(dataDir string) (*store, error) {
	sockets, err := os.MkdirTemp("", "etcd-") // not in dataDir: the path of a socket has to be short
	if err != nil {
		return nil, err
	}
	s := &store{sockets: sockets}
	config := embed.NewConfig()
	config.Dir = filepath.Join(dataDir, "etcd")
	config.UnsafeNoFsync = true // the state outlives the process, and need not outlive the machine
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	client, peer := s.url("client"), s.url("peer")
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.Name + "=" + peer.String()
	if s.etcd, err = embed.StartEtcd(config); err != nil {
		s.stop()
		return nil, err
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		return s, nil
	case err = <-s.etcd.Err():
	case <-time.After(time.Minute):
		err = fmt.Errorf("not ready within a minute")
	}
	s.stop()
	return nil, err
}

// compacting answers POST /debug/compact with one of the identity's credentials: etcd forgets all history up to now.
func (s *store) compacting(own *identity.Identity, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/debug/compact" || r.Method != http.MethodPost || own.Method(r) == "" {
			next.ServeHTTP(w, r)
			return
		}
		now := &etcdserverpb.CompactionRequest{Revision: s.etcd.Server.KV().Rev(), Physical: true}
		if _, err := s.etcd.Server.Compact(r.Context(), now); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

func (s *store) url(name string) url.URL {
	return url.URL{Scheme: "unix", Path: filepath.Join(s.sockets, name)}
}

func (s *store) stop() {
	if s.etcd != nil {
		s.etcd.Close()
	}
	_ = os.RemoveAll(s.sockets)
}
