// Command gomember plays a member cluster: one pod behind the API paths of a kube-apiserver, whose exec, attach and
// port-forward are Kubernetes' own streaming libraries, over SPDY and over WebSocket, arranged as kube-apiserver and
// kubelet arrange them.
//
// It listens on loopback with a certificate of its own making, prints one line of JSON that says how it is reached
// (endpoint, ca, certificate, key, token; all PEM but the first and the last) and runs until its standard input closes
// or a signal ends it. GET /debug/requests tells every request that it received, headers and all.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"onepass.test/gomember/container"
	"onepass.test/gomember/identity"
	"onepass.test/gomember/requests"

	"k8s.io/klog/v2"
)

func main() {
	offerHTTP2 := flag.Bool("http2", true, "offer HTTP/2 by ALPN")
	flag.Parse()
	klog.SetOutput(io.Discard) // the libraries tell every client that hangs up; /debug/requests tells what matters
	klog.LogToStderr(false)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := run(ctx, *offerHTTP2); err != nil {
		fmt.Fprintln(os.Stderr, "gomember:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, offerHTTP2 bool) error {
	own, err := identity.New("gomember")
	if err != nil {
		return err
	}
	pod, err := container.Start(ctx, nil)
	if err != nil {
		return err
	}
	defer pod.Stop()
	runtime := &container.Runtime{}
	runtime.Add(containerName, pod)
	streams, err := serveStreams(ctx, runtime)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	protocols := []string{"http/1.1"}
	if offerHTTP2 {
		protocols = []string{"h2", "http/1.1"}
	}
	config, err := own.ServerTLS()
	if err != nil {
		return err
	}
	config.NextProtos = protocols
	server := &http.Server{
		Handler:           requests.NewLog(own).Record(authenticated(own, api(pod, streams))),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
		TLSConfig:         config,
	}
	if !offerHTTP2 {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	hello := own.Greeting("https://" + listener.Addr().String())
	if err := json.NewEncoder(os.Stdout).Encode(hello); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}
