// Command kubemember is a member cluster of Kubernetes' own parts in one process: the real kube-apiserver on an embedded
// etcd, the controllers of namespaces, of service accounts and of garbage, and a small node whose containers are processes
// of this machine behind the streaming library of container runtimes.
//
// It listens on loopback with a certificate of its own making, prints one line of JSON that says how it is reached
// (endpoint, ca, certificate, key, token; all PEM but the first and the last) once it is ready, and runs until its standard
// input closes or a signal ends it. Started again with the same -data-dir and -port it is the same cluster.
// What stands after the flags are further flags of kube-apiserver itself.
// GET /debug/requests tells every request that it received, headers and all; POST /debug/compact has it forget its history.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/go-logr/logr"
	"onepass.test/gomember/identity"

	"k8s.io/klog/v2"
)

func main() {
	log := flag.Bool("log", false, "write the log of the libraries to standard error")
	http2 := flag.Bool("http2", true, "offer HTTP/2 by ALPN")
	port := flag.Int("port", 0, "port on loopback; 0 takes a free one")
	dataDir := flag.String("data-dir", "", "directory for the cluster's state; it must exist")
	flag.Parse()
	if !*log {
		klog.SetLogger(logr.Discard())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := run(ctx, *dataDir, *port, *http2, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "kubemember:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dataDir string, port int, http2 bool, more []string) error {
	own, err := settle(dataDir)
	if err != nil {
		return err
	}
	store, err := startStore(dataDir)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer store.stop()
	server, err := newServer(ctx, own, store, dataDir, port, http2, more)
	if err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.run(ctx) }()
	greet := func() (<-chan struct{}, error) {
		if err := server.ready(ctx); err != nil {
			return nil, err
		}
		if err := startControllers(ctx, server.client); err != nil {
			return nil, err
		}
		gone, err := startNode(ctx, own, server.client)
		if err != nil {
			return nil, err
		}
		return gone, json.NewEncoder(os.Stdout).Encode(own.Greeting(server.endpoint))
	}
	gone, err := greet()
	if err != nil {
		return err
	}
	err = <-ended
	<-gone
	return err
}

// settle reads the identity of a cluster that was here before, or makes one, and leaves it in files for kube-apiserver.
func settle(dataDir string) (*identity.Identity, error) {
	var own *identity.Identity
	path := filepath.Join(dataDir, "identity.json")
	known, err := os.ReadFile(path)
	if err == nil {
		own = &identity.Identity{}
		return own, json.Unmarshal(known, own)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if own, err = identity.New("kubemember"); err != nil {
		return nil, err
	}
	text, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string]string{
		"ca.crt":      own.CA,
		"serving.crt": own.ServingCertificate,
		"serving.key": own.ServingKey,
		"client.crt":  own.Certificate,
		"client.key":  own.Key,
		"tokens.csv":  own.Token + ",gateway,gateway,system:masters\n",
	} {
		if err := os.WriteFile(filepath.Join(dataDir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	return own, os.WriteFile(path, text, 0o600)
}
