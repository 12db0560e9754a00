package container

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// Runtime is the containers under a streaming server, by their ids.
type Runtime struct {
	containers sync.Map
}

// Add makes a container known under an id.
func (r *Runtime) Add(id string, container *Container) { r.containers.Store(id, container) }

// Remove forgets a container.
func (r *Runtime) Remove(id string) { r.containers.Delete(id) }

// Find gives the container of an id.
func (r *Runtime) Find(id string) (*Container, error) {
	found, known := r.containers.Load(id)
	if !known {
		return nil, fmt.Errorf("container %q not found", id)
	}
	return found.(*Container), nil
}

// Exec implements streaming.Runtime.
func (r *Runtime) Exec(
	_ context.Context, id string, words []string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize,
) error {
	container, err := r.Find(id)
	if err != nil {
		return err
	}
	return container.Exec(words, in, out, errOut, tty, resize)
}

// Attach implements streaming.Runtime.
func (r *Runtime) Attach(
	ctx context.Context, id string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize,
) error {
	container, err := r.Find(id)
	if err != nil {
		return err
	}
	return container.Attach(ctx, in, out)
}

// PortForward implements streaming.Runtime: it joins one connection with a port on this machine's loopback.
func (r *Runtime) PortForward(ctx context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return fmt.Errorf("dialing the container: %w", err)
	}
	defer connection.Close()
	go func() {
		_, _ = io.Copy(connection, stream)
		_ = connection.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, connection)
	return err
}

// Serve starts the streaming server on a loopback port of its own until the context ends. It takes a request only with
// the single-use token that Get{Exec,Attach,PortForward} puts into the address, so that the port gives nothing away.
func Serve(ctx context.Context, runtime *Runtime) (streaming.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: listener.Addr().String(), Path: "/"}
	server, err := streaming.NewServer(config, runtime)
	if err != nil {
		return nil, err
	}
	plain := &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = plain.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = plain.Close() })
	return server, nil
}
