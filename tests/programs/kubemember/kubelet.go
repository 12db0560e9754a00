package main

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"onepass.test/gomember/container"
	"onepass.test/gomember/identity"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// serve answers what kube-apiserver asks of a kubelet for a client: streams, which go on to the streaming server of the
// runtime, and logs. It takes the certificate that kube-apiserver was given for this, and nobody else.
func (n *node) serve(ctx context.Context, own *identity.Identity, listener net.Listener) error {
	streams, err := container.Serve(ctx, &n.runtime)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", n.stream(func(id string, r *http.Request) (string, error) {
		o, err := remotecommand.NewOptions(r)
		if err != nil {
			return "", err
		}
		response, err := streams.GetExec(&runtimeapi.ExecRequest{
			ContainerId: id, Cmd: r.URL.Query()["command"], Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY,
		})
		return response.GetUrl(), err
	}))
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", n.stream(func(id string, r *http.Request) (string, error) {
		o, err := remotecommand.NewOptions(r)
		if err != nil {
			return "", err
		}
		response, err := streams.GetAttach(&runtimeapi.AttachRequest{
			ContainerId: id, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY,
		})
		return response.GetUrl(), err
	}))
	mux.HandleFunc("/portForward/{namespace}/{pod}", n.stream(func(id string, r *http.Request) (string, error) {
		response, err := streams.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports(r)})
		return response.GetUrl(), err
	}))
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", n.logs)
	config, err := own.ServerTLS()
	if err != nil {
		return err
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	server := &http.Server{
		Handler: mux, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

// stream hands a request on to the address that the streaming server gives for it.
func (n *node) stream(address func(id string, r *http.Request) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		uid, known := n.uid(r)
		if !known {
			http.Error(w, "pod does not exist", http.StatusNotFound)
			return
		}
		text, err := address(id(uid, r.PathValue("container")), r)
		if err != nil {
			streaming.WriteError(err, w)
			return
		}
		location, err := url.Parse(text)
		if err != nil {
			streaming.WriteError(err, w)
			return
		}
		proxy.NewUpgradeAwareHandler(location, nil, false, true, responder{}).ServeHTTP(w, r)
	}
}

func (n *node) logs(w http.ResponseWriter, r *http.Request) {
	uid, known := n.uid(r)
	if !known {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return
	}
	found, err := n.runtime.Find(id(uid, r.PathValue("container")))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	follow, _ := strconv.ParseBool(r.FormValue("follow"))
	flusher := http.NewResponseController(w)
	w.Header().Set("Transfer-Encoding", "chunked")
	_ = found.Logs(r.Context(), follow, func(chunk []byte) error {
		if _, err := w.Write(chunk); err != nil {
			return err
		}
		return flusher.Flush()
	})
}

func (n *node) uid(r *http.Request) (types.UID, bool) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	found, known := n.running[r.PathValue("namespace")+"/"+r.PathValue("pod")]
	if !known {
		return "", false
	}
	return found.uid, true
}

func ports(r *http.Request) []int32 {
	numbers := []int32{}
	for _, text := range r.URL.Query()["port"] {
		if port, err := strconv.ParseInt(text, 10, 32); err == nil {
			numbers = append(numbers, int32(port))
		}
	}
	return numbers
}

type responder struct{}

func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusBadGateway)
}
