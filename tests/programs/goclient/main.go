// Command goclient does with client-go what programs do with it, and tells on standard output, as one line of JSON a step,
// what came of it: {"step", "result"} or {"step", "error"}. What differs from run to run by nature (uids, versions, times,
// the address of the server, the namespace given) is left out or replaced, so that two runs against the same server can be
// compared line by line.
//
//	goclient -kubeconfig FILE -namespace NAME [-own]     every step; -own leaves out those on kinds that only a cluster has
//	goclient -kubeconfig FILE -namespace NAME -informer  tells each event of a shared informer until standard input ends
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const deadline = 300 * time.Second // for a step; what takes this long hangs

// run is what the steps share.
type run struct {
	config    *rest.Config
	typed     kubernetes.Interface
	dynamic   dynamic.Interface
	metadata  metadata.Interface
	namespace string
}

// step is one thing done. Its result is anything that JSON can say.
type step struct {
	name string
	do   func(ctx context.Context, r *run) (any, error)
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how the server is reached")
	namespace := flag.String("namespace", "", "a namespace that is not there yet; the steps make it and delete it")
	own := flag.Bool("own", false, "only the steps on kinds that the gateway's own API has")
	informer := flag.Bool("informer", false, "follow the service accounts of the namespace instead")
	flag.Parse()
	klog.SetLogger(logr.Discard()) // informers tell every lost connection, which here are on purpose
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	r, err := newRun(*kubeconfig, *namespace)
	if err == nil {
		if *informer {
			err = follow(r)
		} else {
			err = r.all(*own)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		os.Exit(1)
	}
}

func newRun(kubeconfig, namespace string) (*run, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	r := &run{config: config, namespace: namespace}
	if r.typed, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if r.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	r.metadata, err = metadata.NewForConfig(config)
	return r, err
}

func (r *run) all(own bool) error {
	steps := append(append([]step{}, discovery...), objects...)
	steps = append(steps, watches...)
	if !own {
		steps = append(steps, kinds...)
		steps = append(steps, streams...)
	}
	out := json.NewEncoder(os.Stdout)
	for _, each := range append(steps, last...) {
		line := map[string]any{"step": each.name}
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		result, err := each.do(ctx, r)
		cancel()
		if err != nil {
			line["error"] = r.steady(failure(err))
		} else {
			line["result"] = r.steady(result)
		}
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// failure is the Status of an error of the API, else its type and words.
func failure(err error) any {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status()
	}
	return fmt.Sprintf("%T: %v", err, err)
}
