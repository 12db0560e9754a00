package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"onepass.test/gomember/identity"
	"onepass.test/gomember/requests"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// server is kube-apiserver as its own command would start it with these flags, with a log of requests around it.
type server struct {
	endpoint string
	client   *rest.Config
	run      func(context.Context) error
}

// uncached has no watch cache, which would know of changes that etcd has forgotten.
const uncached = "roles.rbac.authorization.k8s.io"

func flags(store *store, dataDir string, http2 bool) []string {
	client := store.url("client")
	in := func(name string) string { return filepath.Join(dataDir, name) }
	return []string{
		"--etcd-servers=" + client.String(),
		"--tls-cert-file=" + in("serving.crt"),
		"--tls-private-key-file=" + in("serving.key"),
		"--disable-http2-serving=" + strconv.FormatBool(!http2),
		"--client-ca-file=" + in("ca.crt"),
		"--token-auth-file=" + in("tokens.csv"),
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + in("serving.crt"),
		"--service-account-signing-key-file=" + in("serving.key"),
		"--kubelet-certificate-authority=" + in("ca.crt"),
		"--kubelet-client-certificate=" + in("client.crt"),
		"--kubelet-client-key=" + in("client.key"),
		"--service-cluster-ip-range=10.0.0.0/16",
		"--endpoint-reconciler-type=none",            // nobody reaches this server through a Service
		"--disable-admission-plugins=ServiceAccount", // pods need not wait for the account of a new namespace
		"--watch-cache-sizes=" + uncached + "#0",     // its watches read etcd itself
		"--shutdown-delay-duration=0s",               // no load balancer has to hear of the end
		"--shutdown-send-retry-after=false",          //
		"--profiling=false",                          //
	}
}

func newServer(ctx context.Context, own *identity.Identity, store *store, dataDir string, port int, http2 bool, more []string) (*server, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	s := options.NewServerRunOptions()
	set := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	named := s.Flags()
	for _, each := range named.FlagSets {
		set.AddFlagSet(each)
	}
	if err := set.Parse(append(flags(store, dataDir, http2), more...)); err != nil {
		return nil, err
	}
	s.SecureServing.Listener, s.SecureServing.BindPort = listener, listener.Addr().(*net.TCPAddr).Port
	s.SecureServing.ExternalAddress = listener.Addr().(*net.TCPAddr).IP
	if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	completed, err := s.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := app.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	outermost := &config.Aggregator.GenericConfig.BuildHandlerChainFunc
	chain, log := *outermost, requests.NewLog(own)
	*outermost = func(handler http.Handler, c *genericapiserver.Config) http.Handler {
		return log.Record(store.compacting(own, chain(handler, c)))
	}
	ready, err := config.Complete()
	if err != nil {
		return nil, err
	}
	aggregator, err := app.CreateServerChain(ready)
	if err != nil {
		return nil, err
	}
	aggregator.GenericAPIServer.ShutdownTimeout = time.Second // clients of an open watch would hold the end up for a minute
	prepared, err := aggregator.PrepareRun()
	if err != nil {
		return nil, err
	}
	return &server{
		endpoint: "https://" + listener.Addr().String(),
		client:   aggregator.GenericAPIServer.LoopbackClientConfig,
		run:      prepared.Run,
	}, nil
}

// ready waits until every check of the server passes.
func (s *server) ready(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.client)
	if err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil, nil
	})
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	return nil
}
