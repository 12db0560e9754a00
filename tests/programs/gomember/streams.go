package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"onepass.test/gomember/container"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// streams carries exec, attach and port-forward as a cluster does: a front that speaks today's WebSocket protocols
// turns them into SPDY for the streaming server of a container runtime, and hands SPDY and the older WebSocket
// protocols on as they are.
type streams struct {
	server streaming.Server
}

func serveStreams(ctx context.Context, runtime *container.Runtime) (*streams, error) {
	server, err := container.Serve(ctx, runtime)
	return &streams{server: server}, err
}

func (s *streams) exec(w http.ResponseWriter, r *http.Request) {
	options := wanted(r)
	response, err := s.server.GetExec(&runtimeapi.ExecRequest{
		ContainerId: containerName, Cmd: r.URL.Query()["command"],
		Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.Tty,
	})
	remoteCommand(w, r, response.GetUrl(), err, options)
}

func (s *streams) attach(w http.ResponseWriter, r *http.Request) {
	options := wanted(r)
	response, err := s.server.GetAttach(&runtimeapi.AttachRequest{
		ContainerId: containerName,
		Stdin:       options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.Tty,
	})
	remoteCommand(w, r, response.GetUrl(), err, options)
}

func (s *streams) portForward(w http.ResponseWriter, r *http.Request) {
	ports := []int32{}
	for _, text := range r.URL.Query()["ports"] {
		if port, err := strconv.ParseInt(text, 10, 32); err == nil {
			ports = append(ports, int32(port))
		}
	}
	response, err := s.server.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: podName, Port: ports})
	location, ok := parsed(w, response.GetUrl(), err)
	if !ok {
		return
	}
	direct := upgrade(location)
	tunnel := proxy.NewTunnelingHandler(upgrade(location))
	proxy.NewTranslatingHandler(direct, tunnel, wsstream.IsWebSocketRequestWithTunnelingProtocol).ServeHTTP(w, r)
}

// remoteCommand sends on SPDY and WebSocket v4 as they are and translates WebSocket v5, the one with a close signal.
func remoteCommand(w http.ResponseWriter, r *http.Request, address string, err error, options proxy.Options) {
	location, ok := parsed(w, address, err)
	if !ok {
		return
	}
	translator := proxy.NewStreamTranslatorHandler(location, &http.Transport{}, 0, options)
	proxy.NewTranslatingHandler(upgrade(location), translator, wsstream.IsWebSocketRequestWithStreamCloseProtocol).ServeHTTP(w, r)
}

func upgrade(location *url.URL) http.Handler {
	return apiproxy.NewUpgradeAwareHandler(location, &http.Transport{}, false, true, responder{})
}

type responder struct{}

func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
}

func parsed(w http.ResponseWriter, address string, err error) (*url.URL, bool) {
	var location *url.URL
	if err == nil {
		location, err = url.Parse(address)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return nil, false
	}
	return location, true
}

func wanted(r *http.Request) proxy.Options {
	flag := func(name string) bool {
		value, _ := strconv.ParseBool(r.URL.Query().Get(name))
		return value
	}
	return proxy.Options{Stdin: flag("stdin"), Stdout: flag("stdout"), Stderr: flag("stderr"), Tty: flag("tty")}
}
