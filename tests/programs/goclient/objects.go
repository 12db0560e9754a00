package main

import (
	"context"
	"fmt"
	"strings"

	authentication "k8s.io/api/authentication/v1"
	certificates "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
)

var serviceAccounts = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}

func (r *run) accounts() typedcore.ServiceAccountInterface {
	return r.typed.CoreV1().ServiceAccounts(r.namespace)
}

func account(name string, labels map[string]string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func (r *run) patch(ctx context.Context, kind types.PatchType, text string) (any, error) {
	return r.accounts().Patch(ctx, "one", kind, []byte(text), metav1.PatchOptions{FieldManager: "goclient"})
}

func (r *run) apply(ctx context.Context, manager, value string, force bool) (any, error) {
	wanted := applycore.ServiceAccount("applied", r.namespace).WithLabels(map[string]string{"by": value, manager: "here"})
	return r.accounts().Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: manager, Force: force})
}

// A kind that every cluster and the gateway's own API have: service accounts.
var objects = []step{
	{"namespace: create", func(ctx context.Context, r *run) (any, error) {
		wanted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}}
		return r.typed.CoreV1().Namespaces().Create(ctx, wanted, metav1.CreateOptions{})
	}},
	{"typed: create", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().Create(ctx, account("one", map[string]string{"of": "crud"}), metav1.CreateOptions{})
	}},
	{"typed: create what exists", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().Create(ctx, account("one", nil), metav1.CreateOptions{})
	}},
	{"typed: create with an invalid name", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().Create(ctx, account("No_Name", nil), metav1.CreateOptions{})
	}},
	{"typed: create in another namespace than the path's", func(ctx context.Context, r *run) (any, error) {
		wanted := account("two", nil)
		wanted.Namespace = "default"
		return r.accounts().Create(ctx, wanted, metav1.CreateOptions{})
	}},
	{"typed: create in a namespace that is not there", func(ctx context.Context, r *run) (any, error) {
		return r.typed.CoreV1().ServiceAccounts(r.namespace+"-not").Create(ctx, account("one", nil), metav1.CreateOptions{})
	}},
	{"typed: create, dry run", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().Create(ctx, account("dry", nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	}},
	{"typed: create with a generated name", func(ctx context.Context, r *run) (any, error) {
		wanted := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{GenerateName: "made-"}}
		made, err := r.accounts().Create(ctx, wanted, metav1.CreateOptions{})
		return []any{strings.HasPrefix(made.Name, "made-"), len(made.Name)}, err
	}},
	{"typed: get", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().Get(ctx, "one", metav1.GetOptions{})
	}},
	{"typed: get what is not there", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().Get(ctx, "dry", metav1.GetOptions{})
	}},
	{"typed: update", func(ctx context.Context, r *run) (any, error) {
		now, err := r.accounts().Get(ctx, "one", metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		no := false
		now.AutomountServiceAccountToken = &no
		return r.accounts().Update(ctx, now, metav1.UpdateOptions{})
	}},
	{"typed: update what changed meanwhile", func(ctx context.Context, r *run) (any, error) {
		before, err := r.accounts().Get(ctx, "one", metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		after := before.DeepCopy()
		after.Annotations = map[string]string{"changed": "meanwhile"}
		if _, err := r.accounts().Update(ctx, after, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
		before.Annotations = map[string]string{"changed": "late"}
		return r.accounts().Update(ctx, before, metav1.UpdateOptions{})
	}},
	{"typed: JSON patch", func(ctx context.Context, r *run) (any, error) {
		return r.patch(ctx, types.JSONPatchType, `[{"op":"test","path":"/metadata/name","value":"one"},{"op":"add","path":"/metadata/labels/json","value":"yes"}]`)
	}},
	{"typed: JSON patch whose test fails", func(ctx context.Context, r *run) (any, error) {
		return r.patch(ctx, types.JSONPatchType, `[{"op":"test","path":"/metadata/name","value":"two"}]`)
	}},
	{"typed: merge patch", func(ctx context.Context, r *run) (any, error) {
		return r.patch(ctx, types.MergePatchType, `{"metadata":{"labels":{"json":null,"merge":"yes"}}}`)
	}},
	{"typed: strategic merge patch", func(ctx context.Context, r *run) (any, error) {
		if _, err := r.patch(ctx, types.StrategicMergePatchType, `{"secrets":[{"name":"a"},{"name":"b"}],"imagePullSecrets":[{"name":"a"}]}`); err != nil {
			return nil, err
		}
		return r.patch(ctx, types.StrategicMergePatchType, `{"secrets":[{"name":"a","$patch":"delete"},{"name":"c"}],"imagePullSecrets":[{"name":"b"}]}`)
	}},
	{"typed: patch that is no JSON", func(ctx context.Context, r *run) (any, error) {
		return r.patch(ctx, types.MergePatchType, `{"metadata":`)
	}},
	{"apply: create", func(ctx context.Context, r *run) (any, error) { return r.apply(ctx, "first", "first", false) }},
	{"apply: conflict", func(ctx context.Context, r *run) (any, error) { return r.apply(ctx, "second", "second", false) }},
	{"apply: forced", func(ctx context.Context, r *run) (any, error) { return r.apply(ctx, "second", "second", true) }},
	{"apply: give up a field", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().Apply(ctx, applycore.ServiceAccount("applied", r.namespace), metav1.ApplyOptions{FieldManager: "second"})
	}},
	{"dynamic: create, list, delete", func(ctx context.Context, r *run) (any, error) {
		client := r.dynamic.Resource(serviceAccounts).Namespace(r.namespace)
		wanted := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "dynamic", "labels": map[string]any{"of": "dynamic"}},
		}}
		if _, err := client.Create(ctx, wanted, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		list, err := client.List(ctx, metav1.ListOptions{LabelSelector: "of=dynamic"})
		if err != nil {
			return nil, err
		}
		return list, client.Delete(ctx, "dynamic", metav1.DeleteOptions{})
	}},
	{"list: by label", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().List(ctx, metav1.ListOptions{LabelSelector: "of in (crud),merge,!json"})
	}},
	{"list: by field", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=one"})
	}},
	{"list: by a field that is none", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().List(ctx, metav1.ListOptions{FieldSelector: "spec.nothing=one"})
	}},
	{"list: bad label selector", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().List(ctx, metav1.ListOptions{LabelSelector: "of in crud"})
	}},
	{"list: pages", pages},
	{"list: bad continue", func(ctx context.Context, r *run) (any, error) {
		return r.accounts().List(ctx, metav1.ListOptions{Limit: 1, Continue: "nothing"})
	}},
	{"list: as a table", func(ctx context.Context, r *run) (any, error) { return r.table(ctx, "of=page") }},
	{"list: metadata alone", func(ctx context.Context, r *run) (any, error) {
		return r.metadata.Resource(serviceAccounts).Namespace(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: "of=crud"})
	}},
	{"delete: with a finalizer", finalizer},
	{"delete: precondition of another uid", func(ctx context.Context, r *run) (any, error) {
		other := types.UID("11111111-1111-4111-8111-111111111111")
		return nil, r.accounts().Delete(ctx, "one", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	}},
	{"delete: one", func(ctx context.Context, r *run) (any, error) {
		return nil, r.accounts().Delete(ctx, "one", metav1.DeleteOptions{})
	}},
	{"delete: what is not there", func(ctx context.Context, r *run) (any, error) {
		return nil, r.accounts().Delete(ctx, "one", metav1.DeleteOptions{})
	}},
	{"delete: a collection", func(ctx context.Context, r *run) (any, error) {
		err := r.accounts().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "of=page"})
		if err != nil {
			return nil, err
		}
		left, err := r.accounts().List(ctx, metav1.ListOptions{LabelSelector: "of=page"})
		return len(left.Items), err
	}},
	{"account: token", func(ctx context.Context, r *run) (any, error) {
		seconds := int64(1200)
		asked := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{ExpirationSeconds: &seconds}}
		answer, err := r.accounts().CreateToken(ctx, "applied", asked, metav1.CreateOptions{})
		return []any{answer.Spec.ExpirationSeconds, strings.Count(answer.Status.Token, "."), answer.Status.ExpirationTimestamp.IsZero()}, err
	}},
	{"cluster role: create, get, delete", func(ctx context.Context, r *run) (any, error) {
		client := r.typed.RbacV1().ClusterRoles()
		wanted := &rbac.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: r.namespace},
			Rules:      []rbac.PolicyRule{{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"get", "list"}}},
		}
		if _, err := client.Create(ctx, wanted, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		got, err := client.Get(ctx, r.namespace, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return got, client.Delete(ctx, r.namespace, metav1.DeleteOptions{})
	}},
	{"certificate request: of nonsense", func(ctx context.Context, r *run) (any, error) {
		wanted := &certificates.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: r.namespace},
			Spec: certificates.CertificateSigningRequestSpec{
				Request: []byte("nonsense"), SignerName: certificates.KubeAPIServerClientSignerName, Usages: []certificates.KeyUsage{certificates.UsageClientAuth},
			},
		}
		return r.typed.CertificatesV1().CertificateSigningRequests().Create(ctx, wanted, metav1.CreateOptions{})
	}},
}

// pages makes five accounts and lists them two at a time.
func pages(ctx context.Context, r *run) (any, error) {
	for i := range 5 {
		if _, err := r.accounts().Create(ctx, account(fmt.Sprintf("page-%d", i), map[string]string{"of": "page"}), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	told, versions := []any{}, map[string]bool{}
	for token := ""; ; {
		list, err := r.accounts().List(ctx, metav1.ListOptions{LabelSelector: "of=page", Limit: 2, Continue: token})
		if err != nil {
			return nil, err
		}
		names := []string{}
		for _, each := range list.Items {
			names = append(names, each.Name)
		}
		versions[list.ResourceVersion] = true
		told = append(told, names, list.RemainingItemCount)
		if token = list.Continue; token == "" {
			return append(told, fmt.Sprintf("%d version", len(versions))), nil
		}
	}
}

func (r *run) table(ctx context.Context, labels string) (any, error) {
	table := &metav1.Table{}
	request := r.typed.CoreV1().RESTClient().Get().Namespace(r.namespace).Resource("serviceaccounts").Param("labelSelector", labels).
		SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	raw, err := request.DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	if err := unmarshal(raw, table); err != nil {
		return nil, err
	}
	for i := range table.Rows {
		table.Rows[i].Cells = table.Rows[i].Cells[:1] // the second is the age
	}
	return table, nil
}

// finalizer deletes what something still holds, and then lets it go.
func finalizer(ctx context.Context, r *run) (any, error) {
	held := account("held", nil)
	held.Finalizers = []string{"example.com/held"}
	if _, err := r.accounts().Create(ctx, held, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	if err := r.accounts().Delete(ctx, "held", metav1.DeleteOptions{}); err != nil {
		return nil, err
	}
	waiting, err := r.accounts().Get(ctx, "held", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if _, err = r.accounts().Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		return nil, err
	}
	_, err = r.accounts().Get(ctx, "held", metav1.GetOptions{})
	return []any{waiting, failure(err)}, nil
}

var last = []step{
	{"namespace: delete", func(ctx context.Context, r *run) (any, error) {
		return nil, r.typed.CoreV1().Namespaces().Delete(ctx, r.namespace, metav1.DeleteOptions{})
	}},
}
