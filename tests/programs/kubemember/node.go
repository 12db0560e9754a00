package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"onepass.test/gomember/container"
	"onepass.test/gomember/identity"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const nodeName = "kubemember"

// node binds every pod to itself, as a scheduler with one node does, and runs the containers of its pods as processes: it
// reports them running, and removes a pod that is being deleted. Of a container it heeds the command and the arguments.
type node struct {
	client  kubernetes.Interface
	pods    listers.PodLister
	queue   workqueue.TypedRateLimitingInterface[string]
	runtime container.Runtime

	mutex   sync.Mutex
	running map[string]*running // by the pod's namespace/name
}

type running struct {
	uid        types.UID
	started    metav1.Time
	containers map[string]*container.Container // by name
}

// id is what the streaming server knows a container by.
func id(uid types.UID, name string) string { return string(uid) + "/" + name }

// startNode gives a channel that closes when, after the end of the context, every container is gone.
func startNode(ctx context.Context, own *identity.Identity, config *rest.Config) (<-chan struct{}, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	n := &node{
		client:  client,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
		running: map[string]*running{},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if err := n.register(ctx, listener.Addr().(*net.TCPAddr).Port); err != nil {
		return nil, err
	}
	shared := informers.NewSharedInformerFactory(client, 0)
	n.pods = shared.Core().V1().Pods().Lister()
	enqueue := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			n.queue.Add(key)
		}
	}
	registration, err := shared.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }, DeleteFunc: enqueue,
	})
	if err != nil {
		return nil, err
	}
	if err := n.serve(ctx, own, listener); err != nil {
		return nil, err
	}
	shared.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil, errors.New("the pods were not listed")
	}
	context.AfterFunc(ctx, n.queue.ShutDown)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		n.work(ctx)
	}()
	return gone, nil
}

// register writes the Node that tells kube-apiserver where to reach it.
func (n *node) register(ctx context.Context, port int) error {
	nodes := n.client.CoreV1().Nodes()
	object, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		object, err = nodes.Get(ctx, nodeName, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	object.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	object.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	object.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}
	_, err = nodes.UpdateStatus(ctx, object, metav1.UpdateOptions{})
	return err
}

func (n *node) work(ctx context.Context) {
	for {
		key, shutdown := n.queue.Get()
		if shutdown {
			n.stop()
			return
		}
		if err := n.sync(ctx, key); err != nil {
			n.queue.AddRateLimited(key)
		} else {
			n.queue.Forget(key)
		}
		n.queue.Done(key)
	}
}

func (n *node) stop() {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for key := range n.running {
		n.end(key)
	}
}

// sync brings one pod to what its object says.
func (n *node) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	pod, err := n.pods.Pods(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if now := n.running[key]; now != nil && (pod == nil || pod.UID != now.uid || pod.DeletionTimestamp != nil) {
		n.end(key)
	}
	switch {
	case pod == nil:
		return nil
	case pod.DeletionTimestamp != nil:
		return n.remove(ctx, pod)
	case pod.Spec.NodeName == "":
		return n.client.CoreV1().Pods(namespace).Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
		}, metav1.CreateOptions{})
	case pod.Spec.NodeName == nodeName && n.running[key] == nil:
		return n.start(ctx, key, pod)
	}
	return nil
}

func (n *node) remove(ctx context.Context, pod *corev1.Pod) error {
	none := int64(0)
	err := n.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &none, Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

func (n *node) start(ctx context.Context, key string, pod *corev1.Pod) error {
	now := &running{uid: pod.UID, started: metav1.NewTime(time.Now().Truncate(time.Second)), containers: map[string]*container.Container{}}
	n.running[key] = now
	for _, each := range pod.Spec.Containers {
		started, err := container.Start(ctx, append(append([]string{}, each.Command...), each.Args...))
		if err != nil {
			n.end(key)
			return fmt.Errorf("container %s: %w", each.Name, err)
		}
		now.containers[each.Name] = started
		n.runtime.Add(id(pod.UID, each.Name), started)
	}
	if err := n.report(ctx, pod, now); err != nil {
		n.end(key)
		return err
	}
	return nil
}

// end stops the containers of a pod. The caller has the lock.
func (n *node) end(key string) {
	now := n.running[key]
	delete(n.running, key)
	for name, each := range now.containers {
		n.runtime.Remove(id(now.uid, name))
		each.Stop()
	}
}

func (n *node) report(ctx context.Context, pod *corev1.Pod, now *running) error {
	pod = pod.DeepCopy()
	yes := true
	pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now.started
	pod.Status.HostIP, pod.Status.PodIP, pod.Status.PodIPs = "127.0.0.1", "127.0.0.1", []corev1.PodIP{{IP: "127.0.0.1"}}
	pod.Status.Conditions = nil
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now.started})
	}
	pod.Status.ContainerStatuses = nil
	for _, each := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: each.Name, Image: each.Image, ImageID: each.Image, ContainerID: "kubemember://" + id(pod.UID, each.Name),
			Ready: true, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now.started}},
		})
	}
	_, err := n.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}
