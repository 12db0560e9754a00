package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	toolswatch "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/transport/spdy"
	streaming "k8s.io/streaming/pkg/httpstream"
	utilexec "k8s.io/utils/exec"
)

const pod = "pod"

// executors are the ways that client-go knows to run a command.
var executors = map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
	"SPDY": func(config *rest.Config, address *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(config, http.MethodPost, address)
	},
	"WebSocket": func(config *rest.Config, address *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(config, http.MethodGet, address.String())
	},
	"fallback": func(config *rest.Config, address *url.URL) (remotecommand.Executor, error) {
		primary, err := remotecommand.NewWebSocketExecutorForProtocols(config, http.MethodGet, address.String(), "none.such")
		if err != nil {
			return nil, err
		}
		secondary, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, address)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewFallbackExecutor(primary, secondary, streaming.IsUpgradeFailure)
	},
}

func (r *run) subresource(name string) *rest.Request {
	return r.typed.CoreV1().RESTClient().Post().Namespace(r.namespace).Resource("pods").Name(pod).SubResource(name)
}

func (r *run) executor(way, subresource string, options any) (remotecommand.Executor, error) {
	request := r.subresource(subresource)
	switch options := options.(type) {
	case *corev1.PodExecOptions:
		request.VersionedParams(options, scheme.ParameterCodec)
	case *corev1.PodAttachOptions:
		request.VersionedParams(options, scheme.ParameterCodec)
	}
	return executors[way](r.config, request.URL())
}

func (r *run) exec(ctx context.Context, way string, input []byte, words ...string) (any, error) {
	executor, err := r.executor(way, "exec", &corev1.PodExecOptions{Command: words, Stdin: input != nil, Stdout: true, Stderr: true})
	if err != nil {
		return nil, err
	}
	var out, errOut bytes.Buffer
	options := remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut}
	if input != nil {
		options.Stdin = bytes.NewReader(input)
	}
	err = executor.StreamWithContext(ctx, options)
	code := 0
	var exit utilexec.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitStatus(), nil
	}
	if len(input) > 100 {
		return []any{code, bytes.Equal(out.Bytes(), input), errOut.String()}, err
	}
	return []any{code, out.String(), errOut.String()}, err
}

// sizes is a terminal that is resized once, when told.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, open := <-s
	if !open {
		return nil
	}
	return &size
}

func (r *run) terminal(ctx context.Context, way string) (any, error) {
	script := `while test "$(stty size)" != "30 90"; do sleep 0.05; done; echo small; while test "$(stty size)" != "50 120"; do sleep 0.05; done; echo tall; exit 3`
	executor, err := r.executor(way, "exec", &corev1.PodExecOptions{Command: []string{"sh", "-c", script}, Stdout: true, TTY: true})
	if err != nil {
		return nil, err
	}
	queue := make(sizes, 2)
	defer close(queue)
	queue <- remotecommand.TerminalSize{Width: 90, Height: 30}
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: writer, Tty: true, TerminalSizeQueue: queue})
		_ = writer.Close()
		ended <- err
	}()
	got := []any{}
	for lines := bufio.NewScanner(reader); lines.Scan(); {
		got = append(got, strings.TrimSpace(lines.Text()))
		if len(got) == 1 {
			queue <- remotecommand.TerminalSize{Width: 120, Height: 50}
		}
	}
	return append(got, failure(<-ended)), nil
}

func (r *run) attach(ctx context.Context, way string) (any, error) {
	executor, err := r.executor(way, "attach", &corev1.PodAttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	input, keyboard := io.Pipe()
	ended := make(chan struct{})
	go func() {
		_ = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: input, Stdout: writer})
		_ = writer.Close()
		close(ended)
	}()
	if _, err := keyboard.Write([]byte("from " + way + "\n")); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(reader).ReadString('\n')
	cancel()
	_ = reader.Close()
	_ = keyboard.Close()
	<-ended
	return line, err
}

// dialers are the ways that client-go knows to forward a port.
var dialers = map[string]func(*rest.Config, *url.URL) (httpstream.Dialer, error){
	"SPDY": func(config *rest.Config, address *url.URL) (httpstream.Dialer, error) {
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, address), nil
	},
	"WebSocket": func(config *rest.Config, address *url.URL) (httpstream.Dialer, error) {
		return portforward.NewSPDYOverWebsocketDialer(address, config)
	},
}

// forward sends 1 MiB each way through two connections at once, to a port of the pod that sends back what it gets.
func (r *run) forward(ctx context.Context, way string) (any, error) {
	echo, err := net.Listen("tcp", "127.0.0.1:0") // the pod's loopback is this machine's
	if err != nil {
		return nil, err
	}
	defer echo.Close()
	go func() {
		for {
			connection, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				_, _ = io.Copy(connection, connection)
			}()
		}
	}()
	dialer, err := dialers[way](r.config, r.subresource("portforward").URL())
	if err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	forwarder, err := portforward.NewOnAddressesWithContext(
		ctx, dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", echo.Addr().(*net.TCPAddr).Port)}, ready, io.Discard, io.Discard,
	)
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case err := <-ended:
		return nil, err
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return nil, err
	}
	results := make(chan error, 2)
	for range 2 {
		go func() { results <- through(ctx, int(ports[0].Local)) }()
	}
	for range 2 {
		if err := <-results; err != nil {
			return nil, err
		}
	}
	cancel()
	return "2 MiB there and back", <-ended
}

func through(ctx context.Context, port int) error {
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { _ = connection.Close() })()
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() { _, _ = connection.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(connection, got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

func (r *run) logs(ctx context.Context) (any, error) {
	stream, err := r.typed.CoreV1().Pods(r.namespace).GetLogs(pod, &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	lines := bufio.NewScanner(stream)
	got := []string{}
	for lines.Scan() {
		got = append(got, lines.Text())
		switch {
		case len(got) == 1:
			if _, err := r.attach(ctx, "WebSocket"); err != nil {
				return nil, err
			}
		case strings.Contains(lines.Text(), "from WebSocket"):
			return got, nil
		}
	}
	return got, lines.Err()
}

func upload(words string) []byte {
	content := make([]byte, 2<<20)
	_, _ = rand.Read(content)
	return append(content, words...)
}

const script = "echo out; echo err >&2; exit 7"

// A pod and everything that streams from it.
var streams = []step{
	{"pod: runs", func(ctx context.Context, r *run) (any, error) {
		wanted := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: pod},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "any", Stdin: true}}},
		}
		if _, err := r.typed.CoreV1().Pods(r.namespace).Create(ctx, wanted, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		lister := cache.NewListWatchFromClient(r.typed.CoreV1().RESTClient(), "pods", r.namespace, fields.OneTermEqualSelector("metadata.name", pod))
		event, err := toolswatch.UntilWithSync(ctx, lister, &corev1.Pod{}, nil, func(event watch.Event) (bool, error) {
			return event.Object.(*corev1.Pod).Status.Phase == corev1.PodRunning, nil
		})
		if err != nil {
			return nil, err
		}
		return event.Object.(*corev1.Pod).Spec, nil
	}},
	{"logs: followed", func(ctx context.Context, r *run) (any, error) { return r.logs(ctx) }},
	{"logs: of a container that is none", func(ctx context.Context, r *run) (any, error) {
		return r.typed.CoreV1().Pods(r.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: "none"}).DoRaw(ctx)
	}},
	{"exec: SPDY", func(ctx context.Context, r *run) (any, error) { return r.exec(ctx, "SPDY", nil, "sh", "-c", script) }},
	{"exec: WebSocket", func(ctx context.Context, r *run) (any, error) {
		return r.exec(ctx, "WebSocket", nil, "sh", "-c", script)
	}},
	{"exec: fallback from WebSocket to SPDY", func(ctx context.Context, r *run) (any, error) {
		return r.exec(ctx, "fallback", nil, "sh", "-c", script)
	}},
	{"exec: 2 MiB by SPDY", func(ctx context.Context, r *run) (any, error) { return r.exec(ctx, "SPDY", upload("end"), "cat") }},
	{"exec: 2 MiB by WebSocket", func(ctx context.Context, r *run) (any, error) { return r.exec(ctx, "WebSocket", upload("end"), "cat") }},
	{"exec: no such program by SPDY", func(ctx context.Context, r *run) (any, error) { return r.exec(ctx, "SPDY", nil, "/no/such") }},
	{"exec: no such program by WebSocket", func(ctx context.Context, r *run) (any, error) { return r.exec(ctx, "WebSocket", nil, "/no/such") }},
	{"exec: terminal by SPDY", func(ctx context.Context, r *run) (any, error) { return r.terminal(ctx, "SPDY") }},
	{"exec: terminal by WebSocket", func(ctx context.Context, r *run) (any, error) { return r.terminal(ctx, "WebSocket") }},
	{"attach: SPDY", func(ctx context.Context, r *run) (any, error) { return r.attach(ctx, "SPDY") }},
	{"attach: WebSocket", func(ctx context.Context, r *run) (any, error) { return r.attach(ctx, "WebSocket") }},
	{"port-forward: SPDY", func(ctx context.Context, r *run) (any, error) { return r.forward(ctx, "SPDY") }},
	{"port-forward: WebSocket", func(ctx context.Context, r *run) (any, error) { return r.forward(ctx, "WebSocket") }},
	{"pod: evicted", func(ctx context.Context, r *run) (any, error) {
		return nil, r.typed.CoreV1().Pods(r.namespace).EvictV1(ctx, &policy.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: r.namespace}})
	}},
}
