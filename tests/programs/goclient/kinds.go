package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"time"
)

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

func (r *run) group() string { return r.namespace + ".example.com" }

// definition is of a kind with defaults, validation, a status and a scale.
func (r *run) definition() *unstructured.Unstructured {
	property := func(kind string, more map[string]any) map[string]any {
		schema := map[string]any{"type": kind}
		for key, value := range more {
			schema[key] = value
		}
		return schema
	}
	spec := property("object", map[string]any{"properties": map[string]any{
		"replicas": property("integer", map[string]any{"minimum": int64(0), "default": int64(1)}),
		"colour":   property("string", map[string]any{"enum": []any{"red", "green"}}),
	}, "x-kubernetes-validations": []any{map[string]any{"rule": "self.replicas < 10", "message": "too many"}}})
	status := property("object", map[string]any{"properties": map[string]any{"replicas": property("integer", nil)}})
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "lamps." + r.group()},
		"spec": map[string]any{
			"group": r.group(), "scope": "Namespaced",
			"names": map[string]any{"plural": "lamps", "singular": "lamp", "kind": "Lamp", "shortNames": []any{"lp"}},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": property("object", map[string]any{"properties": map[string]any{"spec": spec, "status": status}})},
				"subresources": map[string]any{
					"status": map[string]any{},
					"scale":  map[string]any{"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
				},
				"additionalPrinterColumns": []any{map[string]any{"name": "Colour", "type": "string", "jsonPath": ".spec.colour"}},
			}},
		},
	}}
}

func (r *run) lamp(name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": r.group() + "/v1", "kind": "Lamp", "metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

func (r *run) lamps() (schema.GroupVersionResource, metav1.ApplyOptions) {
	return schema.GroupVersionResource{Group: r.group(), Version: "v1", Resource: "lamps"}, metav1.ApplyOptions{FieldManager: "goclient"}
}

func (r *run) createLamp(ctx context.Context, name string, spec map[string]any) (any, error) {
	resource, _ := r.lamps()
	return r.dynamic.Resource(resource).Namespace(r.namespace).Create(ctx, r.lamp(name, spec), metav1.CreateOptions{})
}

// protobuf is a typed client that speaks it both ways.
func (r *run) protobuf() (kubernetes.Interface, error) {
	config := rest.CopyConfig(r.config)
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf"
	return kubernetes.NewForConfig(config)
}

func (r *run) bytes(ctx context.Context, size int) (any, error) {
	client, err := r.protobuf()
	if err != nil {
		return nil, err
	}
	content := bytes.Repeat([]byte("\x00\xff\n"), size/3)
	wanted := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bytes-%d", size)}, BinaryData: map[string][]byte{"all": content}}
	made, err := client.CoreV1().ConfigMaps(r.namespace).Create(ctx, wanted, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	got, err := r.typed.CoreV1().ConfigMaps(r.namespace).Get(ctx, made.Name, metav1.GetOptions{})
	return bytes.Equal(got.BinaryData["all"], content), err
}

// Kinds that the gateway's own API does not have.
var kinds = []step{
	{"kinds: a secret in protobuf", func(ctx context.Context, r *run) (any, error) {
		client, err := r.protobuf()
		if err != nil {
			return nil, err
		}
		wanted := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "secret"}, StringData: map[string]string{"key": "value"}}
		return client.CoreV1().Secrets(r.namespace).Create(ctx, wanted, metav1.CreateOptions{})
	}},
	{"kinds: 900 KB of bytes", func(ctx context.Context, r *run) (any, error) { return r.bytes(ctx, 900_000) }},
	{"kinds: more than an object may hold", func(ctx context.Context, r *run) (any, error) { return r.bytes(ctx, 1_500_000) }},
	{"kinds: more than a request may hold", func(ctx context.Context, r *run) (any, error) { return r.bytes(ctx, 4_000_000) }},
	{"kinds: retry on conflict", func(ctx context.Context, r *run) (any, error) {
		client := r.typed.CoreV1().ConfigMaps(r.namespace)
		if _, err := client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "counted"}, Data: map[string]string{}}, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		failed := make(chan error, 4)
		for worker := range 4 {
			go func() {
				failed <- retry.OnError(wait.Backoff{Steps: 100, Duration: 5 * time.Millisecond, Jitter: 1}, func(error) bool { return true }, func() error {
					now, err := client.Get(ctx, "counted", metav1.GetOptions{})
					if err != nil {
						return err
					}
					if now.Data == nil {
						now.Data = map[string]string{}
					}
					now.Data[fmt.Sprint(worker)] = "here"
					_, err = client.Update(ctx, now, metav1.UpdateOptions{})
					return err
				})
			}()
		}
		for range 4 {
			if err := <-failed; err != nil {
				return nil, err
			}
		}
		got, err := client.Get(ctx, "counted", metav1.GetOptions{})
		return got.Data, err
	}},
	{"kinds: deployment applied and scaled", func(ctx context.Context, r *run) (any, error) {
		client := r.typed.AppsV1().Deployments(r.namespace)
		wanted := &apps.Deployment{}
		text := `{"metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},
			"spec":{"containers":[{"name":"main","image":"any","ports":[{"containerPort":80}]}]}}}}`
		if err := unmarshal([]byte(text), wanted); err != nil {
			return nil, err
		}
		made, err := client.Create(ctx, wanted, metav1.CreateOptions{FieldManager: "goclient"})
		if err != nil {
			return nil, err
		}
		extracted, err := applyapps.ExtractDeployment(made, "goclient")
		if err != nil {
			return nil, err
		}
		applied, err := client.Apply(ctx, extracted, metav1.ApplyOptions{FieldManager: "other"})
		if err != nil {
			return nil, err
		}
		scaled, err := client.UpdateScale(ctx, "web", &autoscaling.Scale{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: r.namespace}, Spec: autoscaling.ScaleSpec{Replicas: 3},
		}, metav1.UpdateOptions{})
		return []any{applied, scaled}, err
	}},
	{"kinds: custom resource definition", func(ctx context.Context, r *run) (any, error) {
		made, err := r.dynamic.Resource(definitions).Create(ctx, r.definition(), metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		resource, _ := r.lamps()
		return made.Object["spec"], wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			_, err := r.dynamic.Resource(resource).List(ctx, metav1.ListOptions{})
			return err == nil, nil
		})
	}},
	{"kinds: custom resource, defaulted", func(ctx context.Context, r *run) (any, error) {
		return r.createLamp(ctx, "good", map[string]any{"colour": "red"})
	}},
	{"kinds: custom resource, not of its schema", func(ctx context.Context, r *run) (any, error) {
		return r.createLamp(ctx, "bad", map[string]any{"colour": "blue"})
	}},
	{"kinds: custom resource, against a rule", func(ctx context.Context, r *run) (any, error) {
		return r.createLamp(ctx, "bad", map[string]any{"replicas": int64(10)})
	}},
	{"kinds: custom resource, applied", func(ctx context.Context, r *run) (any, error) {
		resource, options := r.lamps()
		return r.dynamic.Resource(resource).Namespace(r.namespace).Apply(ctx, "good", r.lamp("good", map[string]any{"replicas": int64(2)}), options)
	}},
	{"kinds: custom resource, status", func(ctx context.Context, r *run) (any, error) {
		resource, options := r.lamps()
		lamp := r.lamp("good", nil)
		lamp.Object["status"] = map[string]any{"replicas": int64(2)}
		return r.dynamic.Resource(resource).Namespace(r.namespace).ApplyStatus(ctx, "good", lamp, options)
	}},
	{"kinds: custom resource, scale", func(ctx context.Context, r *run) (any, error) {
		resource, _ := r.lamps()
		return r.dynamic.Resource(resource).Namespace(r.namespace).Patch(ctx, "good", types.MergePatchType, []byte(`{"spec":{"replicas":4}}`), metav1.PatchOptions{}, "scale")
	}},
	{"kinds: custom resource, watch", func(ctx context.Context, r *run) (any, error) {
		resource, _ := r.lamps()
		client := r.dynamic.Resource(resource).Namespace(r.namespace)
		watcher, err := client.Watch(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		if err := client.Delete(ctx, "good", metav1.DeleteOptions{}); err != nil {
			return nil, err
		}
		return events(ctx, watcher, "DELETED good ")
	}},
	{"kinds: custom resource definition, deleted", func(ctx context.Context, r *run) (any, error) {
		return nil, r.dynamic.Resource(definitions).Delete(ctx, "lamps."+r.group(), metav1.DeleteOptions{})
	}},
	{"kinds: service through the API server", func(ctx context.Context, r *run) (any, error) {
		_, err := r.typed.CoreV1().Services(r.namespace).ProxyGet("http", "none", "80", "/path", map[string]string{"x": "1"}).DoRaw(ctx)
		return strings.Contains(fmt.Sprint(err), "not found"), nil
	}},
}
